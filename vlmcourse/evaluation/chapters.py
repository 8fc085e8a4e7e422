"""The comparisons that close the parts of the course: for each a grid of jobs, whose records ship in data/records.

    python -m vlmcourse.evaluation.chapters text_prompts     measures what is not there yet

A chapter's notebook asks for the same jobs, finds these records, and builds its tables from them. Records know the
weights and data they were measured with: where those have changed, the notebook measures again.
"""

import argparse
from pathlib import Path

from vlmcourse.evaluation.run import Job, grid, run_jobs
from vlmcourse.paths import data_dir

SEEDS = (1, 2, 3)
WORDS = {"ctx_init": "a picture of a"}  # one of the frames that EmojiCLIP was pretrained with

TEXT_PROMPT_TASKS = ["novel_signs", "office"]  # concepts without a picture in pretraining, and known ones
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


def text_prompts() -> list[Job]:
    """Few-shot with 4 images per class, base-to-new with 16; three seeds: draw, start, halves of the classes."""
    axes = {"method": list(TEXT_PROMPTS), "task": TEXT_PROMPT_TASKS, "hyper": TEXT_PROMPTS, "profile": "chapter"}
    jobs = grid(shots=4, seed=list(SEEDS), **axes)
    for seed in SEEDS:
        jobs += grid(shots=16, seed=seed, protocol="base_to_new", options={"split_seed": seed}, **axes)
    return jobs


CHAPTERS = {"text_prompts": text_prompts}


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
