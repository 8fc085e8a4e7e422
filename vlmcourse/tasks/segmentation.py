"""Dense prediction: scenes of two or three things on a named ground, and a class for every pixel.

    "segmentation"         12 things and 4 kinds of ground ("stuff")      every pixel counts
    "segmentation_things"  the same scenes, the 12 things                 the ground is ignored, as in VOC20 (MaskCLIP)

Things are held-out drawings of concepts that EmojiCLIP knows; a drawing is in one of train, val and test only, as in
`emoji.py`. What an outline encloses belongs to the thing, as in a polygon drawn by hand. The outermost pixels of every
region belong to no class (IGNORE), as in the void rim of Pascal VOC: there artwork is half transparent.
Domains: drawings by artists whose style pretraining never saw, and changes of style.
Shapes: images (N, 3, 64, 64) uint8, labels (N, 64, 64) uint8 in 0..C-1 or IGNORE.
"""

import dataclasses
from collections.abc import Callable, Sequence
from functools import cached_property, partial

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from vlmcourse.paths import data_dir
from vlmcourse.tasks.base import Task
from vlmcourse.tasks.emoji import TEMPLATES, art_fingerprint, artwork, drawings
from vlmcourse.tasks.registry import register_task
from vlmcourse.tasks.split import Split, digest
from vlmcourse.world.build.sources import HELD_OUT_STYLES
from vlmcourse.world.compose import SEVERAL, compose
from vlmcourse.world.concepts import load_concepts
from vlmcourse.world.styles import compose_in_style

IGNORE = 255  # pixels that neither train nor count
THINGS = (
    "bus", "airplane", "coffee", "musical note", "book", "gift", "camera", "house", "rocket", "umbrella", "key",
    "cloud",
)  # fmt: skip
STUFF = {  # class name: kind of background
    "plain background": "plain", "striped background": "stripes", "checked background": "checks",
    "landscape": "landscape",
}  # fmt: skip
SIZES = {"train": 480, "val": 120, "test": 300}
STYLE_SHIFTS = ("grey", "inverted", "noise", "blur", "line_art", "silhouette")
NEW_ARTISTS, DOMAIN_SIZE = "new_artists", 120
FEWEST_OBJECTS, MOST_OBJECTS = 2, 3
SETTINGS = dataclasses.replace(
    SEVERAL, scale=((0.6, 0.85), (0.44, 0.56), (0.38, 0.48)), kinds=tuple((kind, 1.0) for kind in STUFF.values())
)
RECIPE = "masks 1"  # change it when the same sprites would give other images or masks


class MaskSplit(Split):
    """A split with a class for every pixel. labels: uint8 (N, H, W) in 0..C-1 or IGNORE, or a function that returns
    them, called when somebody looks at them; then `count` is N. Otherwise as Split."""

    def __init__(self, images, labels: Tensor | Callable[[], Tensor], class_names: Sequence[str],
                 templates: Sequence[str] = ("a photo of a {}.",), name: str = "split",
                 fingerprint: str | None = None, count: int | None = None):  # fmt: skip
        if callable(labels) and (not isinstance(count, int) or count < 1):
            raise ValueError(f"count={count!r} must be the number of images where labels are a function")
        self._count = count if callable(labels) else len(labels)
        super().__init__(images, labels, class_names, templates, name, fingerprint)

    def check_labels(self, labels):
        """Masks as uint8 (N, H, W), checked; a function is left for later."""
        if callable(labels):
            return labels
        if labels.ndim != 3 or labels.numel() == 0 or len(labels) != self._count:
            raise ValueError(
                f"labels must have shape ({self._count}, H, W), got {tuple(labels.shape)} in split {self.name!r}"
            )
        if labels.is_floating_point() or labels.is_complex() or labels.dtype == torch.bool:
            raise TypeError(f"labels must be integers, got {labels.dtype}")
        wrong = labels[(labels != IGNORE) & ((labels < 0) | (labels >= self.num_classes))]
        if len(wrong):
            raise ValueError(
                f"labels: {int(wrong[0])} is neither in 0..{self.num_classes - 1} ({self.num_classes} class names) "
                f"nor {IGNORE} (ignored)"
            )
        return labels.to(torch.uint8)

    @property
    def labels(self) -> Tensor:
        """uint8 (N, H, W), made at the first look and then kept."""
        if callable(self._labels):
            self._labels = self.check_labels(self._labels())
        return self._labels

    @labels.setter
    def labels(self, value):
        self._labels = value

    def __len__(self) -> int:
        return self._count

    @property
    def counts(self) -> Tensor:
        """Pixels per class, (C,) int64."""
        return torch.bincount(self.labels.flatten().long(), minlength=IGNORE + 1)[: self.num_classes]

    def keep_classes(self, classes: Sequence[int], name: str | None = None) -> "MaskSplit":
        """All images, with only these classes' pixels, relabelled 0, 1, ...; the other pixels are ignored."""
        classes = [int(c) for c in classes]
        if not classes or len(set(classes)) < len(classes) or min(classes) < 0 or max(classes) >= self.num_classes:
            raise ValueError(f"classes must be distinct labels in 0..{self.num_classes - 1}, got {classes}")
        table = torch.full((IGNORE + 1,), IGNORE, dtype=torch.uint8)
        table[torch.tensor(classes)] = torch.arange(len(classes), dtype=torch.uint8)
        names = [self.class_names[c] for c in classes]
        kept = type(self)(
            partial(_images_of, self), partial(_relabelled, self, table), names, self.templates,
            name or f"{self.name}[{len(names)} classes]", digest(self.fingerprint, "classes", *classes), len(self),
        )  # fmt: skip
        kept._origin = self.origin
        return kept


def _images_of(split: Split) -> Tensor:
    return split.images


def _relabelled(split: MaskSplit, table: Tensor) -> Tensor:
    return table[split.labels.long()]


def void_rim(labels: Tensor) -> Tensor:
    """labels (N, H, W) uint8 with IGNORE wherever a pixel's 3 x 3 neighbourhood holds more than one class."""
    padded = F.pad(labels[:, None].float(), (1, 1, 1, 1), mode="replicate")
    high, low = F.max_pool2d(padded, 3, 1)[:, 0], -F.max_pool2d(-padded, 3, 1)[:, 0]
    return torch.where(high == low, labels, torch.full_like(labels, IGNORE))


def filled(masks: Tensor) -> Tensor:
    """masks (N, H, W) bool with small gaps closed and with all that they enclose."""
    ink = F.pad(masks[:, None].float(), (2, 2, 2, 2))
    ink = -F.max_pool2d(-F.max_pool2d(ink, 3, 1, 1), 3, 1, 1)[:, 0]  # dilated, then eroded
    free = ink.permute(1, 2, 0) == 0  # (H, W, N): sweeps over a row of all images at once
    outside = torch.zeros_like(free)
    outside[0] = True
    while True:  # what can be reached from the upper edge in steps down, up, right and left
        before = outside.clone()
        for rows, open_rows in ((outside, free), (outside.transpose(0, 1), free.transpose(0, 1))):
            last = len(rows) - 1
            for step, order in ((-1, range(1, last + 1)), (1, range(last - 1, -1, -1))):
                for i in order:
                    rows[i] |= rows[i + step] & open_rows[i]
        if torch.equal(before, outside):
            return ~outside[2:-2, 2:-2].permute(2, 0, 1)


@dataclasses.dataclass(frozen=True, eq=False)
class Composition:
    """Scenes that are composed when needed. sprites: (N, K) numbers, -1 for none; classes: (N, K) their labels."""

    sprites: np.ndarray
    classes: np.ndarray
    seed: int
    style: str | None = None

    @cached_property
    def _parts(self) -> tuple[Tensor, Tensor]:
        library = artwork()
        mono = np.where(self.sprites >= 0, library.mono[self.sprites], False)
        arguments, options = (library.rgba(self.sprites), self.seed), {"settings": SETTINGS, "mono": mono}
        made = compose(*arguments, **options)
        kinds = list(STUFF.values())
        ground = torch.tensor([len(THINGS) + kinds.index(kind) for kind in made.kind])  # (N,)
        if self.style is not None:
            made = compose_in_style(self.style, *arguments, **options)
        labels = ground.to(torch.uint8)[:, None, None].expand(made.masks.shape)
        for k, of_object in enumerate(torch.from_numpy(self.classes).to(torch.uint8).T):  # from back to front
            labels = torch.where(filled(made.masks == k + 1), of_object[:, None, None], labels)
        return made.images, void_rim(labels)

    def images(self) -> Tensor:
        """uint8 (N, 3, 64, 64)."""
        return self._parts[0]

    def labels(self) -> Tensor:
        """uint8 (N, 64, 64), things 0..11, grounds 12..15, rims IGNORE."""
        return self._parts[1]

    def split(self, name: str) -> MaskSplit:
        """The split of these scenes, composed at the first look at an image or a mask."""
        art = art_fingerprint(data_dir() / "sprites")
        key = digest(RECIPE, art, self.sprites.tobytes(), self.classes.tobytes(), self.seed, self.style)
        return MaskSplit(self.images, self.labels, (*THINGS, *STUFF), TEMPLATES, name, key, len(self.sprites))


def draw_scenes(drawings_of: Sequence[Sequence[int]], count: int, *key) -> tuple[np.ndarray, np.ndarray]:
    """Sprites and classes (count, MOST_OBJECTS) of random scenes; classes within a scene are distinct, absent ones -1
    and 0. drawings_of: the sprite numbers of each class."""
    rng = np.random.default_rng(int(digest("segmentation", *key), 16))
    classes = rng.permuted(np.tile(np.arange(len(drawings_of)), (count, 1)), axis=1)[:, :MOST_OBJECTS]
    sprites = np.array([[rng.choice(drawings_of[c]) for c in row] for row in classes])
    absent = np.arange(MOST_OBJECTS) >= rng.integers(FEWEST_OBJECTS, MOST_OBJECTS + 1, count)[:, None]
    return np.where(absent, -1, sprites), np.where(absent, 0, classes)


@register_task("segmentation")
def segmentation() -> Task:
    """Things and grounds."""
    library, concepts = artwork(), [load_concepts().by_name(name) for name in THINGS]
    cuts = [drawings(library, concept, "shared") for concept in concepts]
    splits = {
        part: Composition(*draw_scenes([cut[part] for cut in cuts], count, part), seed).split(f"segmentation/{part}")
        for seed, (part, count) in enumerate(SIZES.items(), start=21)
    }
    test = draw_scenes([cut["test"] for cut in cuts], DOMAIN_SIZE, "styles")
    domains = {style: Composition(*test, 24, style).split(f"segmentation/{style}") for style in STYLE_SHIFTS}
    foreign = library.select(cut="style", source=[s for s in HELD_OUT_STYLES if s in library.sources])
    theirs = [foreign[library.concept[foreign] == concept.id] for concept in concepts]
    made = Composition(*draw_scenes(theirs, DOMAIN_SIZE, NEW_ARTISTS), 25)
    domains[NEW_ARTISTS] = made.split(f"segmentation/{NEW_ARTISTS}")
    return Task(
        name="segmentation", title="Segmentation", **splits, domains=domains, kind="segmentation",
        what="Scenes of two or three things on a plain, striped or checked background or in a landscape: a class for "
        "every pixel. EmojiCLIP knows the things; its captions say little about grounds, which must be learned.",
        licence="see data/sprites/licences: MIT, Apache-2.0, CC-BY, CC0, ISC, OFL, Unlicense; domain new_artists also "
        "CC-BY-SA-4.0 and GPL-2.0 from data/sprites/share-alike",
        source="held-out artwork of data/sprites, composed by vlmcourse.world.compose (preset SEVERAL)",
    )  # fmt: skip


@register_task("segmentation_things")
def segmentation_things() -> Task:
    """Things only."""
    whole, things = segmentation(), range(len(THINGS))

    def only_things(split: MaskSplit) -> MaskSplit:
        return split.keep_classes(things, split.name.replace("segmentation", "segmentation_things"))

    return dataclasses.replace(
        whole, name="segmentation_things", title="Segmentation, things only", draw_name="", draw_classes=(),
        **{part: only_things(split) for part, split in whole.splits.items()},
        domains={domain: only_things(split) for domain, split in whole.domains.items()},
        what="The scenes of `segmentation`, of which only the pixels of things count: which thing is it, here?",
    )  # fmt: skip
