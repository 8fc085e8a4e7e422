"""Random views of test images, for methods that adapt to one image at a time (TPT and its relatives).

An image's views depend on its pixels and on the seed, not on the images around it nor on their order: the generator of
its crops is seeded by a hash of both. View 0 is the test view (resized, centre crop); the others are random resized
crops with flips, cut from the original image, and mixed by AugMix if wanted.
"""

import hashlib

import torch
from torchvision.transforms.functional import pil_to_tensor

from vlmcourse.backbone import augmix as mixing
from vlmcourse.backbone.augment import crop_and_resize, draw_boxes
from vlmcourse.backbone.images import as_sequence
from vlmcourse.methods.base import full_precision
from vlmcourse.tasks.base import Split


def view_pixels(backbone, image, n_views=64, crop_scale=(0.08, 1.0), augmix=False, seed=0):
    """(V, 3, S, S) in [0, 1]: V = n_views views of one image, a PIL image or a uint8 tensor (3, H, W)."""
    if isinstance(image, torch.Tensor) and image.is_floating_point():
        raise ValueError("the images are preprocessed already; give uint8 or PIL images, from which views can be cut")
    image = image if isinstance(image, torch.Tensor) else pil_to_tensor(image.convert("RGB"))
    number = hashlib.sha256(image.cpu().contiguous().numpy().tobytes() + str(seed).encode()).digest()[:7]
    draw, count = torch.Generator().manual_seed(int.from_bytes(number, "big")), n_views - 1
    plain = backbone.transform.pixels(image, backbone.device)  # (1, 3, S, S)
    boxes, flips = draw_boxes(count, draw, tuple(image.shape[-2:]), crop_scale)
    many = image.to(backbone.device).expand(count, -1, -1, -1)
    crops = crop_and_resize(many, boxes, flips, backbone.image_size)
    if augmix:
        crops = mixing.augmix(crops, torch.rand(count, mixing.NUMBERS, generator=draw))
    return torch.cat([plain, crops])


@torch.no_grad()
def view_features(backbone, x, n_views=64, batch_size=256, **options):
    """(N, V, E) L2-normalised features of the views of a Split or of images. options: as in `view_pixels`."""
    images = as_sequence(x.images if isinstance(x, Split) else x)
    parts, group = [], max(1, batch_size // n_views)  # images whose views are encoded together
    for i in range(0, len(images), group):
        pixels = [view_pixels(backbone, image, n_views, **options) for image in images[i : i + group]]
        parts.append(backbone.encode_image(backbone.normalise(torch.cat(pixels)), batch_size=batch_size))
    return full_precision(torch.cat(parts)).unflatten(0, (-1, n_views))
