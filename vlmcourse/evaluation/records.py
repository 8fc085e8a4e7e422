"""A job is what to measure, a record what came out: one small JSON file per job, named by the job's content hash.

    runs/3f1c9a0be2d74c55.json

Equal jobs have equal hashes in every process, so whether a job was done is whether its file is there and whole. Files
are written atomically: two processes with the same job write the same file, and the later one wins.
"""

import hashlib
import json
import warnings
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

from vlmcourse.errors import DataError
from vlmcourse.files import atomic_write


@dataclass(frozen=True)
class Job:
    """One measurement: a method on a task under a protocol.

    hyper: hyper-parameters of the method (a dict is stored as sorted pairs), options: further arguments of the protocol
    (`split_seed`, `targets`). Values must be numbers, strings, booleans, None, or lists of these. draw_seed chooses the
    shots, init_seed initialises the method. Raises ValueError for anything that a JSON file could not hold unchanged.
    """

    method: str
    task: str
    protocol: str = "few_shot"
    shots: int = 16
    draw_seed: int = 1
    init_seed: int = 1
    backbone: str = "emojiclip"
    pretrained: str | None = None
    dtype: str = "float32"
    profile: str = "full"
    hyper: Any = ()
    options: Any = ()

    def __post_init__(self):
        for name in ("method", "task", "protocol", "backbone", "dtype", "profile"):
            if not isinstance(getattr(self, name), str) or not getattr(self, name):
                raise ValueError(f"{name} must be a non-empty string, got {getattr(self, name)!r}")
        for name, least in (("shots", 1), ("draw_seed", 0), ("init_seed", 0)):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int) or value < least:
                raise ValueError(f"{name} must be an integer >= {least}, got {value!r}")
        if not isinstance(self.pretrained, str | None):
            raise ValueError(f"pretrained must be a string or None, got {self.pretrained!r}")
        for name in ("hyper", "options"):
            object.__setattr__(self, name, _pairs(name, getattr(self, name)))

    @property
    def job(self) -> "Job":
        return Job(**{f.name: getattr(self, f.name) for f in fields(Job)})

    @property
    def hash(self) -> str:
        """16 hexadecimal digits of the SHA-256 of the job's fields (not of a record's results)."""
        text = json.dumps(asdict(self.job), sort_keys=True, ensure_ascii=True, allow_nan=False)
        return hashlib.sha256(text.encode()).hexdigest()[:16]


@dataclass(frozen=True)
class Record(Job):
    """A job with its results. metrics: fractions of 1. seconds: whole job, fit_seconds: training only.

    fingerprints: of the backbone and of the tasks that were used, by name; a record whose fingerprints are no longer
    those of the shipped data is out of date. versions: of the software, and the device.
    """

    metrics: dict[str, float] = field(default_factory=dict, hash=False)
    seconds: float = 0.0
    fit_seconds: float = 0.0
    n_learned: int = 0
    fingerprints: dict[str, str] = field(default_factory=dict, hash=False)
    versions: dict[str, str] = field(default_factory=dict, hash=False)

    def get(self, name: str) -> Any:
        """A field, hyper-parameter, protocol option or metric by name; None for one that this record does not have."""
        if name in {f.name for f in fields(self)}:
            return getattr(self, name)
        return {**self.metrics, **dict(self.options), **dict(self.hyper)}.get(name)


def record_path(job: Job, folder: str | Path) -> Path:
    return Path(folder) / f"{job.hash}.json"


def write_record(record: Record, folder: str | Path) -> Path:
    """Write the record to <folder>/<hash>.json, atomically."""
    content = asdict(record) | {"hyper": dict(record.hyper), "options": dict(record.options)}
    return atomic_write(record_path(record, folder), (json.dumps(content, indent=1, allow_nan=False) + "\n").encode())


def read_record(path: str | Path) -> Record:
    """The record in one file. DataError if the file is not a whole record or its name is not its job's hash."""
    path = Path(path)
    try:
        record = Record(**json.loads(path.read_bytes()))
        complete = bool(record.metrics) and all(isinstance(v, int | float) for v in record.metrics.values())
    except (ValueError, TypeError, AttributeError) as error:
        raise DataError(f"{path} is not a whole record ({error}); delete it and run its job again") from error
    if not complete or path.stem != record.hash:
        raise DataError(f"{path} does not fit its name or has no metrics; delete it and run its job again")
    return record


def find_record(job: Job, folder: str | Path) -> Record | None:
    """The record of this job, or None. A damaged file is moved aside (to <hash>.json.damaged) with a warning."""
    path = record_path(job, folder)
    try:
        return read_record(path)
    except FileNotFoundError:
        return None
    except DataError as error:
        aside = path.with_name(path.name + ".damaged")
        try:
            path.replace(aside)
        except FileNotFoundError:  # another process was faster
            return None
        warnings.warn(f"{error}. It was moved to {aside}.", stacklevel=2)
        return None


def load_records(folder: str | Path) -> list[Record]:
    """All records in a folder, ordered by file name; damaged files are left out and named in one warning."""
    records, damaged = [], []
    for path in sorted(Path(folder).glob("*.json")):
        if path.name.startswith("."):
            continue
        try:
            records.append(read_record(path))
        except (DataError, OSError) as error:
            damaged.append(str(error))
    if damaged:
        warnings.warn(
            f"{len(damaged)} of {len(damaged) + len(records)} records left out:\n" + "\n".join(damaged), stacklevel=2
        )
    return records


def _pairs(argument: str, values: Any) -> tuple[tuple[str, Any], ...]:
    """A mapping, or pairs, as pairs sorted by name, lists as tuples: equal settings are equal and hashable."""
    pairs = values.items() if isinstance(values, Mapping) else values
    try:
        settings = {name: _frozen(value) for name, value in pairs}
    except (TypeError, ValueError) as error:
        raise ValueError(
            f"{argument} must be a dict of numbers, strings, booleans, None or lists of these: {error}"
        ) from error
    if not all(isinstance(name, str) for name in settings):
        raise ValueError(f"{argument} must have names as keys, got {list(settings)}")
    return tuple(sorted(settings.items()))


def _frozen(value: Any) -> Any:
    if isinstance(value, list | tuple):
        return tuple(_frozen(v) for v in value)
    if value is None or isinstance(value, bool | int | str):
        return value
    if isinstance(value, float) and value - value == 0:  # finite
        return value
    raise TypeError(f"{value!r} ({type(value).__name__}) is not allowed")
