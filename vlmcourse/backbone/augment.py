"""Random resized crops with flips, for a whole batch of tensors at once and with a generator of one's own.

The augmentation of CoOp, Tip-Adapter and most of their successors (torchvision's RandomResizedCrop, then a horizontal
flip). Every image gets its own box: the area is U(scale) of the image, the aspect ratio log-uniform in `ratio`, the
place uniform. Cutting a box and resizing it is linear in the pixels and separable, so one image needs two small
matrices (weights of the antialiased bicubic filter), and a batch two batched products:

    out = A_y  image  A_x^T         A_y (S, H), A_x (S, W)        (a flip reverses the rows of A_x)

Boxes are not rounded to whole pixels; for whole-pixel boxes the result is torchvision's to rounding. Differentiable in
images. Symbols: B images of H x W pixels, S side of the result.
"""

import math

import torch
from torch import Tensor

TRIES = 10  # an area and a ratio may not fit into the image; the first of ten draws that does is taken


def random_resized_crops(
    images: Tensor,
    generator: torch.Generator,
    scale: tuple[float, float] = (0.08, 1.0),
    flip: bool = True,
    size: int | None = None,
    ratio: tuple[float, float] = (3 / 4, 4 / 3),
) -> Tensor:
    """One random crop of each image, resized to `size` (default: the height of the images).

    images: (B, 3, H, W), uint8 (the result is float in [0, 1]) or float (the result keeps the range, not clamped).
    generator: a CPU generator; equal seeds give equal crops on every device. Returns (B, 3, size, size).
    """
    boxes, flips = draw_boxes(len(images), generator, tuple(images.shape[-2:]), scale, ratio)
    return crop_and_resize(images, boxes, flips if flip else None, size or images.shape[-2])


def draw_boxes(
    count: int,
    generator: torch.Generator,
    shape: tuple[int, int],
    scale: tuple[float, float] = (0.08, 1.0),
    ratio: tuple[float, float] = (3 / 4, 4 / 3),
) -> tuple[Tensor, Tensor]:
    """Boxes (count, 4), rows (top, left, height, width) in pixels, inside images of `shape` (H, W); and flips
    (count,)."""
    if not 0 < scale[0] <= scale[1] <= 1:
        raise ValueError(f"scale={scale}, expected two shares of the area with 0 < smallest <= largest <= 1")
    if not 0 < ratio[0] <= ratio[1]:
        raise ValueError(f"ratio={ratio}, expected width / height with 0 < smallest <= largest")
    height, width = shape
    u = torch.rand(count, 2 * TRIES + 3, generator=generator, dtype=torch.float64)
    area = height * width * (scale[0] + (scale[1] - scale[0]) * u[:, :TRIES])  # (count, TRIES)
    low, high = math.log(ratio[0]), math.log(ratio[1])
    aspect = (low + (high - low) * u[:, TRIES : 2 * TRIES]).exp()
    h, w = (area / aspect).sqrt(), (area * aspect).sqrt()
    fits = (h <= height) & (w <= width)
    first = fits.int().argmax(dim=1, keepdim=True)  # the first that fits; 0 if none does
    whole = (min(height, width / ratio[0]), min(width, height * ratio[1]))  # the fallback: as much as the ratio allows
    h = torch.where(fits.any(1), h.gather(1, first)[:, 0], whole[0])
    w = torch.where(fits.any(1), w.gather(1, first)[:, 0], whole[1])
    top, left = u[:, -3] * (height - h), u[:, -2] * (width - w)
    return torch.stack([top, left, h, w], dim=1).float(), u[:, -1] < 0.5


def crop_and_resize(images: Tensor, boxes: Tensor, flips: Tensor | None, size: int) -> Tensor:
    """Cut boxes (B, 4) out of images (B, C, H, W), resize them to size x size, mirror where flips (B,) is true."""
    if images.ndim != 4 or (images.dtype != torch.uint8 and not images.is_floating_point()):
        shape = tuple(images.shape)
        raise ValueError(f"images have shape {shape} and {images.dtype}, expected (B, C, H, W), uint8 or float")
    x = images.float() / 255 if images.dtype == torch.uint8 else images
    batch, channels, height, width = x.shape
    top, left, h, w = boxes.to(x.device, x.dtype).unbind(1)
    rows = filter_weights(top, h, height, size)  # (B, S, H)
    columns = filter_weights(left, w, width, size)  # (B, S, W)
    if flips is not None:
        columns = torch.where(flips.to(x.device)[:, None, None], columns.flip(1), columns)
    x = torch.bmm(x.reshape(batch, channels * height, width), columns.transpose(1, 2))  # (B, C H, S)
    x = x.reshape(batch, channels, height, size).transpose(1, 2).reshape(batch, height, channels * size)
    x = torch.bmm(rows, x).reshape(batch, size, channels, size).transpose(1, 2)  # (B, C, S, S)
    return x.clamp(0, 1) if images.dtype == torch.uint8 else x


def filter_weights(start: Tensor, length: Tensor, n: int, size: int) -> Tensor:
    """Weights (B, size, n) that resample the stretch [start, start + length) of n pixels to `size`: bicubic, a = -1/2.

    Where the stretch shrinks, the filter widens by the same factor (antialiasing). Pixels outside the stretch count
    nothing.
    """
    start, length = start[:, None, None], length[:, None, None]
    step = length / size  # input pixels per output pixel
    centre = start + (torch.arange(size, device=start.device, dtype=start.dtype)[None, :, None] + 0.5) * step
    pixel = torch.arange(n, device=start.device, dtype=start.dtype) + 0.5  # (n,)
    d = ((pixel - centre) / step.clamp(min=1)).abs()  # (B, size, n)
    near, far = (1.5 * d - 2.5) * d * d + 1, ((-0.5 * d + 2.5) * d - 4) * d + 2
    weight = torch.where(d < 1, near, torch.where(d < 2, far, 0.0))
    inside = (pixel - (start + length / 2)).abs() <= (length / 2).clamp(min=0.5)
    weight = weight * inside
    return weight / weight.sum(dim=-1, keepdim=True)
