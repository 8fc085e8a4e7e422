"""Where things live: the data that ships, the cache, the notebooks.

Two layouts exist. In a source checkout `data/` and `notebooks/` lie beside the package; in an installed wheel the same
files lie inside it, as `_data` and `_notebooks`. Two environment variables override the defaults and are read at each
call: `VLMCOURSE_DATA` (the data folder) and `VLMCOURSE_CACHE` (computed features, results; safe to delete).
"""

import os
from pathlib import Path

PACKAGE = Path(__file__).resolve().parent


def root() -> Path | None:
    """The root of the source checkout, or None where the package is installed from a wheel."""
    return PACKAGE.parent if (PACKAGE.parent / "pyproject.toml").is_file() else None


def data_dir() -> Path:
    """The folder of the shipped data (artwork, captions, weights, small data sets)."""
    return _folder("VLMCOURSE_DATA", "data", PACKAGE / "_data")


def cache_dir() -> Path:
    """The folder for everything that can be computed again; it need not exist yet."""
    return _folder("VLMCOURSE_CACHE", None, Path.home() / ".cache" / "vlmcourse")


def notebooks_dir() -> Path:
    """The folder of the course's notebooks."""
    return _folder(None, "notebooks", PACKAGE / "_notebooks")


def _folder(variable: str | None, in_checkout: str | None, otherwise: Path) -> Path:
    if variable and os.environ.get(variable):
        return Path(os.environ[variable]).expanduser().resolve()
    if in_checkout and root():
        return root() / in_checkout
    return otherwise
