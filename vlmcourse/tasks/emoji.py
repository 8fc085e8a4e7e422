"""The embedded tasks: scenes of artwork that EmojiCLIP never saw, one object each.

Every image shows a held-out sprite of a seen concept, or a sprite of a novel concept. Look-alikes (`cluster` in the
index) stay in one split: with n clusters of a class, 16 go to train, 4 to val and the rest to test where n >= 26, and
about half to train, an eighth to val otherwise. Train and val show one drawing per cluster, so 16 shots are 16
different drawings; test shows up to two drawings per cluster, twice.
Domains: the same classes drawn by artists whose style pretraining never saw ("openmoji", "photo" …), and the test
scenes under a change of style ("grey", "line_art" …; `vlmcourse.world.styles`).
"""

from dataclasses import dataclass
from functools import cache, partial

import numpy as np
import torch
from torch import Tensor

from vlmcourse.files import sha256
from vlmcourse.paths import data_dir
from vlmcourse.tasks.base import Split, Task
from vlmcourse.tasks.registry import register_task
from vlmcourse.tasks.split import digest, permutation
from vlmcourse.world.build.sources import HELD_OUT_STYLES
from vlmcourse.world.compose import TASK, compose
from vlmcourse.world.concepts import Concept, load_concepts
from vlmcourse.world.sprites import SpriteLibrary, artwork
from vlmcourse.world.styles import compose_in_style

TEMPLATES = ("a picture of a {}", "an icon of a {}", "an emoji of a {}", "a drawing of a {}", "a {}")
STYLE_SHIFTS = (
    "grey", "inverted", "low_contrast", "blur", "noise", "pixelated", "poster", "clutter", "occlusion", "rotation",
    "line_art", "silhouette", "sketch",
)  # fmt: skip
VENDOR_STYLES = tuple(dict.fromkeys(HELD_OUT_STYLES.values()))
HONEST = 26  # clusters that a class needs for 16 shots, 4 validation and 6 test drawings
RECIPE = "scenes 1"  # change it when the same sprites would give other images


@dataclass(frozen=True)
class Family:
    """What one embedded task consists of: the names of its classes, or a rule that picks concepts."""

    title: str
    what: str
    classes: tuple[str, ...] = ()
    groups: tuple[str, ...] = ()
    cut: str = "seen"
    clusters: int = HONEST


FAMILIES = {
    "office": Family(
        "Office", "Things on and around a desk, many of them rectangles: a fine-grained task.",
        ("book", "books", "newspaper", "envelope", "folder", "calendar", "clipboard", "pushpin", "paperclip",
         "calculator", "inbox", "document", "printer", "pen", "paintbrush", "picture frame"),
    ),
    "devices": Family(
        "Devices", "Machines for sound, pictures and data.",
        ("camera", "movie camera", "megaphone", "loudspeaker", "telephone", "computer monitor", "keyboard",
         "floppy disk", "server", "robot", "control sliders", "alarm clock"),
    ),
    "travel": Family(
        "Travel", "Vehicles and what one takes along: easy for EmojiCLIP, so that adaptation can only lose.",
        ("bus", "car", "truck", "train", "ship", "airplane", "rocket", "luggage", "map pin", "globe"),
    ),
    "town_and_weather": Family(
        "Town and weather", "Buildings, and the sky above them; several kinds of cloud.",
        ("house", "office building", "hospital", "store", "temple", "cloud", "rain cloud", "storm cloud", "umbrella",
         "lightning", "sunrise", "fire"),
    ),
    "shop": Family(
        "Shop", "Money, goods and containers.",
        ("banknote", "shopping cart", "price tag", "wallet", "receipt", "gift", "ticket", "basket", "box", "briefcase",
         "trash can", "archive box"),
    ),
    "signs": Family(
        "Signs", "Charts, arrows, gestures and marks of screens: shapes without natural colours.",
        ("bar chart", "line chart", "download arrow", "refresh arrows", "qr code", "fingerprint", "share network",
         "speech bubble", "thumbs up", "thumbs down", "pointing hand"),
    ),
    "everyday": Family(
        "Everyday", "A coarse mixture of unrelated things.",
        ("cat", "coffee", "beer", "birthday cake", "fork and knife", "musical note", "trophy", "flask", "key", "scales",
         "flag", "scissors"),
    ),
    "novel_things": Family(
        "Novel things", "Twenty objects whose concepts pretraining never saw in a picture.",
        ("handbag", "crown", "stopwatch", "medal", "dart board", "palette", "electric plug", "magnifying glass",
         "light bulb", "scroll", "ruler", "hammer", "sword", "gear", "chain", "syringe", "pill", "bed", "chair",
         "wheelchair"),
        cut="novel",
    ),
    "novel_world": Family(
        "Novel nature, food and places", "Concepts that pretraining never saw in a picture.",
        ("fish", "tree", "flower", "bread", "ice cream", "cocktail", "crescent moon", "comet", "factory", "castle",
         "bicycle", "subway train", "wind", "skull"),
        cut="novel",
    ),
    "novel_signs": Family(
        "Novel signs", "Marks and symbols that pretraining never saw in a picture.",
        ("recycling symbol", "barcode", "funnel", "upload arrow", "shuffle arrows", "film strip", "id card",
         "eyedropper", "credit card", "dice"),
        cut="novel",
    ),
    "animals": Family(
        "Animals", "All animals with at least three held-out drawings: fine-grained, one shot at most.",
        groups=("animals",), clusters=3,
    ),
    "food": Family(
        "Food", "All food with at least three held-out drawings, one shot at most.", groups=("food",), clusters=3,
    ),
    "world_16": Family(
        "World, 16 shots", "All seen concepts that have enough held-out drawings for 16 honest shots.",
    ),
    "world": Family(
        "World", "Every seen concept: the ImageNet of this world. One shot at most.", clusters=2,
    ),
}  # fmt: skip


def allot(n: int) -> tuple[int, int, int]:
    """How many of n >= 2 clusters go to train, val and test."""
    if n >= HONEST:
        return 16, 4, n - 20
    val = 0 if n == 2 else max(1, n // 8)
    train = max(1, n // 2 - val // 2)
    return train, val, n - train - val


@cache
def art_fingerprint(folder) -> str:
    """Identifies the index and the atlases of `data/sprites`."""
    atlases = sorted((p.name, p.stat().st_size) for p in folder.rglob("*.webp"))
    return digest(sha256(folder / "index.csv"), *atlases)


def drawings(library: SpriteLibrary, concept: Concept, name: str) -> dict[str, list[int]]:
    """Sprite numbers of one class for "train", "val" and "test", in the order of their clusters."""
    ids = library.select(cut="novel" if concept.cut == "novel" else "held_out", concept=concept.id)
    clusters = np.unique(library.cluster[ids])
    order = clusters[permutation(len(clusters), "emoji", name, concept.name)]
    counts, chosen, start = allot(len(order)), {}, 0
    for part, count in zip(("train", "val", "test"), counts, strict=True):
        per_cluster = 2 if part == "test" else 1
        of_cluster = [ids[library.cluster[ids] == c][:per_cluster] for c in order[start : start + count]]
        chosen[part] = [int(i) for i in np.concatenate(of_cluster)] if of_cluster else []
        start += count
    return chosen


def paint(ids: tuple[int, ...], seed: int, style: str | None = None) -> Tensor:
    """Scenes (N, 3, 64, 64) uint8 with one sprite each, optionally under a change of style."""
    library = artwork()
    numbers = np.array(ids)[:, None]
    arguments = (library.rgba(numbers), seed)
    mono = library.mono[numbers]
    if style is None:
        return compose(*arguments, settings=TASK, mono=mono).images
    return compose_in_style(style, *arguments, settings=TASK, mono=mono).images


def scene_split(ids, labels, names, name: str, seed: int, style: str | None = None) -> Split:
    """A split that composes its images when somebody looks at them."""
    folder = data_dir() / "sprites"
    fingerprint = digest(RECIPE, art_fingerprint(folder), *ids, "labels", *labels, seed, style)
    return Split(partial(paint, tuple(ids), seed, style), torch.tensor(labels), names, TEMPLATES, name, fingerprint)


def classes_of(family: Family) -> list[Concept]:
    """The concepts of a task, in the order given or in the order of the concept table."""
    concepts, library = load_concepts(), artwork()
    if family.classes:
        return [concepts.by_name(name) for name in family.classes]
    ids = library.select(cut="held_out")
    pairs = np.unique(np.stack([library.concept[ids], library.cluster[ids]]), axis=1)
    count = np.bincount(pairs[0], minlength=len(concepts))
    return [c for c in concepts if count[c.id] >= family.clusters and (not family.groups or c.group in family.groups)]


def build_task(name: str, family: Family | None = None) -> Task:
    """The embedded task of that name, or of a family that is not in FAMILIES."""
    family, library = family or FAMILIES[name], artwork()
    concepts = classes_of(family)
    names = [c.name for c in concepts]
    parts: dict[str, tuple[list[int], list[int]]] = {"train": ([], []), "val": ([], []), "test": ([], [])}
    for label, concept in enumerate(concepts):
        for part, ids in drawings(library, concept, "shared").items():
            ids = ids * 2 if part == "test" else ids
            parts[part][0].extend(ids)
            parts[part][1].extend([label] * len(ids))
    splits = {
        part: scene_split(ids, labels, names, f"{name}/{part}", seed)
        for seed, (part, (ids, labels)) in enumerate(parts.items(), start=1)
    }
    domains = {s: scene_split(*parts["test"], names, f"{name}/{s}", 3, s) for s in STYLE_SHIFTS}
    for style in VENDOR_STYLES:
        sources = [s for s, label in HELD_OUT_STYLES.items() if label == style and s in library.sources]
        ids = library.select(cut="style", source=sources)
        found = [(int(i), c) for c in concepts for i in ids[library.concept[ids] == c.id]]
        present = list(dict.fromkeys(c.name for _, c in found))
        if len(present) >= max(4, len(names) // 2):  # a domain with a few of the classes says little
            ids, labels = [i for i, _ in found] * 2, [present.index(c.name) for _, c in found] * 2
            domains[style] = scene_split(ids, labels, present, f"{name}/{style}", 4)
    return Task(
        name=name, title=family.title, **splits, domains=domains, what=family.what,
        licence="see data/sprites/licences: MIT, Apache-2.0, CC-BY, CC0, ISC, OFL, Unlicense; domains openmoji "
        "(CC-BY-SA-4.0) and photo (GPL-2.0) from data/sprites/share-alike",
        source="held-out artwork of data/sprites, composed by vlmcourse.world.compose (preset TASK)",
    )  # fmt: skip


def _factory(name: str):
    def build() -> Task:
        return build_task(name)

    build.__qualname__ = f"build_task[{name}]"
    return build


for _name in FAMILIES:
    register_task(_name)(_factory(_name))
