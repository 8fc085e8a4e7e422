"""Style shifts of finished images. Each function takes images (n, 3, H, W), floats in [0, 1], a level and a `Draw`.

None of them moves anything, so masks and boxes stay right. The two at the end add things to a scene, and get masks
(n, H, W), bool, of where the objects are. What the levels mean stands in `styles.STYLES`.
"""

import math

import torch
from torch.nn import functional as F

from vlmcourse.world import colours
from vlmcourse.world.backgrounds import axes
from vlmcourse.world.colours import luma
from vlmcourse.world.compose import cover, soften


def grey(x, level, draw):
    saturation, contrast = level
    tone = luma(x, 1)[:, None]
    middle = tone.mean((2, 3), keepdim=True)
    return ((1 - saturation) * tone + saturation * x - middle) * contrast + middle


def inverted(x, level, draw):
    change = colours.YIQ_INVERSE @ torch.diag(torch.tensor(level)) @ colours.YIQ
    return torch.einsum("ij,njhw->nihw", change, x - 0.5) + 0.5


def false_colour(x, level, draw):
    turns = torch.where(draw.uniform() < 0.5, -level, level)
    one = torch.ones_like(turns)
    return torch.bmm(colours.jitter_matrix(turns, one, one, 0 * one)[..., :3], x.flatten(2)).view_as(x)


def low_contrast(x, level, draw):
    return (x - 0.62) * level + 0.62


def blur(x, level, draw):
    for dim in (-1, -2):
        at = torch.arange(x.shape[dim], dtype=torch.float32)
        weight = (-(((at - at[:, None]) / (level * x.shape[dim] / 64)).square()) / 2).softmax(
            1
        )  # a Gaussian, edges renormalised
        x = x @ weight.T if dim == -1 else weight @ x
    return x


def noise(x, level, draw):
    return x + draw.normal(*x.shape[1:]) * level


def pixelated(x, level, draw):
    coarse = [min(level, n) for n in x.shape[-2:]]
    return F.interpolate(F.interpolate(x, size=coarse, mode="area"), size=x.shape[-2:], mode="nearest")


def poster(x, level, draw):
    return (x * (level - 1)).round() / (level - 1)


def blocks(x, level, draw):
    k, (height, width) = torch.arange(8.0), x.shape[-2:]
    basis = ((2 * k + 1) * k[:, None] * math.pi / 16).cos() / 2  # cosine transform of 8 pixels
    basis[0] /= math.sqrt(2)
    step = level * (0.25 + 0.2 * (k + k[:, None]))[:, None] * torch.tensor([1.0, 1.5, 1.5])[:, None, None, None, None]
    tiles = F.pad(x, (0, -width % 8, 0, -height % 8), mode="replicate").unflatten(3, (-1, 8)).unflatten(2, (-1, 8))
    waves = torch.einsum("ia,jb,yc,nchawb->nyhiwj", basis, basis, colours.YIQ, tiles)
    waves = (waves / step).round() * step
    tiles = torch.einsum("ia,jb,cy,nyhiwj->nchawb", basis, basis, colours.YIQ_INVERSE, waves)
    return tiles.flatten(4).flatten(2, 3)[..., :height, :width]


def shadow(x, level, draw):
    turn, shift = draw.uniform(2, 1, 1).unbind(1)
    ax, ay = axes(*x.shape[-2:])
    edge = ax * (turn * 2 * math.pi).cos() + ay * (turn * 2 * math.pi).sin() + (shift - 0.5) * 0.6
    return x * (1 - level * (edge * 12 + 0.5).clamp(0, 1))[:, None]


def clutter(x, level, draw, masks):
    number, largest = level
    ax, ay = axes(*x.shape[-2:])
    out = x
    for _ in range(number):
        cx, cy, size, kind, turn, *rest = draw.uniform(8, 1, 1).unbind(1)
        dx, dy, turn = ax - (cx * 2 - 1), ay - (cy * 2 - 1), turn * 2 * math.pi
        p, q = dx * turn.cos() + dy * turn.sin(), dy * turn.cos() - dx * turn.sin()
        disc, box, triangle = (
            (p * p + q * q).sqrt(),
            torch.maximum(p.abs(), 1.5 * q.abs()),
            torch.maximum(-q, 0.87 * p.abs() + q / 2),
        )
        distance = torch.where(kind < 0.34, disc, torch.where(kind < 0.67, box, triangle))
        shape = ((largest * (0.35 + 0.65 * size) - distance) * x.shape[-1] / 2 + 0.5).clamp(0, 1)
        paint = colours.ink(*torch.cat(rest, 1).squeeze(2).unbind(1))
        out = torch.lerp(out, paint[:, :, None, None].expand_as(x), shape[:, None])
    keep = soften(F.max_pool2d(masks[:, None].float(), 3, 1, 1))
    return torch.lerp(out, x, keep)


def occlusion(x, level, draw, masks):
    shape = cover(masks, torch.full((len(x),), level), draw.uniform(3))[:, None]
    return torch.lerp(x, colours.ink(*draw.uniform(3).unbind(1))[:, :, None, None].expand_as(x), shape)
