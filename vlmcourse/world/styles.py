"""Style shifts: the same objects, drawn or pictured differently, at severities 1 (mild) to 5 (severe).

Three kinds:
    "image"   a change of pixels that moves nothing, so masks and boxes stay right
    "scene"   adds things to the image, and wants to know where the objects are (masks)
    "sprite"  a change of the artwork itself, before it is composed
`STYLES` holds them by name; `compose_in_style` applies any of them at its right place. Equal seeds give equal results,
item by item (see draws.py).
"""

import dataclasses
import difflib
from collections.abc import Callable

import torch

from vlmcourse.world import image_styles, sprite_styles
from vlmcourse.world.backgrounds import axes
from vlmcourse.world.compose import TASK, Scenes, SceneSettings, compose
from vlmcourse.world.draws import CHUNK, Draw, check_seed


@dataclasses.dataclass(frozen=True)
class Style:
    """One style shift: `function` gets `levels[severity - 1]`; the description says in brackets what the levels are."""

    name: str
    kind: str  # "image", "scene" or "sprite"
    description: str
    function: Callable
    levels: tuple
    severity: int = 3  # default
    ink: bool = False  # leaves sprites in one ink, whose colour `compose` chooses


_IMAGE = {
    "grey": ("fades to grey, then to a hard photocopy (saturation, contrast)",
             ((0.3, 1.0), (0.0, 1.0), (0.0, 1.7), (0.0, 3.0), (0.0, 8.0))),
    "inverted": ("opposite colours, opposite lightness, at last both (factors of lightness and two chroma axes)",
                 ((1.0, 1.0, -1.0), (1.0, -1.0, -1.0), (-1.0, 1.0, 1.0), (-1.0, -1.0, -1.0), (-2.0, -1.5, -1.5))),
    "false_colour": ("hues turn around the colour circle (turns)", (0.08, 0.16, 0.25, 0.36, 0.5)),
    "low_contrast": ("everything fades into haze (contrast left)", (0.55, 0.35, 0.22, 0.13, 0.07)),
    "blur": ("out of focus (standard deviation in 64ths of the image)", (0.8, 1.4, 2.1, 3.0, 4.2)),
    "noise": ("grain of a camera in the dark (standard deviation)", (0.06, 0.12, 0.2, 0.3, 0.45)),
    "pixelated": ("large square pixels (pixels across)", (32, 22, 16, 11, 8)),
    "poster": ("few tones per channel, as in a poster (tones)", (6, 5, 4, 3, 2)),
    "blocks": ("blocks of a strongly compressed photograph (coarseness)", (0.2, 0.4, 0.8, 1.5, 2.8)),
    "shadow": ("a hard shadow falls over one half (light taken away)", (0.4, 0.55, 0.68, 0.8, 0.9)),
}  # fmt: skip
_SCENE = {
    "clutter": ("small shapes crowd around the object (number, greatest radius)",
                ((5, 0.13), (10, 0.16), (18, 0.2), (30, 0.24), (45, 0.28))),
    "occlusion": ("a part of the object is hidden (share hidden)", (0.15, 0.3, 0.45, 0.6, 0.75)),
}  # fmt: skip
_SPRITE = {"rotation": ("turned, at last upside down (degrees, either way, give or take 10)", (20, 45, 75, 110, 180))}
_SPRITE_IN_INK = {
    "silhouette": ("one flat ink, at last without inner detail (tone left)", (0.75, 0.6, 0.4, 0.2, 0.0)),
    "line_art": ("lines along edges, at last only the contour (weight of inner edges)", (4.0, 2.4, 1.4, 0.7, 0.0)),
    "sketch": ("shaky, broken pencil lines and hatching (wobble in 64ths of the sprite, share of gaps)",
               ((0.8, 0.1), (1.5, 0.2), (2.4, 0.3), (3.4, 0.4), (4.8, 0.5))),
    "negative_space": ("the object is cut out of a card (tone left inside)", (0.75, 0.6, 0.4, 0.2, 0.0)),
}  # fmt: skip
STYLES: dict[str, Style] = {
    name: Style(name, kind, text, getattr(module, name), levels, ink=rows is _SPRITE_IN_INK)
    for kind, module, rows in (
        ("image", image_styles, _IMAGE),
        ("scene", image_styles, _SCENE),
        ("sprite", sprite_styles, _SPRITE),
        ("sprite", sprite_styles, _SPRITE_IN_INK),
    )
    for name, (text, levels) in rows.items()
}


def get_style(name: str, severity: int | None = None) -> tuple[Style, int]:
    """The style of that name and the severity to use (None: its default). ValueError if one of them does not exist."""
    if name not in STYLES:
        near = difflib.get_close_matches(str(name), STYLES, cutoff=0.4) or list(STYLES)
        raise ValueError(f"style {name!r} does not exist; close matches: {', '.join(near)}")
    severity = STYLES[name].severity if severity is None else severity
    if isinstance(severity, bool) or not isinstance(severity, int) or not 1 <= severity <= 5:
        raise ValueError(f"severity must be an integer from 1 (mild) to 5 (severe), got {severity!r}")
    return STYLES[name], severity


@torch.no_grad()
def apply_style(
    name: str, images: torch.Tensor, severity: int | None = None, seed: int = 0, masks: torch.Tensor | None = None
) -> torch.Tensor:
    """Images (B, 3, H, W) uint8 in an "image" or "scene" style: the same shape and type.

    masks (B, H, W), objects where not 0: for "scene" styles; without them the object is a disc in the middle.
    ValueError for an unknown style, a severity out of range, wrong shapes, or a "sprite" style.
    """
    style, severity = get_style(name, severity)
    if style.kind == "sprite":
        raise ValueError(f"style {name!r} changes the artwork: use style_sprites or compose_in_style")
    if images.ndim != 4 or images.shape[1] != 3 or images.dtype != torch.uint8:
        raise ValueError(f"images must be uint8 (B, 3, H, W), got {images.dtype} {tuple(images.shape)}")
    if masks is not None and masks.shape != (len(images), *images.shape[2:]):
        raise ValueError(f"masks must have shape {(len(images), *images.shape[2:])}, got {tuple(masks.shape)}")

    def change(x: torch.Tensor, draw: Draw, rows: slice) -> torch.Tensor:
        if style.kind == "image":
            return style.function(x, style.levels[severity - 1], draw)
        ax, ay = axes(*x.shape[-2:])
        middle = (ax.square() + ay.square() < 0.6).expand(len(x), -1, -1)
        return style.function(x, style.levels[severity - 1], draw, middle if masks is None else masks[rows] > 0)

    return _in_chunks(images, seed, change)


@torch.no_grad()
def style_sprites(name: str, sprites: torch.Tensor, severity: int | None = None, seed: int = 0) -> torch.Tensor:
    """Sprites (..., h, w, 4) uint8 in a "sprite" style: same shape and type; black with alpha if the style has `ink`.

    ValueError for an unknown style, a severity out of range, wrong shapes, or a style of another kind.
    """
    style, severity = get_style(name, severity)
    if style.kind != "sprite":
        raise ValueError(f"style {name!r} changes images, not sprites: use apply_style or compose_in_style")
    if sprites.ndim < 3 or sprites.shape[-1] != 4 or sprites.dtype != torch.uint8:
        raise ValueError(f"sprites must be uint8 (..., h, w, 4), got {sprites.dtype} {tuple(sprites.shape)}")

    def change(x: torch.Tensor, draw: Draw, rows: slice) -> torch.Tensor:
        out = style.function(x, style.levels[severity - 1], draw)
        if style.ink:
            out = torch.cat([torch.zeros_like(x[:, :3]), out[:, None]], 1)
        return out * (x[:, 3:].amax((2, 3), keepdim=True) > 0)  # an absent object stays absent

    flat = sprites.reshape(-1, *sprites.shape[-3:]).permute(0, 3, 1, 2)
    return _in_chunks(flat, seed, change).permute(0, 2, 3, 1).reshape(sprites.shape)


def _in_chunks(pixels: torch.Tensor, seed: int, change: Callable) -> torch.Tensor:
    """`change` on each chunk of pixels (N, c, H, W) uint8, as floats in [0, 1]."""
    out, seed = torch.empty_like(pixels, memory_format=torch.contiguous_format), check_seed(seed)
    for start in range(0, len(pixels), CHUNK):
        rows = slice(start, min(start + CHUNK, len(pixels)))
        x = change(pixels[rows].float() / 255, Draw(seed, start // CHUNK, rows.stop - start), rows)
        out[rows] = (x * 255 + 0.5).clamp(0, 255)
    return out


def compose_in_style(
    name: str, sprites: torch.Tensor, seed: int, severity: int | None = None, size: int = 64,
    settings: SceneSettings = TASK, *, mono=None, fixed=None,
) -> Scenes:  # fmt: skip
    """`compose` (same arguments), with the style applied to the sprites before or to the images after, by its kind.

    Masks and boxes are those of the scene before an image style; `occlusion` leaves them as if nothing were hidden.
    """
    style, severity = get_style(name, severity)
    if style.kind == "sprite":
        sprites = style_sprites(name, sprites, severity, seed)
        mono = torch.ones(sprites.shape[:2], dtype=torch.bool) if style.ink else mono
        return compose(sprites, seed, size, settings, mono=mono, fixed=fixed)
    scenes = compose(sprites, seed, size, settings, mono=mono, fixed=fixed)
    scenes.images = apply_style(name, scenes.images, severity, seed, scenes.masks)
    return scenes
