"""Files that are either whole or absent: atomic writes, checksums, locks between processes.

A reader never meets a half-written file: the bytes go into a hidden temporary file in the same folder, are flushed to
the disk, and only then take the final name (`os.replace` is atomic within one file system). Whoever is killed on the
way leaves at most a hidden file that nobody reads.
"""

import hashlib
import os
import secrets
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from vlmcourse.errors import DataError


def atomic_write(path: str | Path, content: bytes | Callable[[Path], object]) -> Path:
    """Write a file so that `path` holds either its old content or all of the new one.

    content: the bytes, or a function that writes to the path it is given (which ends like `path`, so that libraries
    that look at the suffix work). Folders are created. OSError (disk full, no permission) leaves `path` as it was.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f".{path.stem}.{os.getpid()}-{secrets.token_hex(4)}.part{path.suffix}")
    try:
        if callable(content):
            content(part)
        else:
            part.write_bytes(content)
        with open(part, "rb+") as file:
            os.fsync(file.fileno())
        os.replace(part, path)
    finally:
        part.unlink(missing_ok=True)
    return path


def remove_leftovers(path: str | Path) -> None:
    """Delete what killed writers of `path` left behind. Call it only while holding `lock(path)`."""
    path = Path(path)
    if path.parent.is_dir():
        for part in path.parent.iterdir():
            if part.name.startswith(f".{path.stem}.") and part.name.endswith(f".part{path.suffix}"):
                part.unlink(missing_ok=True)


def sha256(path: str | Path) -> str:
    """The SHA-256 checksum of a file, 64 hexadecimal digits."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def verify(path: str | Path, expected: str) -> Path:
    """Return `path` if its SHA-256 checksum is `expected`; raise DataError if it is missing or differs."""
    path = Path(path)
    if not path.is_file():
        raise DataError(
            f"{path} is missing. It ships with the course: restore it (git checkout, or reinstall the package), "
            "or set VLMCOURSE_DATA to the folder that holds it."
        )
    found = sha256(path)
    if found != expected:
        raise DataError(
            f"{path} is damaged: its SHA-256 checksum is {found[:12]}…, expected {expected[:12]}…. "
            "Restore it (git checkout, or reinstall the package)."
        )
    return path


@contextmanager
def lock(path: str | Path, timeout: float = -1) -> Iterator[None]:
    """Hold the lock that belongs to `path`: one process at a time, freed by the system if its holder dies.

    timeout: seconds to wait (-1: for ever); filelock.Timeout (a TimeoutError) after that. OSError if the folder cannot
    be written to.
    """
    import filelock

    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    with filelock.FileLock(path.with_name(path.name + ".lock"), timeout=timeout):
        yield
