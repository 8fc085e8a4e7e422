"""The concepts of the world: names, words, texts, and the tree group > subgroup > concept.

`data/concepts.json` holds one record per concept. "seen" concepts were taught in pretraining; "novel" ones never were.
"""

import difflib
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields
from functools import cache
from pathlib import Path

from vlmcourse.errors import DataError
from vlmcourse.paths import data_dir


@dataclass(frozen=True)
class Concept:
    """One concept; `id` is its number in `data/sprites/index.csv`, `cut` is "seen" or "novel"."""

    id: int
    key: str
    name: str
    aliases: tuple[str, ...]
    keywords: tuple[str, ...]
    emoji: tuple[str, ...]
    group: str
    subgroup: str
    cut: str
    descriptors: tuple[str, ...]
    sentences: tuple[str, ...]

    @property
    def path(self) -> tuple[str, str, str]:
        """The concept's way down the tree: group, subgroup, name."""
        return self.group, self.subgroup, self.name


class Concepts(Sequence):
    """All concepts in the order of their ids."""

    def __init__(self, items: Sequence[Concept]):
        self._items = tuple(items)
        self._by_name = {c.name: c for c in self._items}

    def __len__(self) -> int:
        return len(self._items)

    def __getitem__(self, index):
        return self._items[index]

    def __iter__(self) -> Iterator[Concept]:
        return iter(self._items)

    def by_name(self, name: str) -> Concept:
        """The concept called `name`; ValueError with close matches if there is none."""
        if name not in self._by_name:
            near = difflib.get_close_matches(name, self._by_name) or ["…"]
            raise ValueError(f"name {name!r} is not a concept; close matches: {', '.join(near)}")
        return self._by_name[name]

    def where(self, group: str | None = None, subgroup: str | None = None, cut: str | None = None) -> list[Concept]:
        """Concepts that meet every condition given."""
        wanted = {"group": group, "subgroup": subgroup, "cut": cut}
        return [c for c in self if all(v is None or getattr(c, k) == v for k, v in wanted.items())]

    def tree(self) -> dict[str, dict[str, list[str]]]:
        """group -> subgroup -> names."""
        tree: dict[str, dict[str, list[str]]] = {}
        for c in self:
            tree.setdefault(c.group, {}).setdefault(c.subgroup, []).append(c.name)
        return tree


@cache
def _load(path: Path) -> Concepts:
    try:
        records = json.loads(path.read_text(encoding="utf-8"))
        names = [f.name for f in fields(Concept)]
        as_tuple = ("aliases", "keywords", "emoji", "descriptors", "sentences")
        items = [Concept(**{n: tuple(r[n]) if n in as_tuple else r[n] for n in names}) for r in records]
    except OSError as error:
        raise DataError(f"{path} cannot be read ({error.strerror}). Restore it (git checkout -- data).") from error
    except (ValueError, KeyError, TypeError) as error:
        raise DataError(f"{path} is damaged ({error!r}). Restore it (git checkout -- data).") from error
    if not items or [c.id for c in items] != list(range(len(items))):
        raise DataError(
            f"{path} is damaged: its ids must be 0, 1, 2 … without gaps. Restore it (git checkout -- data)."
        )
    return Concepts(items)


def load_concepts() -> Concepts:
    """The shipped concepts; DataError if the file is missing or damaged."""
    return _load(data_dir() / "concepts.json")
