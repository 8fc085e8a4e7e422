"""data/checksums.json: {relative path: SHA-256} of every shipped data file, so that damage is found and named.

`vlmcourse data checksums` compares, `vlmcourse data checksums --write` records. Texts for people (*.md) are left out.
"""

import json
from pathlib import Path

from vlmcourse import files, paths
from vlmcourse.errors import DataError

NAME = "checksums.json"


def shipped_files(folder):
    """Relative paths (text) of all files that are recorded, sorted; hidden ones and locks are left out."""
    folder = Path(folder)
    names = (p.relative_to(folder) for p in folder.rglob("*") if p.is_file() and p.suffix not in (".md", ".lock"))
    return sorted(
        n.as_posix() for n in names if n.as_posix() != NAME and not any(part.startswith(".") for part in n.parts)
    )


def write(folder=None):
    """Record the files below `folder` (default: the data folder); returns {relative path: checksum}."""
    folder = Path(folder or paths.data_dir())
    sums = {name: files.sha256(folder / name) for name in shipped_files(folder)}
    files.atomic_write(folder / NAME, (json.dumps(sums, indent=1) + "\n").encode())
    return sums


def read(folder=None):
    """The recorded {relative path: checksum}. DataError when the record is missing or damaged."""
    path = Path(folder or paths.data_dir()) / NAME
    try:
        sums = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise DataError(
            f"{path} cannot be read ({error}). Restore it (git checkout, or reinstall the package)."
        ) from error
    if not isinstance(sums, dict) or not all(isinstance(value, str) for value in sums.values()):
        raise DataError(f"{path} is damaged. Restore it (git checkout, or reinstall the package).")
    return sums


def compare(folder=None):
    """{"missing": [...], "damaged": [...], "unrecorded": [...]}: relative paths that differ from the record."""
    folder = Path(folder or paths.data_dir())
    sums = read(folder)
    missing = [name for name in sums if not (folder / name).is_file()]
    damaged = [name for name, sha in sums.items() if name not in missing and files.sha256(folder / name) != sha]
    return {"missing": missing, "damaged": damaged, "unrecorded": sorted(set(shipped_files(folder)) - set(sums))}
