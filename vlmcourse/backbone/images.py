"""From pictures to pixels: what the image tower expects, as one small object.

    picture -> RGB -> shorter side resized to S (bicubic, antialiased) -> centre S x S -> [0, 1] -> (x - mean) / std

An S x S picture is not resampled at all, so the embedded tasks reach the tower exactly as they were composed.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torchvision.transforms.functional as TF
from open_clip import OPENAI_DATASET_MEAN, OPENAI_DATASET_STD
from PIL import Image
from torch import Tensor


@dataclass(frozen=True)
class Transform:
    """size: S, the side in pixels. mean, std: per channel. resize_mode: "shortest", or "squash" (loses the aspect)."""

    size: int
    mean: tuple[float, ...] = OPENAI_DATASET_MEAN
    std: tuple[float, ...] = OPENAI_DATASET_STD
    interpolation: str = "bicubic"
    resize_mode: str = "shortest"

    @classmethod
    def of(cls, visual) -> "Transform":
        """The transform that an open_clip image tower was trained with, read from its `preprocess_cfg`."""
        config = getattr(visual, "preprocess_cfg", {})
        size = visual.image_size[0] if isinstance(visual.image_size, tuple) else visual.image_size
        known = {k: config[k] for k in ("mean", "std", "interpolation", "resize_mode") if k in config}
        if known.get("resize_mode", "shortest") not in ("shortest", "squash"):
            raise ValueError(f"resize_mode={known['resize_mode']!r} is not supported; 'shortest' and 'squash' are")
        known |= {k: tuple(known[k]) for k in ("mean", "std") if k in known}
        return cls(size=int(size), **known)

    def pixels(self, images, device: torch.device) -> Tensor:
        """PIL image(s) or uint8 (3, H, W) / (B, 3, H, W) to float (B, 3, S, S) in [0, 1] on `device`."""
        images = as_sequence(images)
        if isinstance(images, Tensor):
            pixels = self.resize(images.to(device))
        else:
            pixels = torch.stack([TF.pil_to_tensor(self.resize(image.convert("RGB"))) for image in images])
        return pixels.to(device).float() / 255

    def resize(self, image):
        """A PIL image or a tensor (..., H, W) at S x S; the same object if it has that size already."""
        mode = TF.InterpolationMode(self.interpolation)
        now = tuple(image.shape[-2:]) if isinstance(image, Tensor) else (image.height, image.width)
        if now == (self.size, self.size):
            return image
        if self.resize_mode == "squash":
            return TF.resize(image, [self.size, self.size], mode, antialias=True)
        return TF.center_crop(TF.resize(image, self.size, mode, antialias=True), [self.size, self.size])


def as_sequence(images) -> Tensor | list[Image.Image]:
    """Images as something that can be sliced: a list of PIL images, or a tensor (B, 3, H, W); TypeError, ValueError."""
    if isinstance(images, Image.Image):
        return [images]
    if isinstance(images, Tensor):
        images = images[None] if images.ndim == 3 and images.dtype == torch.uint8 else images
        if images.ndim != 4 or images.shape[1] != 3 or len(images) == 0:
            raise ValueError(f"images have shape {tuple(images.shape)}, expected (B, 3, H, W) with B >= 1")
        if images.dtype != torch.uint8 and not images.is_floating_point():
            raise TypeError(
                f"images have dtype {images.dtype}, expected uint8 (0..255) or floating point (preprocessed)"
            )
        return images
    if isinstance(images, Sequence) and len(images) and all(isinstance(i, Image.Image) for i in images):
        return list(images)
    kind = type(images).__name__
    raise TypeError(
        f"images are {kind}, expected a PIL image, a non-empty list of PIL images, or a tensor (B, 3, H, W)"
    )
