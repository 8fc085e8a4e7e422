"""The comparisons that close the parts of the course: for each a grid of jobs, whose records ship in data/records.

    python -m vlmcourse.evaluation.chapters text_prompts     measures what is not there yet

A chapter's notebook asks for the same jobs, finds these records, and builds its tables from them. Records know the
weights and data they were measured with: where those have changed, the notebook measures again.
"""

import argparse
from itertools import product
from pathlib import Path

from vlmcourse.evaluation.run import Job, grid, run_jobs
from vlmcourse.paths import data_dir

SEEDS = (1, 2, 3)
WORDS = {"ctx_init": "a picture of a"}  # one of the frames that EmojiCLIP was pretrained with

TASKS = ["novel_signs", "office"]  # concepts without a picture in pretraining, and known ones
THIS_TASK = "{task}"  # in hyper-parameters: the name of the job's task
SHIFTS = ["grey", "poster", "line_art", "blur", "noise", "clutter"]  # the robustness column

TEXT_PROMPTS = {
    "zero_shot": {},
    "coop": WORDS | {"epochs": 50},
    "cocoop": WORDS | {"epochs": 8, "batch_size": 8},
    "subpt": WORDS | {"epochs": 50},
    "lasp": WORDS | {"tune_norms": False},
    "vpt": WORDS | {"epochs": 12, "batch_size": 16, "samples": 2, "test_samples": 20},
    "kgcoop": WORDS | {"epochs": 50, "batch_size": 32},
    "softcpt": {"n_ctx": 4, "epochs": 50},
    "plot": {"n_prompts": 4, "n_ctx": 4, "epochs": 50, "batch_size": 32},
    "upl": WORDS | {"epochs": 50, "k": 4, "ensemble": 3},
    "tpt": WORDS | {"n_views": 32},
}
# Parts 4 and 5: one chapter, because their question is the same: prompt which tower?
VISUAL_PROMPTS = {
    "zero_shot": {},
    "coop": WORDS | {"epochs": 50},
    "vp": {"prompt_size": 24, "init_std": 0.0, "lr": 0.2, "batch_size": 8, "epochs": 2, "warmup_steps": 3},
    "visual_prompt_tuning": {"depth": None, "lr": 0.1, "epochs": 10},
    "reprompt": {"depth": None, "lr": 0.1, "epochs": 10},
    "upt": {"epochs": 10},
    "mvlpt": {"epochs": 10},
    "maple": WORDS | {"epochs": 10, "batch_size": 32},
    "cavpt": {"pretrain_epochs": 5, "epochs": 10, "warmup_epochs": 2},
}
TIP = {"augment_epochs": 0, "search_scale": (20.0, 50.0), "search_step": (50, 25), "search_zero": True}
ADAPTERS = {
    "zero_shot": {},
    "coop": WORDS | {"epochs": 50},
    "linear_probe": {},
    "clip_adapter": {"alpha": [0.2, 0.5, 0.8], "lr": 0.05, "epochs": 50},
    "tip_adapter": TIP,
    "tip_adapter_f": TIP | {"views": 1, "alpha": 20.0},
    "svl_adapter": {"unlabelled": THIS_TASK, "ssl_epochs": 15, "ssl_batch_size": 128, "ssl_lr": 0.3},
}
OTHER_METHODS = {  # MaskCLIP segments: it is compared in its own notebook
    "zero_shot": {},
    "coop": WORDS | {"epochs": 50},
    "wise_ft": {"tune": "blocks", "views": 3, "epochs": 6, "batch_size": 64, "lr": 3e-4, "warmup_steps": 4},
    "vt_clip": {"lr": 1e-3, "epochs": 20},
    "calip": {"search_zero": True},
    "calip_fs": {"search_zero": True},
    "taskres": {"alpha": 8.0, "epochs": 50},
    "cupl": {"with_templates": True},
    "vcd": {},
}


def _few_shot(methods: dict) -> list[Job]:
    return [job for axes in _axes(methods) for job in grid(**axes, shots=4, seed=list(SEEDS))]


def _base_to_new(methods: dict) -> list[Job]:
    """16 shots; the seed also draws the halves of the classes."""
    jobs = []
    for seed in SEEDS:
        for axes in _axes(methods):
            jobs += grid(**axes, shots=16, protocol="base_to_new", options={"split_seed": seed}, seed=seed)
    return jobs


def _under_shift(methods: dict) -> list[Job]:
    """16 shots, tested on the task and under SHIFTS."""
    options = {"options": {"domains": SHIFTS}, "protocol": "domain_generalisation"}
    return [job for axes in _axes(methods) for job in grid(**axes, shots=16, seed=list(SEEDS), **options)]


def _axes(methods: dict) -> list[dict]:
    """What the grids of all protocols share, a dictionary per task."""
    filled = {task: {} for task in TASKS}
    for task, (name, hyper) in product(TASKS, methods.items()):
        filled[task][name] = {key: task if value == THIS_TASK else value for key, value in hyper.items()}
    return [{"method": list(methods), "task": t, "hyper": h, "profile": "chapter"} for t, h in filled.items()]


def text_prompts() -> list[Job]:
    """Few-shot with 4 images per class, base-to-new with 16; three seeds: draw, start, halves of the classes."""
    return _few_shot(TEXT_PROMPTS) + _base_to_new(TEXT_PROMPTS)


def visual_prompts() -> list[Job]:
    """16 shots under shift, and base-to-new for all whose prompts can move to classes without images."""
    return _under_shift(VISUAL_PROMPTS) + _base_to_new({n: h for n, h in VISUAL_PROMPTS.items() if n != "reprompt"})


def adapters() -> list[Job]:
    """Few-shot with 4 images per class, and 16 shots under shift."""
    return _few_shot(ADAPTERS) + _under_shift(ADAPTERS)


def other_methods() -> list[Job]:
    """Few-shot with 4 images per class, and 16 shots under shift."""
    return _few_shot(OTHER_METHODS) + _under_shift(OTHER_METHODS)


CHAPTERS = {function.__name__: function for function in (text_prompts, visual_prompts, adapters, other_methods)}


def records_dir(chapter: str) -> Path:
    """Where the records of a chapter ship."""
    return data_dir() / "records" / chapter


def main(argv: list[str] | None = None) -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("chapter", choices=CHAPTERS)
    parser.add_argument("--workers", type=int, default=2)
    arguments = parser.parse_args(argv)
    jobs = CHAPTERS[arguments.chapter]()
    sweep = run_jobs(jobs, records_dir(arguments.chapter), arguments.workers, progress=True)
    print(f"{len(sweep.records)} of {len(set(jobs))} records in {records_dir(arguments.chapter)}")


if __name__ == "__main__":
    main()
