"""One worker process: start `execute.py` on a notebook, wait for it, take its result over, end it with its kernel.

A worker writes only into its scratch folder. `collect` moves the files to their place and writes the record last: a
record therefore vouches for files that are complete.
"""

import contextlib
import hashlib
import json
import os
import subprocess
import sys
import time
from pathlib import Path

from vlmcourse import files

COMMAND = (sys.executable, "-m", "vlmcourse.course.execute")


class Worker:
    """A running process that executes one notebook. `command` gets the scratch folder as its last argument."""

    def __init__(self, job, scratch, *, html, environment, command=COMMAND):
        self.job, self.start = job, time.perf_counter()
        self.folder = Path(scratch) / hashlib.sha256(job.notebook.name.encode()).hexdigest()[:16]
        self.folder.mkdir(parents=True)
        task = {"source": str(job.notebook.path), "parameters": job.parameters, "html": html}
        (self.folder / "job.json").write_text(json.dumps(task), encoding="utf-8")
        with open(self.folder / "log.txt", "wb") as log:
            self.process = subprocess.Popen(
                [*command, str(self.folder)],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                env=environment,
                start_new_session=True,  # Ctrl-C reaches only the parent, which then ends its workers
            )

    @property
    def seconds(self):
        """Seconds since the start."""
        return time.perf_counter() - self.start

    def is_over(self, timeout):
        """Whether the process has ended or used up its `timeout` seconds (None: no limit)."""
        return self.process.poll() is not None or (timeout is not None and self.seconds > timeout)

    def collect(self, out, timeout=None):
        """Put the files in place below `out` and the outcome into the job; a process that still runs has timed out."""
        job, result = self.job, self._result(timeout)
        job.status, job.seconds, job.error = result["status"], result["seconds"], result["error"]
        record, target = record_file(out, job.notebook.name), Path(out) / job.notebook.name
        record.unlink(missing_ok=True)
        target.parent.mkdir(parents=True, exist_ok=True)
        for made, ending in (("notebook.ipynb", ".ipynb"), ("page.html", ".html")):
            Path(f"{target}{ending}").unlink(missing_ok=True)
            if (self.folder / made).is_file():
                os.replace(self.folder / made, f"{target}{ending}")
        files.atomic_write(record, json.dumps(job.record(), indent=1).encode())

    def _result(self, timeout):
        if self.process.poll() is None:
            self.kill()
            return self._failure("TimeoutError", f"not finished after {timeout:g} s; --timeout allows more")
        try:
            return json.loads((self.folder / "result.json").read_text(encoding="utf-8"))
        except (OSError, ValueError):
            log = (self.folder / "log.txt").read_text(encoding="utf-8", errors="replace").strip()
            message = f"the worker ended with code {self.process.returncode} before the notebook was finished"
            return self._failure("RuntimeError", message, log[-2000:])

    def _failure(self, name, message, traceback=""):
        error = {"cell": None, "name": name, "message": message, "traceback": traceback}
        return {"status": "failed", "seconds": round(self.seconds, 1), "error": error}

    def kill(self):
        """End the process and its kernel (which has a session of its own, so a signal to the group would miss it)."""
        import psutil

        with contextlib.suppress(psutil.NoSuchProcess):
            process = psutil.Process(self.process.pid)
            for member in [*process.children(recursive=True), process]:
                with contextlib.suppress(psutil.NoSuchProcess):
                    member.kill()
        self.process.wait()


def record_file(out, name):
    """Where the record of the notebook called `name` lies."""
    return Path(out) / ".records" / f"{name}.json"


def environment_for(workers):
    """Environment of `workers` processes: cores shared between them, this Python's kernel, figures in the notebook."""
    environment = {
        "OMP_NUM_THREADS": str(max(1, (os.cpu_count() or 1) // workers)),
        # waiting threads must not take the core from another worker; alone, they had better wait actively
        **({"OMP_WAIT_POLICY": "PASSIVE"} if workers > 1 else {}),
        "MALLOC_MMAP_THRESHOLD_": "1073741824",  # glibc: keep large buffers instead of giving them back and faulting
        "MALLOC_TRIM_THRESHOLD_": "2147483648",  # them in again at every step, which can take half of the time
        **os.environ,
        "JUPYTER_PREFER_ENV_PATH": "1",  # a kernel of the same name in the user's home is another Python
    }
    environment.pop("MPLBACKEND", None)  # a backend chosen for scripts would leave the notebooks without figures
    return environment
