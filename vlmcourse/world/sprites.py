"""The artwork: one 64 x 64 RGBA sprite per icon or emoji, from many openly licensed sources.

    data/sprites/index.csv      one line per sprite: sprite,source,cell,concept,icon_name,mono,cluster,cut
    data/sprites/sources.json   licence, author and address of each source
    data/sprites/<source>.webp  cells of 64 x 64 pixels, 32 per row (share-alike/<source>.webp for share-alike licences)
Colour sources are RGBA. Monochrome sources are grey images of coverage, which become alpha with black ink.
Atlases are decoded when a sprite of theirs is first asked for, and kept in memory.
"""

import csv
import difflib
import json
from collections.abc import Iterable, Sequence
from functools import cache
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from vlmcourse.errors import DataError
from vlmcourse.paths import data_dir

CELL = 64  # pixels
PER_ROW = 32
COLUMNS = ("sprite", "source", "cell", "concept", "icon_name", "mono", "cluster", "cut")
CUTS = ("train", "held_out", "style", "novel")
REMEDY = (
    "Run `vlmcourse doctor`, then restore the file from git (`git checkout -- data/sprites`) or rebuild it with "
    "`vlmcourse data build`."
)


class SpriteLibrary:
    """Sprites by number. Arrays (N,): source, cell, concept, icon_name, mono (bool), cluster, cut; `sources`: records.

    DataError when the index or the list of sources is missing or damaged.
    """

    def __init__(self, folder: Path):
        self.folder = Path(folder)
        self.sources: dict[str, dict] = self._read("sources.json", json.loads)
        rows = self._read("index.csv", lambda text: list(csv.DictReader(text.splitlines())))
        index = self.folder / "index.csv"
        if not rows or any(column not in rows[0] for column in COLUMNS):
            raise DataError(f"{index} must have the columns {', '.join(COLUMNS)} and at least one line. {REMEDY}")
        try:
            number = np.array([int(row["sprite"]) for row in rows])
            self.cell, self.concept, self.cluster = (
                np.array([int(row[name]) for row in rows]) for name in ("cell", "concept", "cluster")
            )
            self.mono = np.array([bool(int(row["mono"])) for row in rows])
        except (TypeError, ValueError) as error:
            raise DataError(f"{index} has a line that is cut off or not a number ({error}). {REMEDY}") from error
        self.source, self.icon_name, self.cut = (
            np.array([row[name] or "" for row in rows]) for name in ("source", "icon_name", "cut")
        )
        if not np.array_equal(number, np.arange(len(rows))) or self.cell.min() < 0:
            raise DataError(f"{index} must number sprites 0, 1, 2 ... without gaps, and cells from 0. {REMEDY}")
        for name, found, known in (("sources", self.source, self.sources), ("cuts", self.cut, CUTS)):
            unknown = sorted(set(found.tolist()) - set(known))
            if unknown:
                raise DataError(f"{index} names unknown {name}: {', '.join(map(repr, unknown[:5]))}. {REMEDY}")
        self._atlases: dict[str, np.ndarray] = {}

    def __len__(self) -> int:
        return len(self.cell)

    def __getstate__(self) -> dict:
        return self.__dict__ | {"_atlases": {}}  # workers decode for themselves

    def select(
        self,
        cut: str | Iterable[str] | None = None,
        concept: int | Iterable[int] | None = None,
        source: str | Iterable[str] | None = None,
        mono: bool | None = None,
    ) -> np.ndarray:
        """Numbers (n,) int64, ascending, of the sprites that meet every condition given; each is one value or several.

        ValueError for a cut or source that does not exist; a concept without sprites gives an empty array.
        """
        chosen = np.ones(len(self), dtype=bool)
        for name, wanted, column, known in (
            ("cut", cut, self.cut, CUTS),
            ("source", source, self.source, self.sources),
        ):
            if wanted is None:
                continue
            wanted = [wanted] if isinstance(wanted, str) else list(wanted)
            for value in wanted:
                if value not in known:
                    near = difflib.get_close_matches(str(value), list(known)) or list(known)
                    raise ValueError(f"{name} {value!r} does not exist; close matches: {', '.join(near)}")
            chosen &= np.isin(column, wanted)
        if concept is not None:
            chosen &= np.isin(
                self.concept, np.atleast_1d(np.asarray(concept if np.isscalar(concept) else list(concept)))
            )
        if mono is not None:
            chosen &= self.mono == mono
        return np.flatnonzero(chosen)

    def rgba(self, ids: int | Sequence[int] | np.ndarray | torch.Tensor) -> torch.Tensor:
        """Sprites (..., 64, 64, 4) uint8, straight alpha, for ids (...); -1 gives an empty sprite (an absent object).

        Monochrome sprites come as black ink with alpha. ValueError for numbers that do not exist, DataError for damaged
        files.
        """
        ids = np.asarray(ids)
        if ids.size and ids.dtype.kind not in "iu":
            raise ValueError(f"ids must be integers, got {ids.dtype}")
        if ids.size and not (-1 <= ids.min() and ids.max() < len(self)):
            raise ValueError(f"ids must be in -1..{len(self) - 1}, got {ids.min()}..{ids.max()}")
        flat = ids.reshape(-1).astype(np.int64)
        out = np.zeros((len(flat), CELL, CELL, 4), dtype=np.uint8)
        for source in np.unique(self.source[flat[flat >= 0]]):
            rows = np.flatnonzero((flat >= 0) & (self.source[flat] == source))
            cells = self._atlas(str(source))[self.cell[flat[rows]]]
            if cells.ndim == 4:
                out[rows] = cells
            else:
                out[rows, :, :, 3] = cells
        return torch.from_numpy(out).unflatten(0, ids.shape) if ids.ndim else torch.from_numpy(out[0])

    def path(self, source: str) -> Path:
        """The atlas file of a source."""
        return self.folder / ("share-alike" if self.sources[source].get("share_alike") else "") / f"{source}.webp"

    def _read(self, name: str, parse):
        path = self.folder / name
        try:
            return parse(path.read_text(encoding="utf-8"))
        except OSError as error:
            raise DataError(f"{path} cannot be read ({error.strerror}). {REMEDY}") from error
        except (ValueError, csv.Error) as error:
            raise DataError(f"{path} is damaged ({error}). {REMEDY}") from error

    def _atlas(self, source: str) -> np.ndarray:
        """Cells (cells, 64, 64, 4) of a source, or coverage (cells, 64, 64) if monochrome; decoded once per process."""
        if source in self._atlases:
            return self._atlases[source]
        path, mono = self.path(source), bool(self.sources[source].get("mono"))
        try:
            with Image.open(path) as image:
                pixels = np.asarray(image.convert("L" if mono else "RGBA"))
        except FileNotFoundError as error:
            raise DataError(f"{path} is missing. {REMEDY}") from error
        except (OSError, ValueError, SyntaxError, EOFError, Image.DecompressionBombError) as error:
            raise DataError(f"{path} is damaged or cut off ({error}). {REMEDY}") from error
        height, width = pixels.shape[:2]
        rows, last = height // CELL, int(self.cell[self.source == source].max())
        if width != PER_ROW * CELL or height % CELL or last >= rows * PER_ROW:
            raise DataError(
                f"{path} is {width} x {height} pixels, which does not hold cell {last} of index.csv. {REMEDY}"
            )
        cells = pixels.reshape(rows, CELL, PER_ROW, CELL, *pixels.shape[2:]).swapaxes(1, 2)
        cells = cells.reshape(rows * PER_ROW, CELL, CELL, *pixels.shape[2:])
        if mono:  # lossy compression leaves faint traces beside black and white
            cells = ((cells.astype(np.float32) - 10) * (255 / 235)).clip(0, 255).round().astype(np.uint8)
        return self._atlases.setdefault(source, cells)


def load_sprites(folder: str | Path | None = None) -> SpriteLibrary:
    """The shipped sprites, or those of another folder of this form. DataError if its index is missing or damaged."""
    return SpriteLibrary(data_dir() / "sprites" if folder is None else Path(folder))


@cache
def _kept(folder: Path) -> SpriteLibrary:
    return load_sprites(folder)


def artwork() -> SpriteLibrary:
    """The shipped sprites; index and atlases are read once per process (at most 0.2 GB)."""
    return _kept(data_dir() / "sprites")
