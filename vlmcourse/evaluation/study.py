"""`python -m vlmcourse.evaluation.study`: the baselines of the first part, measured; writes docs/results.md.

Four tasks (a saturated one, a fine-grained one, novel concepts, a far domain), K = 1, 4, 16, three seeds for draw and
initialisation; CoOp's base-to-new over five splits of the classes. CoOp runs with the learning rate of its paper, 4
context tokens and 50 epochs, Tip-Adapter with the grid of its notebook. Records are kept and reused.
"""

import argparse
from pathlib import Path

from vlmcourse.evaluation.records import Record
from vlmcourse.evaluation.run import grid, run_jobs
from vlmcourse.evaluation.tables import table
from vlmcourse.files import atomic_write

TASKS = ["travel", "office", "novel_things", "fashion_mnist"]
METHODS = ["zero_shot", "linear_probe", "coop", "tip_adapter", "tip_adapter_f"]
SHOTS, SEEDS, SPLITS = [1, 4, 16], [1, 2, 3], [None, 1, 2, 3, 4]
COOP = {"n_ctx": 4, "lr": 2e-3, "epochs": 50}
TIP = {"augment_epochs": 0, "search_scale": (20.0, 50.0), "search_step": (50, 25), "search_zero": True}  # notebook 24
TIP_F = TIP | {"views": 1, "alpha": 20.0}
HYPER = {"coop": COOP, "tip_adapter": TIP, "tip_adapter_f": TIP_F}


def markdown(rows: list[dict]) -> str:
    """A table of Cells as Markdown."""
    head = list(rows[0])
    lines = ["| " + " | ".join(str(h) for h in head) + " |", "| --- " * len(head) + "|"]
    return "\n".join(lines + ["| " + " | ".join("–" if r[h] is None else str(r[h]) for h in head) + " |" for r in rows])


def few_shot(folder: Path, workers: int) -> dict[str, list[Record]]:
    """Records of all methods by task."""
    jobs = grid(method=METHODS, task=TASKS, shots=SHOTS, seed=SEEDS, hyper=HYPER)
    records = run_jobs(jobs, folder, workers, progress=True).records
    return {task: [r for r in records if r.task == task] for task in TASKS}


def base_to_new(folder: Path, workers: int) -> dict[str, list[Record]]:
    """Records of zero-shot and CoOp (4 and 16 context tokens) by task, over five splits of the classes."""
    hyper = {"coop": [COOP, COOP | {"n_ctx": 16}]}
    jobs = []
    for split in SPLITS:
        jobs += grid(
            method=["zero_shot", "coop"], task=TASKS[1:], shots=16, seed=1, hyper=hyper, protocol="base_to_new",
            options={"split_seed": split},
        )  # fmt: skip
    records = run_jobs(jobs, folder, workers, progress=True).records
    return {task: [r for r in records if r.task == task] for task in TASKS[1:]}


def report(folder: Path, workers: int) -> str:
    """The whole report as Markdown."""
    parts = [
        "# Results: baselines, CoOp, Tip-Adapter on EmojiCLIP version 1\n\n"
        "Written by `python -m vlmcourse.evaluation.study`. Top-1 in %, mean ± standard deviation (ddof 0) over three "
        "seeds of draw and initialisation; all choices made on validation images. CoOp: "
        + ", ".join(f"{k} = {v}" for k, v in COOP.items()) + "; Tip-Adapter: "
        + ", ".join(f"{k} = {v}" for k, v in TIP.items()) + "; Tip-Adapter-F: the same, with alpha = 20 in training."
    ]  # fmt: skip
    for task, records in few_shot(folder, workers).items():
        parts.append(f"## {task}\n\n" + markdown(table(records)))
    parts.append("## Base to new, 16 shots, mean ± standard deviation over five splits of the classes")
    for task, records in base_to_new(folder, workers).items():
        lines = ["| method | base | new | H |", "| --- | --- | --- | --- |"]
        for name in dict.fromkeys(_label(r) for r in records):
            chosen = [r for r in records if _label(r) == name]
            lines.append(f"| {name} | " + " | ".join(_spread(chosen, m) for m in ("base", "new", "h")) + " |")
        parts.append(f"### {task}\n\n" + "\n".join(lines))
    return "\n\n".join(parts) + "\n"


def _label(record: Record) -> str:
    context = dict(record.hyper).get("n_ctx")
    return record.method if context is None else f"{record.method}, {context} tokens"


def _spread(records: list[Record], metric: str) -> str:
    from vlmcourse.evaluation.metrics import format_mean_std

    return format_mean_std([dict(r.metrics)[metric] for r in records])


def main(argv: list[str] | None = None) -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--runs", type=Path, default=Path("runs"), help="folder of the records")
    parser.add_argument("--out", type=Path, default=Path("docs/results.md"))
    parser.add_argument("--workers", type=int, default=2)
    arguments = parser.parse_args(argv)
    atomic_write(arguments.out, report(arguments.runs, arguments.workers).encode())
    print(f"wrote {arguments.out}")


if __name__ == "__main__":
    main()
