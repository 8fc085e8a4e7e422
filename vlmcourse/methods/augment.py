"""Which view of a training image a step sees, for methods that need image features and not pixels.

The image tower is frozen, so its features can be computed once; what that costs is the variety of the augmentation:
    views = 1      the plain test view, once: no augmentation, fastest
    views = n > 1  n random resized crops (with flips) of every image, once; each step draws one of the n for each image
    views = None   a fresh crop at every step, as the official trainers do: the image tower runs at every step
In T epochs an image is seen T times: in one, n or T versions.
"""

import torch
import torch.nn.functional as F

from vlmcourse.backbone.augment import random_resized_crops
from vlmcourse.backbone.features import POOLED, image_features
from vlmcourse.methods.base import full_precision


def raw_views(backbone, split, views, crop_scale, seed, encoder=POOLED, flip=True):
    """(views, N, E) features of random resized crops, not normalised; views = 0: the test view, as (1, N, E)."""
    if views == 0:
        return image_features(backbone, split, normalise=False, encoder=encoder)[None]
    options = {"crop_scale": crop_scale, "seed": seed, "encoder": encoder, "flip": flip}
    return image_features(backbone, split, views=views, normalise=False, **options)


class TrainingFeatures:
    """features(indices) -> (b, E) L2-normalised features of training images; `labels` (N,) on the same device.

    encoder: what is computed of an image, see features.Encoder; another than POOLED gives (b, ...).

    views: see above. crop_scale: smallest and largest share of the area that a crop keeps. seed: of the crops and of
    the draws between them. flip: mirror half of the crops. ValueError for other views or shares.
    """

    def __init__(self, backbone, split, *, views=1, crop_scale=(0.08, 1.0), seed=0, encoder=POOLED, flip=True):
        if views is not None and (not isinstance(views, int) or views < 1):
            raise ValueError(
                f"views={views!r} must be 1 (test view), a whole number of cached crops, or None (fresh crops)"
            )
        if len(tuple(crop_scale)) != 2 or not 0 < crop_scale[0] <= crop_scale[1] <= 1:
            raise ValueError(f"crop_scale={crop_scale!r} must be (smallest, largest) with 0 < smallest <= largest <= 1")
        self.backbone, self.split, self.crop_scale, self.encoder = backbone, split, crop_scale, encoder
        self.flip = flip
        self.labels = split.labels.to(backbone.device)
        self.draw = torch.Generator().manual_seed(seed + 1_000_003)  # another stream than the shuffling's
        self.views = None
        if views is not None:
            self.views = raw_views(backbone, split, 0 if views == 1 else views, crop_scale, seed, encoder, flip)

    @torch.no_grad()
    def __call__(self, indices):
        if self.views is None:
            images = self.split.images[indices].to(self.backbone.device)
            options = {"scale": self.crop_scale, "flip": self.flip, "size": self.backbone.image_size}
            crops = random_resized_crops(images, self.draw, **options)
            chosen = self.encoder(self.backbone, self.backbone.normalise(crops))
        else:
            view = torch.randint(len(self.views), (len(indices),), generator=self.draw)
            chosen = self.views[view, indices]  # (b, E)
        chosen = full_precision(chosen)
        return F.normalize(chosen, dim=-1) if self.encoder.unit else chosen
