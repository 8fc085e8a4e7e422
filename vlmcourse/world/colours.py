"""Named colours, colour jitter as one matrix, and inks that stay visible.

All colours are sRGB in [0, 1]. Sprites are premultiplied (rgb already times alpha), so that an affine change of colour
    rgb' = M rgb + m alpha            M (3, 3), m (3,)
is exact at half-covered pixels too. Jitter of hue, saturation, contrast and brightness, and the recolouring of
monochrome artwork (M = 0, m = ink), are all of this form: one (3, 4) matrix per object.
"""

import math

import torch

COLOURS: dict[str, tuple[int, int, int]] = {
    "red": (214, 48, 44), "orange": (245, 140, 40), "yellow": (250, 218, 64), "green": (62, 160, 72),
    "turquoise": (64, 190, 190), "blue": (52, 104, 208), "purple": (128, 72, 180), "pink": (246, 150, 186),
    "brown": (126, 82, 50), "beige": (226, 208, 172), "black": (24, 24, 26), "white": (250, 250, 250),
    "grey": (150, 152, 154),
}  # fmt: skip
NAMES = tuple(COLOURS)
RGB = torch.tensor([COLOURS[name] for name in NAMES], dtype=torch.float32) / 255  # (13, 3)
LUMA = torch.tensor([0.299, 0.587, 0.114])
CONTRAST = 0.30  # least difference of luma between an ink and what is behind it
# luma and two chroma axes (YIQ): hue is the angle, saturation the length of (I, Q)
YIQ = torch.tensor([[0.299, 0.587, 0.114], [0.5959, -0.2746, -0.3213], [0.2115, -0.5227, 0.3112]])
YIQ_INVERSE = torch.linalg.inv(YIQ)


def luma(rgb: torch.Tensor, dim: int = -1) -> torch.Tensor:
    """Perceived lightness in [0, 1] of colours whose channels lie along `dim`, which is removed."""
    r, g, b = rgb.unbind(dim)
    return 0.299 * r + 0.587 * g + 0.114 * b


def ink(hue: torch.Tensor, lightness: torch.Tensor, purity: torch.Tensor) -> torch.Tensor:
    """Colours (..., 3) of the wanted hue and luma, both (...) in [0, 1); purity (...) from 0 (greyish) to 1 (full)."""
    k = (torch.tensor([5.0, 3.0, 1.0]) + hue[..., None] * 6) % 6
    pure = 1 - torch.minimum(k, 4 - k).clamp(0, 1)
    own, wanted = luma(pure)[..., None], lightness[..., None]
    full = torch.where(wanted < own, pure * (wanted / own), pure + (1 - pure) * (wanted - own) / (1 - own))
    return wanted + (full - wanted) * (0.4 + 0.6 * purity[..., None])


def jitter_matrix(
    hue: torch.Tensor, saturation: torch.Tensor, contrast: torch.Tensor, brightness: torch.Tensor
) -> torch.Tensor:
    """Changes of colour (...) as matrices (..., 3, 4): hue in turns, factors of saturation and contrast, brightness."""
    angle, zero = hue * 2 * math.pi, torch.zeros_like(hue)
    cos, sin = angle.cos() * saturation, angle.sin() * saturation
    rows = [torch.ones_like(hue), zero, zero, zero, cos, -sin, zero, sin, cos]
    turn = YIQ_INVERSE @ torch.stack(rows, -1).unflatten(-1, (3, 3)) @ YIQ
    offset = (0.5 * (1 - contrast) + brightness)[..., None, None].expand(*hue.shape, 3, 1)
    return torch.cat([turn * contrast[..., None, None], offset], -1)


def ink_matrix(ink: torch.Tensor) -> torch.Tensor:
    """Inks (..., 3) as matrices (..., 3, 4) that paint every covered pixel in the ink."""
    return torch.cat([torch.zeros(*ink.shape, 3), ink[..., None]], -1)


def recolour(premultiplied: torch.Tensor, matrix: torch.Tensor) -> torch.Tensor:
    """Apply `matrix` (n, 3, 4) to premultiplied RGBA (n, 4, H, W) in [0, 1]; returns premultiplied RGB (n, 3, H, W)."""
    rgb = torch.bmm(matrix, premultiplied.flatten(2)).unflatten(-1, premultiplied.shape[-2:])
    return torch.minimum(rgb.clamp_(min=0), premultiplied[:, 3:])


def visible_ink(inks: torch.Tensor, canvas: torch.Tensor, alpha: torch.Tensor) -> torch.Tensor:
    """The first of the wanted inks (n, I, 3) that is visible on the canvas (n, 3, H, W) under alpha (n, H, W).

    Contrast is the difference of luma, less the spread of luma under the object. Black and white are tried last; if
    nothing reaches `CONTRAST`, the ink of highest contrast is taken. Returns (n, 3).
    """
    weight = alpha / alpha.sum((1, 2), keepdim=True).clamp(min=1e-6)
    below = luma(canvas, 1)
    mean = (below * weight).sum((1, 2))
    spread = ((below.square() * weight).sum((1, 2)) - mean.square()).clamp(min=0).sqrt()
    extremes = torch.tensor([0.04, 0.98])[:, None].expand(len(inks), 2, 3)
    inks = torch.cat([inks, extremes], 1)
    contrast = (luma(inks) - mean[:, None]).abs() - spread[:, None]  # (n, I + 2)
    first = (contrast >= CONTRAST).float().argmax(1)
    best = torch.where(contrast.amax(1) >= CONTRAST, first, contrast.argmax(1))
    return inks[torch.arange(len(inks)), best]
