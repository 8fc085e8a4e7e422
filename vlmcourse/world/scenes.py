"""How scenes are made (`SceneSettings`, with presets) and what they come as (`Scenes`).

Shapes: B scenes, K objects at most, S pixels a side.
"""

import dataclasses
from collections.abc import Sequence

import torch

from vlmcourse.world.backgrounds import KINDS
from vlmcourse.world.colours import COLOURS, NAMES

ALL_KINDS = tuple((kind, 3.0 if kind == "plain" else 1.0) for kind in KINDS)
IN_UNIT = (
    "flip", "shift", "hue", "saturation", "contrast", "brightness", "shadow", "occlusion", "blur", "noise", "tint",
)  # fmt: skip


@dataclasses.dataclass(frozen=True)
class SceneSettings:
    """How scenes are made. Probabilities and strengths in [0, 1] unless said otherwise; (low, high) are ranges."""

    scale: tuple[tuple[float, float], ...] = ((0.6, 0.9), (0.4, 0.54), (0.34, 0.46), (0.32, 0.42), (0.28, 0.36))
    # longest side of an object / image side, for 1, 2, 3 ... objects (the last also holds for more)
    rotation: float = 10.0  # degrees, either way
    stretch: float = 0.05  # log of the width factor; the height gets the inverse
    flip: float = 0.0  # probability of a mirror image
    shift: float = 0.6  # share of the free room in which one object may wander
    hue: float = 0.01  # turns, either way
    saturation: float = 0.15  # factor 1 ± this
    contrast: float = 0.1  # factor 1 ± this
    brightness: float = 0.08  # added, ± this
    coloured_ink: bool = True  # monochrome sprites take a random colour; otherwise black (white on dark)
    shadow: float = 0.25  # probability
    occlusion: float = 0.0  # probability that one object is partly hidden
    hidden: tuple[float, float] = (0.1, 0.35)  # share of the object that is hidden
    blur: float = 0.0  # probability of a slight blur of the image
    noise: float = 0.0  # standard deviation of pixel noise, at most
    kinds: tuple[tuple[str, float], ...] = ALL_KINDS  # backgrounds and their weights
    colours: tuple[str, ...] = NAMES  # colours of backgrounds
    tint: float = 0.06  # change of these colours, ± this

    def __post_init__(self):
        for name in IN_UNIT:
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"{name} must be in [0, 1], got {getattr(self, name)}")
        for name in ("rotation", "stretch"):
            if not 0 <= getattr(self, name) < float("inf"):
                raise ValueError(f"{name} must be finite and >= 0, got {getattr(self, name)}")
        for name, ranges in (("scale", self.scale), ("hidden", (self.hidden,))):
            if not ranges or not all(0 < low <= high <= 1 for low, high in ranges):
                raise ValueError(f"{name} needs ranges 0 < low <= high <= 1, got {getattr(self, name)}")
        for name, given, known in (("kinds", [k for k, _ in self.kinds], KINDS), ("colours", self.colours, COLOURS)):
            if not given or not set(given) <= set(known):
                raise ValueError(f"{name} must be one or more of {', '.join(known)}, got {given}")
        if not all(weight > 0 for _, weight in self.kinds):
            raise ValueError(f"weights of kinds must be > 0, got {self.kinds}")


TASK = SceneSettings()  # a moderate, natural look for downstream tasks
PRETRAIN = SceneSettings(  # strong augmentation
    scale=((0.5, 0.98), (0.36, 0.6), (0.3, 0.48), (0.28, 0.44), (0.25, 0.38)), rotation=20, stretch=0.15,
    flip=0.5, shift=1.0, hue=0.04, saturation=0.5, contrast=0.3, brightness=0.15, shadow=0.3,
    occlusion=0.12, blur=0.1, noise=0.04,
)  # fmt: skip
PLAIN = SceneSettings(  # centred, upright, true colours on white
    scale=((0.86, 0.86), (0.47, 0.47), (0.44, 0.44), (0.42, 0.42), (0.36, 0.36)), rotation=0, stretch=0,
    shift=0, hue=0, saturation=0, contrast=0, brightness=0, coloured_ink=False, shadow=0,
    kinds=(("plain", 1.0),), colours=("white",), tint=0,
)  # fmt: skip
SEVERAL = SceneSettings(  # for scenes of 2 to 5 objects: nearly no overlap, so that boxes and masks are clean
    scale=((0.5, 0.7), (0.36, 0.48), (0.32, 0.42), (0.3, 0.38), (0.26, 0.33)), shift=0.5, shadow=0.15,
)  # fmt: skip


@dataclasses.dataclass
class Scenes:
    """B composed scenes."""

    images: torch.Tensor  # (B, 3, S, S) uint8
    masks: torch.Tensor  # (B, S, S) uint8: 0 background, k + 1 the visible part of object k
    boxes: torch.Tensor  # (B, K, 4) float32: x1, y1, x2, y2 in pixels around the visible part; zeros if there is none
    present: torch.Tensor  # (B, K) bool: has at least one visible pixel
    background: list[str]  # phrase for "on a ... background": "red", "blue and green striped", "beige paper"
    kind: list[str]  # kind of the background, a key of backgrounds.KINDS
    colours: list[tuple[str, ...]]  # names of its one or two colours, the main one first

    def __len__(self) -> int:
        return len(self.images)

    def sizes(self) -> list[list[str | None]]:
        """Per object "small" (longest side under 1/3 of the image), "large" (over 2/3) or ""; None if absent."""
        side = (self.boxes[..., 2:] - self.boxes[..., :2]).amax(-1) / self.images.shape[-1]
        return self._words(1 + (side > 0.67).long() - (side < 0.34).long(), ("small", "", "large"))

    def positions(self) -> list[list[str | None]]:
        """Per object "top left", "top", ... "centre", ... "bottom right"; None if absent."""
        middle = (self.boxes[..., 2:] + self.boxes[..., :2]) / (2 * self.images.shape[-1])
        x, y = torch.bucketize(middle, torch.tensor([0.42, 0.58])).unbind(-1)
        words = ("top left", "top", "top right", "left", "centre", "right", "bottom left", "bottom", "bottom right")
        return self._words(3 * y + x, words)

    def _words(self, index: torch.Tensor, words: Sequence[str]) -> list[list[str | None]]:
        rows = torch.where(self.present, index, -1).tolist()
        return [[None if i < 0 else words[i] for i in row] for row in rows]
