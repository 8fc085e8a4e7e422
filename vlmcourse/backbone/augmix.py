"""AugMix (Hendrycks et al., ICLR 2020, arXiv 1912.02781) for a batch of pictures, as test-time methods use it.

    out = m x + (1 - m) sum_i w_i chain_i(x)      w ~ Dirichlet(1, 1, 1), m ~ Beta(1, 1); three chains of 1 to 3 ops

Every op is drawn uniformly from nine; its strength from `severity` (1 in TPT): autocontrast, equalize, posterize,
rotate, solarize, shear in x and y, translate in x and y. Pictures are mixed as pixels in [0, 1]; mixing them after
normalisation, as the official code does, is the same, because the weights sum to 1. Strengths that the official code
states in pixels of a 224 x 224 picture are scaled with the side. All operations run on the whole batch, op by op.
"""

import torch
import torch.nn.functional as F
from torch import Tensor
from torchvision.transforms.v2 import functional as TF

OPS = (
    "autocontrast",
    "equalize",
    "posterize",
    "rotate",
    "solarize",
    "shear_x",
    "shear_y",
    "translate_x",
    "translate_y",
)
CHAINS = DEPTH = 3
NUMBERS = 1 + CHAINS + CHAINS * (1 + 3 * DEPTH)  # uniform numbers that one picture needs


def augmix(pixels: Tensor, u: Tensor, severity: float = 1.0) -> Tensor:
    """One mixed version of each picture. pixels (N, 3, S, S) float in [0, 1]; u (N, NUMBERS) uniform in [0, 1), which
    decides everything, so equal numbers give equal pictures. Returns (N, 3, S, S)."""
    if pixels.ndim != 4 or u.shape != (len(pixels), NUMBERS):
        raise ValueError(f"pixels {tuple(pixels.shape)} and u {tuple(u.shape)} must be (N, 3, S, S) and (N, {NUMBERS})")
    u = u.to(pixels)
    m = u[:, 0]  # Beta(1, 1) is uniform
    w = -torch.log1p(-u[:, 1 : 1 + CHAINS])
    w = w / w.sum(1, keepdim=True)  # normalised exponentials: Dirichlet(1, 1, 1)
    rest = u[:, 1 + CHAINS :].unflatten(1, (CHAINS, -1))  # (N, CHAINS, 1 + 3 DEPTH)
    mix = torch.zeros_like(pixels)
    for i in range(CHAINS):
        length = 1 + (rest[:, i, 0] * DEPTH).long()  # 1 to 3 ops
        op, strength, sign = rest[:, i, 1:].unflatten(1, (3, DEPTH)).unbind(1)  # (N, DEPTH) each
        x = pixels
        for d in range(DEPTH):
            kind = torch.where(length > d, (op[:, d] * len(OPS)).long(), -1)
            level = 0.1 + (severity - 0.1) * strength[:, d]
            x = apply_ops(x, kind, level, torch.where(sign[:, d] > 0.5, -1.0, 1.0))
        mix = mix + w[:, i, None, None, None] * x
    return m[:, None, None, None] * pixels + (1 - m)[:, None, None, None] * mix


def apply_ops(x: Tensor, kind: Tensor, level: Tensor, sign: Tensor) -> Tensor:
    """Picture n through op OPS[kind[n]] (-1: none) of strength level[n]. x (N, 3, S, S), the others (N,)."""
    x, side = x.clone(), x.shape[-1]
    for k, name in enumerate(OPS[:5]):
        n = (kind == k).nonzero()[:, 0]
        if len(n) and name != "rotate":
            x[n] = TONES[name](x[n], level[n, None, None, None])
    one, zero = torch.ones_like(level), torch.zeros_like(level)
    shear, move = 0.03 * level, (level * side / 30).trunc()
    angle = torch.where(kind == OPS.index("rotate"), sign * (3 * level).trunc(), 0).deg2rad()
    b = torch.where(kind == OPS.index("shear_x"), sign * shear, zero)
    c = torch.where(kind == OPS.index("shear_y"), sign * shear, zero)
    tx = torch.where(kind == OPS.index("translate_x"), sign * move, zero)
    ty = torch.where(kind == OPS.index("translate_y"), sign * move, zero)
    centre = side / 2 * (one - angle.cos())
    rows = torch.stack(
        [
            torch.stack([angle.cos(), b - angle.sin(), tx + centre + side / 2 * angle.sin()], 1),
            torch.stack([c + angle.sin(), angle.cos(), ty + centre - side / 2 * angle.sin()], 1),
        ],
        1,
    )  # (N, 2, 3): where in the picture an output pixel is read, in pixels from the top left corner
    moved = (rows - torch.eye(2, 3).to(rows)).abs().flatten(1).max(1).values > 0
    n = moved.nonzero()[:, 0]
    if len(n):
        x[n] = warp(x[n], rows[n])
    return x


def warp(x: Tensor, matrix: Tensor) -> Tensor:
    """Pictures (N, 3, S, S) read at matrix (N, 2, 3) times (column, row, 1), bilinear, black outside."""
    side = x.shape[-1]
    at = torch.arange(side, device=x.device, dtype=x.dtype) + 0.5
    grid = torch.stack(
        [at.expand(side, side), at[:, None].expand(side, side), torch.ones_like(at).expand(side, side)], -1
    )
    source = torch.einsum("nij,hwj->nhwi", matrix, grid)  # (N, S, S, 2)
    return F.grid_sample(x, 2 * source / side - 1, mode="bilinear", padding_mode="zeros", align_corners=False)


def _autocontrast(x, level):
    low, high = x.amin((2, 3), keepdim=True), x.amax((2, 3), keepdim=True)
    return torch.where(high > low, (x - low) / (high - low).clamp(min=1e-6), x)


def _equalize(x, level):
    return TF.equalize((255 * x).round().clamp(0, 255).to(torch.uint8)).to(x) / 255


def _posterize(x, level):
    step = 2 ** (4 + (level * 4 / 10).trunc())  # 4 bits are left, less when the level is high
    return ((255 * x).round() / step).floor() * step / 255


def _solarize(x, level):
    return torch.where((255 * x).round() >= 256 - (level * 25.6).trunc(), 1 - x, x)


TONES = {"autocontrast": _autocontrast, "equalize": _equalize, "posterize": _posterize, "solarize": _solarize}
