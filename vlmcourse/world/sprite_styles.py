"""Style shifts of the artwork, before it is composed.

Each function takes sprites (n, 4, h, w) with straight alpha, floats in [0, 1], a level and a `Draw`. It returns
sprites of the same shape, or only the coverage (n, h, w) by a single ink, whose colour `compose` chooses.
"""

import math

import torch
from torch.nn import functional as F

from vlmcourse.world.backgrounds import axes, smooth
from vlmcourse.world.colours import luma
from vlmcourse.world.compose import soften


def _tonal(sprites: torch.Tensor, keep: float) -> torch.Tensor:
    """Coverage (n, h, w) by one ink: full where dark, 1 - keep where white."""
    return sprites[:, 3] * (1 - keep * luma(sprites[:, :3], 1))


def _edges(sprites: torch.Tensor, inner: float) -> torch.Tensor:
    """Lines (n, h, w) along the contour, and along inner edges with the weight `inner`."""
    alpha = sprites[:, 3:]
    tones = torch.cat([alpha * 2, (sprites[:, :3] - 0.5) * alpha * inner], 1)
    wide = F.pad(soften(tones), (1, 1, 1, 1))
    gx, gy = wide[..., 1:-1, 2:] - wide[..., 1:-1, :-2], wide[..., 2:, 1:-1] - wide[..., :-2, 1:-1]
    return ((gx.square() + gy.square()).sqrt().amax(1) - 0.25).clamp(0, 1)


def silhouette(sprites, level, draw):
    return _tonal(sprites, level)


def line_art(sprites, level, draw):
    return _edges(sprites, level)


def sketch(sprites, level, draw):
    wobble, gaps = level
    size = sprites.shape[-1]
    ax, ay = axes(*sprites.shape[-2:])
    shake = (smooth(draw.uniform(2, 9, 9), size) - 0.5) * (wobble * 4 / 32)
    moved = F.grid_sample(sprites, torch.stack([ax, ay], -1) + shake.permute(0, 2, 3, 1), align_corners=False)
    breaks = smooth(draw.uniform(1, 12, 12), size)[:, 0]
    lines = _edges(moved, 2.0) * ((breaks - gaps) * 6 + 0.5).clamp(0, 1)
    hatching = (((ax + 0.6 * ay) * 30 + shake[:, 0] * 20).sin() * 2 - 0.5).clamp(0, 1)
    dark = ((0.6 - luma(moved[:, :3], 1)) * 4).clamp(0, 1) * moved[:, 3]
    return torch.maximum(lines, hatching * dark * 0.8)


def negative_space(sprites, level, draw):
    ax, ay = axes(*sprites.shape[-2:])
    grid = torch.stack([ax, ay], -1).expand(len(sprites), -1, -1, -1) * 1.3
    hole = _tonal(F.grid_sample(sprites, grid, align_corners=False), level)
    card = ((1 - (ax.abs() ** 8 + ay.abs() ** 8)) * 6).clamp(0, 1)
    return card * (1 - hole)


def rotation(sprites, level, draw):
    side, more = draw.uniform(2, low=-1, high=1).unbind(1)
    angle = (side.sign() * level + more * 10) * (math.pi / 180)
    cos, sin = angle.cos(), angle.sin()
    grow = cos.abs() + sin.abs()  # so that no corner is lost
    theta = (
        torch.stack([torch.stack([cos, sin, 0 * cos], 1), torch.stack([-sin, cos, 0 * cos], 1)], 1)
        * grow[:, None, None]
    )
    flat = torch.cat([sprites[:, :3] * sprites[:, 3:], sprites[:, 3:]], 1)
    turned = F.grid_sample(flat, F.affine_grid(theta, list(flat.shape), align_corners=False), align_corners=False)
    return torch.cat([turned[:, :3] / turned[:, 3:].clamp(min=1e-4), turned[:, 3:]], 1)
