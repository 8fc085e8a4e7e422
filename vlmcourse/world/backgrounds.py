"""Backgrounds of scenes: plain colours, patterns and soft textures between two named colours a and b.

A kind is a function of colours and random numbers to images: almost always a mixing field t (n, S, S) in [0, 1] with
    image = (1 - t) a + t b.
The two colours of a pattern differ little in lightness (`SPREAD`), so that some ink is visible on both. Colours are
chosen so that the rims of the coloured objects stand out.
"""

import functools
import math
from collections.abc import Callable

import torch
from torch.nn import functional as F

from vlmcourse.world.colours import NAMES, RGB, luma
from vlmcourse.world.draws import Draw

SPREAD = 0.36  # greatest difference of luma between the two colours of a pattern
TRIES = 5  # colour pairs tried per scene for one on which every object stands out
RIM = 0.28  # wanted difference (largest channel) between the rim of an object and the background
SKY = ("blue", "turquoise", "orange", "pink", "purple", "grey", "black")
GROUND = ("green", "brown", "yellow", "beige", "white", "grey", "orange")
PAPER = ("white", "beige", "grey", "yellow", "pink")


@functools.lru_cache(maxsize=8)
def axes(height: int, width: int | None = None) -> tuple[torch.Tensor, torch.Tensor]:
    """Pixel centres x, y (height, width) in [-1, 1]; y grows downwards; square if only one length is given."""
    y, x = ((torch.arange(n) + 0.5) * 2 / n - 1 for n in (height, width or height))
    y, x = torch.meshgrid(y, x, indexing="ij")
    return x.contiguous(), y.contiguous()


def mix(a: torch.Tensor, b: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
    """(1 - t) a + t b for colours a, b (n, 3) and a field t (n, S, S): (n, 3, S, S)."""
    return torch.addcmul(a[:, :, None, None], (b - a)[:, :, None, None], t[:, None])


def turned(u: torch.Tensor, size: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Coordinates p, q (n, S, S) rotated by u[:, 0] turns."""
    x, y = axes(size)
    cos, sin = (u[:, 0] * 2 * math.pi).cos()[:, None, None], (u[:, 0] * 2 * math.pi).sin()[:, None, None]
    return x * cos + y * sin, y * cos - x * sin


def waves(u: torch.Tensor, size: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Two crossed waves (n, S, S) of 1 to 3.5 periods per image, and how sharp they are (n, 1, 1)."""
    p, q = turned(u, size)
    k = ((1 + 2.5 * u[:, 1]) * math.pi)[:, None, None]
    phase = (u[:, 2] * 2 * math.pi)[:, None, None]
    return (p * k + phase).sin_(), (q * k + phase).sin_(), (1 + 5 * u[:, 3])[:, None, None]


def smooth(noise: torch.Tensor, size: int) -> torch.Tensor:
    """Coarse noise (n, c, g, g) enlarged to (n, c, S, S)."""
    return F.interpolate(noise, size=(size, size), mode="bicubic", align_corners=False).clamp_(0, 1)


def plain(a, b, u, noise, grain):
    return a[:, :, None, None].expand(-1, -1, *grain.shape[-2:])


def gradient(a, b, u, noise, grain):
    p, q = turned(u, grain.shape[-1])
    radial = (p.square() + q.square()).sqrt_()
    return mix(a, b, torch.where(u[:, 3, None, None] < 0.7, 0.5 + 0.45 * p, radial * 0.8).clamp_(0, 1))


def stripes(a, b, u, noise, grain):
    p, _, sharp = waves(u, grain.shape[-1])
    return mix(a, b, (0.5 + p * sharp).clamp_(0, 1))


def checks(a, b, u, noise, grain):
    p, q, sharp = waves(u, grain.shape[-1])
    return mix(a, b, (0.5 + p * q * sharp * 1.5).clamp_(0, 1))


def dots(a, b, u, noise, grain):
    p, q, sharp = waves(u, grain.shape[-1])
    return mix(a, b, ((p + q - 1.0) * (1 + sharp)).clamp_(0, 1))


def clouds(a, b, u, noise, grain):
    t = smooth(noise, grain.shape[-1])[:, 0] * (0.35 + 0.4 * u[:, 1, None, None])
    return mix(a, torch.where(luma(a)[:, None] > 0.85, a * 0.7, torch.ones_like(a)), t)


def blobs(a, b, u, noise, grain):
    t = smooth(noise[:, :, :4, :4], grain.shape[-1])
    third = (a + b) * (0.25 + 0.5 * u[:, 1, None])  # a darker or lighter mixture
    first = mix(a, b, ((t[:, 0] - 0.5) * 3 + 0.5).clamp_(0, 1))
    return first + ((t[:, 1:2] - 0.5) * 2).clamp_(0, 1) * (third[:, :, None, None].clamp(0, 1) - first)


def paper(a, b, u, noise, grain):
    pale = mix(a * 0.5 + 0.5, a * 0.5 + 0.42, smooth(noise, grain.shape[-1])[:, 0])
    return pale + grain[:, :1] * 0.025


def landscape(a, b, u, noise, grain):
    x, y = axes(grain.shape[-1])
    wave = (x * (1 + 3 * u[:, 1, None, None]) + u[:, 2, None, None] * 6).sin() * 0.12 * u[:, 3, None, None]
    horizon = (u[:, 0, None, None] - 0.4) * 0.8 + wave
    t = ((y - horizon) * (4 + 30 * u[:, 4, None, None]) + 0.5).clamp_(0, 1)
    return mix(a, b, t) + (0.06 - 0.12 * (y - horizon).abs())[:, None] + grain[:, :1] * 0.03 * t[:, None]


KINDS: dict[str, Callable] = {
    "plain": plain, "gradient": gradient, "stripes": stripes, "checks": checks, "dots": dots, "clouds": clouds,
    "blobs": blobs, "paper": paper, "landscape": landscape,
}  # fmt: skip
PHRASES = {
    "plain": "{a}", "gradient": "{a} and {b} gradient", "stripes": "{a} and {b} striped",
    "checks": "{a} and {b} checked", "dots": "{a} and {b} dotted", "clouds": "cloudy {a}",
    "blobs": "blurred {a} and {b}", "paper": "{a} paper",
    "landscape": "{b} and {a} landscape",
}  # fmt: skip
ONE_COLOUR = ("plain", "clouds", "paper")


@functools.lru_cache(maxsize=64)
def colour_pairs(kind: str, colours: tuple[str, ...]) -> torch.Tensor:
    """Pairs of colour numbers (P, 2) that `kind` may use, out of the named `colours`."""
    wanted = [NAMES.index(name) for name in colours]
    bright = luma(RGB)
    if kind in ONE_COLOUR:
        pool = [(i, i) for i in wanted if kind != "paper" or NAMES[i] in PAPER]
        pairs = pool or [(i, i) for i in wanted]
    else:
        pairs = [(i, j) for i in wanted for j in wanted if i != j and abs(bright[i] - bright[j]) <= SPREAD]
        if kind == "landscape":
            pairs = [(i, j) for i, j in pairs if NAMES[i] in SKY and NAMES[j] in GROUND] or pairs
    return torch.tensor(pairs or [(i, i) for i in wanted])


def paint(
    draw: Draw, size: int, settings, rim: torch.Tensor, rim_weight: torch.Tensor, grain: torch.Tensor
) -> tuple[torch.Tensor, list[tuple[str, tuple[str, ...], str]]]:
    """Backgrounds for `draw.n` scenes.

    settings: SceneSettings (kinds, colours, tint). rim (n, K, P, 3) and rim_weight (n, K, P): colours at the rims
    of the objects, from which the background should differ (weight 0: no wish). grain (n, 3, S, S): zero-mean noise.
    Returns images (n, 3, S, S) float in [0, 1], and per scene (kind, colour names, phrase for "on a ... background").
    """
    names = [name for name, _ in settings.kinds]
    weights = torch.tensor([weight for _, weight in settings.kinds])
    edges = (weights / weights.sum()).cumsum(0)[:-1].contiguous()
    kind = torch.bucketize(draw.uniform(), edges, right=True)  # (n,)
    picks, tint = draw.uniform(TRIES), draw.uniform(2, 3, low=-settings.tint, high=settings.tint)
    u, noise = draw.uniform(5), draw.uniform(2, 6, 6)
    tables = [colour_pairs(name, settings.colours) for name in names]
    counts = torch.tensor([len(table) for table in tables])
    table = torch.nn.utils.rnn.pad_sequence(tables, batch_first=True)  # (kinds, P, 2)
    tried = table[kind[:, None], (picks * counts[kind][:, None]).long()]  # (n, TRIES, 2)
    ends = RGB[tried]  # (n, TRIES, 2, 3)
    cloudy = torch.tensor([name == "clouds" for name in names])[kind][:, None, None]
    between = torch.where(cloudy, ends[:, :, 0] * 0.6 + 0.4, ends.mean(2))
    chosen = tried[
        torch.arange(draw.n), stand_out(rim, rim_weight, torch.cat([ends, between[:, :, None]], 2))
    ]  # (n, 2)
    a, b = (RGB[chosen] + tint).clamp(0, 1).unbind(1)
    canvas = torch.empty(draw.n, 3, size, size)
    for index, name in enumerate(names):
        rows = (kind == index).nonzero()[:, 0]
        if len(rows):
            canvas[rows] = KINDS[name](a[rows], b[rows], u[rows], noise[rows], grain[rows])
    words = []
    for k, (first, second) in zip(kind.tolist(), chosen.tolist(), strict=True):
        pair = (NAMES[first], NAMES[second])
        used = pair[:1] if names[k] in ONE_COLOUR else pair
        words.append((names[k], used, PHRASES[names[k]].format(a=pair[0], b=pair[1])))
    return canvas.clamp_(0, 1), words


def stand_out(rim: torch.Tensor, weight: torch.Tensor, tried: torch.Tensor) -> torch.Tensor:
    """Number (n,) of the first of T sets of colours (n, T, c, 3) that differs enough from all rims, else the best."""
    gap = (rim[:, None, None] - tried[:, :, :, None, None]).abs().amax(-1)  # (n, T, c, K, P)
    total = weight.sum(-1)[:, None, None]  # (n, 1, 1, K)
    mean = (gap * weight[:, None, None]).sum(-1) / total.clamp(min=1e-6)
    worst = torch.where(total > 0, mean, 1.0).amin((2, 3))  # (n, T)
    return torch.where(worst.amax(1) >= RIM, (worst >= RIM).float().argmax(1), worst.argmax(1))
