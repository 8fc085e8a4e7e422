"""From jobs to records: one function runs one job, everything else only decides where.

    jobs = grid(method=["zero_shot", "coop"], task="digits", shots=[1, 4], seed=[1, 2, 3], hyper={"coop": {"n_ctx": 4}})
    records, failures = run_jobs(jobs, "runs", workers=2)

`run_one(job, folder)` needs nothing but its arguments and is safe to run anywhere, twice, or again after a crash: a job
whose record is there, whole and up to date is not run again. So resuming a sweep is running it again, and another
engine needs only a map over jobs, such as Ray's `ray.remote(run_one).remote(job, folder)` or submitit's
`executor.submit(run_one, job, folder)`. `run_jobs` uses processes of its own (see workers.py). In a script, but not in
a notebook, a call with several workers must stand under `if __name__ == "__main__":`.
"""

import platform
import time
import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import lru_cache, partial
from importlib.metadata import version
from itertools import product
from pathlib import Path
from typing import Any, NamedTuple

import torch

from vlmcourse import __version__
from vlmcourse.evaluation.protocols import PROTOCOLS
from vlmcourse.evaluation.records import Job, Record, find_record, write_record
from vlmcourse.evaluation.workers import run_calls
from vlmcourse.tasks import get_task

__all__ = ["Job", "Record", "Sweep", "grid", "run_jobs", "run_one"]


def run_one(
    job: Job, folder: str | Path = "runs", *, backbone=None, device: str = "cpu", fresh: bool = False
) -> Record:
    """The record of a job: read from `folder` if it is there and up to date, else measured and written.

    backbone: a loaded Backbone with the job's name and dtype, else it is loaded (once per process) on `device`. fresh:
    measure even if there is a record. Raises ValueError for an unknown protocol, method or task, and whatever the
    method raises.
    """
    from vlmcourse.methods import get_method

    protocol = _protocol(job)
    method_class, task = get_method(job.method), get_task(job.task)
    if backbone is None:
        backbone = _backbone(job.backbone, job.pretrained, job.dtype, device)
    elif (backbone.name, str(backbone.dtype)) != (job.backbone, f"torch.{job.dtype}"):
        raise ValueError(
            f"backbone is {backbone.name!r} in {backbone.dtype}, the job wants {job.backbone!r} in {job.dtype}"
        )
    tasks = {name: get_task(name).fingerprint for name in dict(job.options).get("targets", ())}
    fingerprints = {"backbone": backbone.fingerprint, job.task: task.fingerprint, **tasks}
    found = None if fresh else find_record(job, folder)
    if found is not None and found.fingerprints == fingerprints:
        return found
    if found is not None:
        warnings.warn(f"the record of {job} belongs to other weights or data and is measured again", stacklevel=2)

    fitted: dict[str, Any] = {"seconds": 0.0, "n_learned": 0}

    def fit(train, val):
        start = time.perf_counter()
        method = method_class(backbone, seed=job.init_seed, **dict(job.hyper)).fit(train, val)
        fitted.update(seconds=time.perf_counter() - start, n_learned=method.n_learned)
        return method

    start = time.perf_counter()
    metrics = protocol(fit, task, job.shots, job.draw_seed, **dict(job.options))
    record = Record(
        **vars(job.job),
        metrics=metrics,
        seconds=round(time.perf_counter() - start, 3),
        fit_seconds=round(fitted["seconds"], 3),
        n_learned=int(fitted["n_learned"]),
        fingerprints=fingerprints,
        versions=_versions(backbone.device),
    )
    write_record(record, folder)
    return record


def grid(*, hyper: Mapping[str, Any] | None = None, seed: Any = None, **fields: Any) -> list[Job]:
    """All combinations: every field of Job is one value or a list of values (a tuple, list or range).

    seed: sets draw_seed and init_seed together, as the papers do. hyper: {method: dict, or list of dicts}; the method
    runs once for each. Raises ValueError for unknown fields, an empty list, and hyper-parameters of methods that are
    not in the grid.
    """
    if seed is not None and {"draw_seed", "init_seed"} & fields.keys():
        raise ValueError("seed sets draw_seed and init_seed: give either seed or these")
    unknown = fields.keys() - Job.__dataclass_fields__.keys()
    if unknown or not {"method", "task"} <= fields.keys():
        raise ValueError(
            f"grid needs method and task; fields are {', '.join(Job.__dataclass_fields__)}; unknown: {sorted(unknown)}"
        )
    axes = {name: _listed(name, value) for name, value in fields.items()}
    stray = (hyper or {}).keys() - set(axes["method"])
    if stray:
        raise ValueError(f"hyper is for the methods of the grid {axes['method']}, got {sorted(stray)}")
    jobs = []
    for values in product(*axes.values(), *([_listed("seed", seed)] if seed is not None else [])):
        setting = dict(zip(axes, values))
        if seed is not None:
            setting |= {"draw_seed": values[-1], "init_seed": values[-1]}
        for chosen in _listed("hyper", (hyper or {}).get(setting["method"], {})):
            jobs.append(Job(**setting, hyper=chosen))
    return jobs


class Sweep(NamedTuple):
    """records: in the order of the jobs, without failed ones. failures: {job: traceback or how its process ended}."""

    records: list[Record]
    failures: dict[Job, str]


def run_jobs(
    jobs: Iterable[Job],
    folder: str | Path = "runs",
    workers: int = 1,
    *,
    progress: bool = False,
    device: str = "cpu",
    fresh: bool = False,
    backbone=None,
    run: Callable[..., Record] = run_one,
) -> Sweep:
    """Run all jobs (equal ones once), going on when one fails; a warning says how many failed and why the first did.

    workers: 1 runs here, more in that many processes, which know the methods and tasks of the package but not those
    defined in a notebook. progress: a bar on stderr. backbone: a loaded one for all jobs, only with one worker. run:
    what runs a job, called as run(job, folder=…, device=…, fresh=…). An interrupt ends all processes; the records that
    are written stay. Raises ValueError before the first job if a protocol, method or task is unknown.
    """
    from tqdm.auto import tqdm

    jobs = list(dict.fromkeys(jobs))
    if isinstance(workers, bool) or not isinstance(workers, int) or workers < 1:
        raise ValueError(f"workers must be an integer >= 1, got {workers!r}")
    if backbone is not None and workers > 1:
        raise ValueError("backbone can be given with workers=1 only: other processes load their own")
    if run is run_one:
        _check_names(jobs)
    if backbone is not None:
        run = partial(run, backbone=backbone)
    call = partial(run, folder=Path(folder), device=device, fresh=fresh)
    results = run_calls(call, jobs, workers)
    records: dict[Job, Record] = {}
    failures: dict[Job, str] = {}
    for job, record, problem in tqdm(results, total=len(jobs), disable=not progress, desc="jobs", unit="job"):
        if problem is None:
            records[job] = record
        else:
            failures[job] = problem
    if failures:
        job, problem = next(iter(failures.items()))
        warnings.warn(f"{len(failures)} of {len(jobs)} jobs failed; the first is {job}:\n{problem}", stacklevel=2)
    return Sweep([records[job] for job in jobs if job in records], failures)


def _check_names(jobs: Sequence[Job]) -> None:
    from vlmcourse.methods import get_method

    for name in dict.fromkeys(job.method for job in jobs):
        get_method(name)
    for name in dict.fromkeys(name for job in jobs for name in (job.task, *dict(job.options).get("targets", ()))):
        get_task(name)
    for job in jobs:
        _protocol(job)


def _protocol(job: Job) -> Callable:
    if job.protocol not in PROTOCOLS:
        raise ValueError(f"protocol must be one of {', '.join(PROTOCOLS)}, got {job.protocol!r}")
    return PROTOCOLS[job.protocol]


@lru_cache(maxsize=2)
def _backbone(name: str, pretrained: str | None, dtype: str, device: str):
    from vlmcourse.backbone import load_backbone

    return load_backbone(name, pretrained=pretrained, device=device, dtype=getattr(torch, dtype))


def _versions(device: torch.device) -> dict[str, str]:
    packages = {name: version(name) for name in ("torch", "open_clip_torch")}
    return {"vlmcourse": __version__, "python": platform.python_version(), **packages, "device": str(device)}


def _listed(name: str, value: Any) -> list:
    values = list(value) if isinstance(value, list | tuple | range) else [value]
    if not values:
        raise ValueError(f"{name} must not be an empty list")
    return values
