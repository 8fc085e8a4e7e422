"""Scenes: sprites on backgrounds, as images with masks and boxes, many at a time.

Per scene: a background, then the objects from back (k = 0) to front (k = K - 1):
    sprite S_k  --warp-->  premultiplied colour c_k and cover α_k  --jitter or ink-->  image = (1 - α_k) image + c_k
and at last, in some scenes, something that hides a part of one object. All in float32 torch, batched over scenes.
Shapes: B scenes, K objects at most, S pixels a side.
"""

import time

import numpy as np
import torch
from torch.nn import functional as F

from vlmcourse.world import colours
from vlmcourse.world.backgrounds import axes, paint
from vlmcourse.world.colours import RGB
from vlmcourse.world.draws import CHUNK, Draw, check_seed
from vlmcourse.world.placement import MAX_OBJECTS, extents, place
from vlmcourse.world.scenes import PLAIN, PRETRAIN, SEVERAL, TASK, Scenes, SceneSettings

__all__ = ["PLAIN", "PRETRAIN", "SEVERAL", "TASK", "SceneSettings", "Scenes", "compose"]


@torch.no_grad()
def compose(
    sprites, seed: int, size: int = 64, settings: SceneSettings = TASK, *, mono=None, fixed=None, first: int = 0
) -> Scenes:
    """Compose sprites (B, K, h, w, 4), uint8 RGBA (absent objects have alpha 0), into B scenes of size x size pixels.

    mono (B, K) bool: monochrome sprites, painted in an ink that can be seen where they lie (default: none).
    fixed (B, K) bool: objects whose direction has a meaning (arrows, digits): never turned or flipped (default: none).
    first: number of the first scene in a longer stream, a multiple of `draws.CHUNK`. Scene i depends only on
    (seed, first + i) and its own sprites, up to rounding: a batch that is cut short, or split at multiples of `CHUNK`,
    keeps its scenes.
    ValueError for wrong shapes or arguments.
    """
    sprites = torch.as_tensor(sprites)
    if sprites.ndim != 5 or sprites.shape[-1] != 4 or sprites.dtype != torch.uint8:
        raise ValueError(f"sprites must be uint8 (B, K, h, w, 4), got {sprites.dtype} {tuple(sprites.shape)}")
    b, k = sprites.shape[:2]
    if not 1 <= k <= MAX_OBJECTS or not b:
        raise ValueError(f"sprites must have B >= 1 and K in 1..{MAX_OBJECTS}, got {tuple(sprites.shape)}")
    if not isinstance(size, int) or not 8 <= size <= 1024:
        raise ValueError(f"size must be an integer in 8..1024, got {size!r}")
    if first < 0 or first % CHUNK:
        raise ValueError(f"first must be a multiple of {CHUNK}, got {first}")
    mono, fixed = _flags("mono", mono, (b, k)), _flags("fixed", fixed, (b, k))
    check_seed(seed)
    images, masks = torch.empty(b, 3, size, size, dtype=torch.uint8), torch.empty(b, size, size, dtype=torch.uint8)
    words = []
    for start in range(0, b, CHUNK):
        rows = slice(start, min(start + CHUNK, b))
        draw = Draw(seed, (first + start) // CHUNK, rows.stop - start)
        canvas, label, said = _chunk(draw, sprites[rows], mono[rows], fixed[rows], size, settings)
        images[rows] = canvas.mul_(255).add_(0.5).clamp_(0, 255)
        masks[rows] = label
        words += said
    boxes, present = boxes_of(masks, k)
    kind, names, phrases = (list(column) for column in zip(*words, strict=True))
    return Scenes(images, masks, boxes, present, phrases, kind, names)


def _flags(name: str, given, shape: tuple[int, int]) -> torch.Tensor:
    flags = torch.zeros(shape, dtype=torch.bool) if given is None else torch.as_tensor(np.asarray(given)).bool()
    if flags.shape != shape:
        raise ValueError(f"{name} must have shape {shape}, got {tuple(flags.shape)}")
    return flags


def _chunk(draw: Draw, sprites, mono, fixed, size: int, settings: SceneSettings):
    """Scenes of one chunk: images (n, 3, S, S) float, labels (n, S, S) uint8, words about the backgrounds."""
    n, k = mono.shape
    rgba = sprites.permute(0, 1, 4, 2, 3).to(torch.float32, memory_format=torch.contiguous_format).mul_(1 / 255)
    centre, half, present = extents(rgba[:, :, 3])
    rim, weight = rims(rgba, ~mono)
    rgba[:, :, :3] *= rgba[:, :, 3:]
    tiles = draw.shared(8, 3, size, size, low=-1.732, high=1.732)  # unit variance
    grain = tiles[(draw.uniform() * 8).long()]
    canvas, words = paint(draw, size, settings, rim, weight, grain)
    theta = place(draw, centre, half, present, fixed, settings)
    spread = draw.uniform(k, 4, low=-1, high=1) * torch.tensor(
        [settings.hue, settings.saturation, settings.contrast, settings.brightness]
    )
    matrix = colours.jitter_matrix(
        spread[..., 0], 1 + spread[..., 1], 1 + spread[..., 2], spread[..., 3]
    )  # (n, K, 3, 4)
    inks = colours.ink(*draw.uniform(k, 5, 3).unbind(-1))  # (n, K, 5, 3)
    shade = draw.uniform(k, low=0.2, high=0.45) * (draw.uniform(k) < settings.shadow)
    label = torch.zeros(n, size, size, dtype=torch.uint8)
    for j in range(k):
        rows = present[:, j].nonzero()[:, 0]
        if not len(rows):
            continue
        warped = warp(rgba[rows, j], theta[rows, j], size)
        alpha, behind = warped[:, 3], canvas[rows]
        behind = cast_shadow(behind, alpha, shade[rows, j])
        paints, ink = matrix[rows, j], mono[rows, j].nonzero()[:, 0]
        if len(ink):
            wanted = inks[rows, j][ink] if settings.coloured_ink else torch.full((len(ink), 1, 3), 0.04)
            paints[ink] = colours.ink_matrix(colours.visible_ink(wanted, behind[ink], alpha[ink]))
        canvas[rows] = behind.mul_(1 - alpha[:, None]).add_(colours.recolour(warped, paints))
        solid = alpha > 0.5 * alpha.amax((1, 2), keepdim=True).clamp(max=1.0)
        label[rows] = torch.where(solid, j + 1, label[rows])
    hide(draw, canvas, label, present, settings)
    soft = draw.chance(settings.blur).nonzero()[:, 0]
    if len(soft):
        canvas[soft] = soften(canvas[soft])
    if settings.noise:
        canvas.addcmul_(grain, draw.uniform(1, 1, 1, high=settings.noise))
    return canvas, label, words


def rims(rgba: torch.Tensor, wanted: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Colours (n, K, P, 3) of straight-alpha sprites (n, K, 4, h, w) on a coarse grid; weights (n, K, P), 1 at rims."""
    coarse = rgba[..., 1::4, 1::4]
    inside = (coarse[:, :, 3] > 0.5).float()
    core = -F.max_pool2d(-F.pad(inside, (1, 1, 1, 1)), 3, 1)
    return coarse[:, :, :3].flatten(3).mT, ((inside - core) * wanted[..., None, None]).flatten(2)


def warp(rgba: torch.Tensor, theta: torch.Tensor, size: int) -> torch.Tensor:
    """Premultiplied sprites (n, 4, h, w) under maps (n, 2, 3), smoothed first where they shrink: (n, 4, size, size)."""
    shrink = theta[:, :, :2].square().sum((1, 2)).div(2).sqrt() * (rgba.shape[-1] / size)
    for limit in (1.4, 2.3):
        rows = (shrink > limit).nonzero()[:, 0]
        if len(rows):
            rgba = rgba.clone() if len(rows) < len(rgba) else rgba
            rgba[rows] = soften(rgba[rows])
    grid = F.affine_grid(theta, [len(rgba), 4, size, size], align_corners=False)
    return F.grid_sample(rgba, grid, mode="bilinear", padding_mode="zeros", align_corners=False)


def soften(x: torch.Tensor, step: int = 1) -> torch.Tensor:
    """Images (..., H, W) under the filter (1, 2, 1) / 4 in both directions, taps `step` pixels apart; edges repeat."""
    for dim in (-1, -2):  # sums of slices: far faster on CPU than pooling or convolution
        n, total = x.shape[dim], x * 2
        total.narrow(dim, step, n - step).add_(x.narrow(dim, 0, n - step))
        total.narrow(dim, 0, step).add_(x.narrow(dim, 0, step))
        total.narrow(dim, 0, n - step).add_(x.narrow(dim, step, n - step))
        total.narrow(dim, n - step, step).add_(x.narrow(dim, n - step, step))
        x = total
    return x / 16


def cast_shadow(canvas: torch.Tensor, alpha: torch.Tensor, strength: torch.Tensor) -> torch.Tensor:
    """Darken the canvas (n, 3, S, S) in place by a soft shadow of alpha (n, S, S) to the lower right, strength (n,)."""
    rows, step = strength.nonzero()[:, 0], max(1, round(alpha.shape[-1] / 28))
    if len(rows):
        moved = F.pad(alpha[rows, : -step or None, : -step or None], (step, 0, step, 0))
        shade = soften(soften(moved), step) * strength[rows, None, None]
        canvas[rows] *= 1 - shade[:, None]
    return canvas


def cover(masks: torch.Tensor, share: torch.Tensor, u: torch.Tensor) -> torch.Tensor:
    """Soft shapes (n, H, W) in [0, 1] (discs, boxes, half planes) that each hide `share` (n,) of masks (n, H, W) bool.

    u (n, 3) in [0, 1): side, kind and turn of the shape. The shape is a distance field, cut at the level that hides the
    wanted number of mask pixels. An empty mask gets an empty shape.
    """
    x, y = axes(*masks.shape[-2:])
    count = masks.sum((1, 2))
    weight = masks / count.clamp(min=1)[:, None, None]
    mean_x, mean_y = ((weight * axis).sum((1, 2))[:, None, None] for axis in (x, y))
    spread = (weight * ((x - mean_x).square() + (y - mean_y).square())).sum((1, 2)).sqrt()[:, None, None]
    (cos, cos_turn), (sin, sin_turn) = (f(u[:, ::2].T * 2 * torch.pi)[..., None, None] for f in (torch.cos, torch.sin))
    dx, dy = x - mean_x - 1.2 * spread * cos, y - mean_y - 1.2 * spread * sin  # from a point beside the object
    p, q = dx * cos_turn + dy * sin_turn, dy * cos_turn - dx * sin_turn
    disc, box, plane = (p.square() + q.square()).sqrt(), torch.maximum(p.abs(), q.abs() * 0.7), -dx * cos - dy * sin
    field = torch.stack([disc, box, plane])[(u[:, 1] * 3).long(), torch.arange(len(masks))]
    ordered = torch.where(masks, field, torch.inf).flatten(1).sort(1).values
    level = ordered.gather(1, (count * share).long().clamp(max=ordered.shape[1] - 1)[:, None])[..., None]
    level = torch.where(count[:, None, None] > 0, level, -torch.inf)
    return ((level - field) * (masks.shape[-1] / 3) + 0.5).clamp_(0, 1)


def hide(draw: Draw, canvas: torch.Tensor, label: torch.Tensor, present: torch.Tensor, settings: SceneSettings) -> None:
    """Cover a part of one object in some scenes, in place; what is covered leaves the label map."""
    chance, which, share, colour, *u = draw.uniform(7).unbind(-1)
    rows = ((chance < settings.occlusion) & present.any(1)).nonzero()[:, 0]
    if len(rows):
        low, high = settings.hidden
        here = present[rows]
        order = (which[rows] * here.sum(1)).long()[:, None]  # take the order-th present object
        target = ((here.cumsum(1) - 1 == order) & here).float().argmax(1) + 1
        mine, other = label[rows] == target[:, None, None], label[rows] > 0
        shape = cover(mine, low + share[rows] * (high - low), torch.stack(u, -1)[rows]) * (mine | ~other)
        paint_over = RGB[(colour[rows] * len(RGB)).long()][:, :, None, None]
        canvas[rows] = torch.lerp(canvas[rows], paint_over.expand(-1, -1, *shape.shape[1:]), shape[:, None])
        label[rows] = label[rows] * (shape <= 0.5)


def boxes_of(masks: torch.Tensor, objects: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Boxes (B, K, 4) and presence (B, K) of the labels 1..K in masks (B, S, S)."""
    boxes, present = [], []
    for j in range(objects):
        mine = masks == j + 1
        ends = []
        for dim in (1, 2):  # columns give x, rows give y
            line = mine.any(dim)
            ends.append((line.int().argmax(1), masks.shape[-1] - line.flip(1).int().argmax(1)))
        box = torch.stack([ends[0][0], ends[1][0], ends[0][1], ends[1][1]], -1).float()
        present.append(line.any(1))
        boxes.append(box * present[-1][:, None])
    return torch.stack(boxes, 1), torch.stack(present, 1)


def benchmark(scenes: int = 2048, objects: int = 1, settings: SceneSettings = PRETRAIN) -> float:
    """Scenes per second for random sprites, of which a third are monochrome, at 64 x 64 pixels."""
    draw = np.random.default_rng(0)
    sprites = draw.integers(0, 256, (scenes, objects, 64, 64, 4), dtype=np.uint8)
    mono = draw.random((scenes, objects)) < 1 / 3
    compose(sprites[:256], 0, settings=settings, mono=mono[:256])
    start = time.perf_counter()
    compose(sprites, 0, settings=settings, mono=mono)
    return scenes / (time.perf_counter() - start)


if __name__ == "__main__":
    for name, settings in (("PRETRAIN", PRETRAIN), ("TASK", TASK), ("PLAIN", PLAIN)):
        for objects in (1, 2, 5):
            speed = benchmark(objects=objects, settings=settings)
            print(f"{name:8} {objects} object(s): {speed:6.0f} images/s on {torch.get_num_threads()} thread(s)")
