"""Run many notebooks in parallel: one subprocess each, results put in place atomically, resumable.

What a run leaves in `out`:
    <part>/<name>.ipynb, .html    the executed notebook and its page    summary.json  this run: passed, failed, seconds
    .records/<part>/<name>.json   what was run and how it went          index.html    everything in `out`, by part
A notebook is not run again while its record says "passed" for the same source, parameters, package, data and library
versions.
"""

import contextlib
import dataclasses
import hashlib
import importlib.metadata
import json
import shutil
import signal
import sys
import time
from pathlib import Path

import vlmcourse
from vlmcourse import paths
from vlmcourse.course import pages
from vlmcourse.course.notebooks import Notebook
from vlmcourse.course.worker import COMMAND, Worker, environment_for, record_file


@dataclasses.dataclass
class Job:
    """One notebook with its parameters, and how it went: status "waiting", "passed", "kept", "failed", "not run"."""

    notebook: Notebook
    parameters: dict
    fingerprint: str = ""
    status: str = "waiting"
    seconds: float = 0.0
    error: dict | None = None

    def record(self):
        """The JSON form that is kept beside the results."""
        return {"name": self.notebook.name} | {f.name: getattr(self, f.name) for f in dataclasses.fields(self)[1:]}


def run(jobs, out, *, workers=2, fresh=False, timeout=None, html=True, echo=print, command=COMMAND):
    """Run `jobs` (a list of Job), at most `workers` at a time, each at most `timeout` seconds; returns them, completed.

    Ctrl-C or SIGTERM ends what is running, keeps what is finished, writes the summary and raises KeyboardInterrupt.
    ValueError for workers < 1; BlockingIOError if another run is writing to `out`.
    """
    if workers < 1:
        raise ValueError(f"workers={workers} must be at least 1")
    out, start = Path(out), time.perf_counter()
    out.mkdir(parents=True, exist_ok=True)
    with _locked(out), _terminate_as_interrupt():
        scratch = out / ".running"
        shutil.rmtree(scratch, ignore_errors=True)
        _keep_finished(jobs, out, fresh, html, echo)
        waiting, running = [job for job in jobs if job.status == "waiting"], []
        workers = max(1, min(workers, len(waiting)))
        environment = environment_for(workers)
        try:
            while waiting or running:
                while waiting and len(running) < workers:
                    job = waiting.pop(0)
                    running.append(Worker(job, scratch, html=html, environment=environment, command=command))
                    echo(f"{'':10}{'started':9}{job.notebook.name}")
                for worker in [w for w in running if w.is_over(timeout)]:
                    worker.collect(out, timeout)
                    running.remove(worker)
                    _tell(echo, jobs, worker.job)
                time.sleep(0.05)
        finally:
            for worker in running:
                worker.kill()
            for job in jobs:
                job.status = "not run" if job.status == "waiting" else job.status
            shutil.rmtree(scratch, ignore_errors=True)
            pages.write_summary(out, jobs, time.perf_counter() - start)
            if html:
                pages.write_index(out)
    return jobs


def _keep_finished(jobs, out, fresh, html, echo):
    """Give every job its fingerprint, and the status "kept" to those whose results are there already."""
    common = environment_fingerprint()
    for job in jobs:
        job.status, job.fingerprint = "waiting", fingerprint(job, common)
        seconds = None if fresh else _seconds_of_finished(job, out, html)
        if seconds is not None:
            job.status, job.seconds = "kept", seconds
            _tell(echo, jobs, job)


def _seconds_of_finished(job, out, html):
    try:
        record = json.loads(record_file(out, job.notebook.name).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    made = all(
        Path(f"{out / job.notebook.name}{ending}").is_file() for ending in ([".ipynb", ".html"] if html else [".ipynb"])
    )
    same = record.get("status") == "passed" and record.get("fingerprint") == job.fingerprint
    return record["seconds"] if made and same else None


def environment_fingerprint():
    """16 hex digits for everything but the notebook: the package's code, the shipped data, Python, libraries."""
    digest = hashlib.sha256(sys.version.encode())
    root = Path(vlmcourse.__file__).parent
    for file in sorted(root.rglob("*.py")):
        digest.update(file.relative_to(root).as_posix().encode() + b"\0" + file.read_bytes())
    checksums = paths.data_dir() / "checksums.json"
    digest.update(checksums.read_bytes() if checksums.is_file() else b"")
    for package in ("numpy", "open_clip_torch", "torch", "torchvision"):
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            digest.update(f"{package}={importlib.metadata.version(package)};".encode())
    return digest.hexdigest()[:16]


def fingerprint(job, common):
    """16 hex digits for one job: `common`, the notebook's cells (not their outputs) and its parameters."""
    cells = [
        (cell["cell_type"], "".join(cell["source"]), cell.get("metadata", {}).get("tags", []))
        for cell in job.notebook.read()["cells"]
    ]
    text = json.dumps([common, str(job.notebook.path), cells, job.parameters], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def _tell(echo, jobs, job):
    over = sum(j.status != "waiting" for j in jobs)
    count = f"[{over:{len(str(len(jobs)))}}/{len(jobs)}]"
    note = "unchanged since it passed" if job.status == "kept" else f"{job.seconds:.1f} s"
    echo(f"{count:10}{job.status:9}{job.notebook.name}  ({note})")


@contextlib.contextmanager
def _locked(out):
    import filelock

    try:
        with filelock.FileLock(out / ".lock", timeout=0):
            yield
    except filelock.Timeout:
        raise BlockingIOError(
            f"another run is writing to {out}; wait for it or choose another folder with --out"
        ) from None


@contextlib.contextmanager
def _terminate_as_interrupt():
    def interrupt(*_):
        raise KeyboardInterrupt

    try:
        previous = signal.signal(signal.SIGTERM, interrupt)
    except ValueError:  # not in the main thread: the caller looks after signals
        yield
        return
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, previous)
