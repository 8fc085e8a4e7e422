"""What methods of dense prediction share: a map of scores per class, and from it a class for every pixel.

    maps S (B, C, h, w)  --bilinear, align_corners False-->  logits (B, C, H, W)  --argmax-->  masks (B, H, W)

A dense method is a Method whose `_maps(features)` gives S from what its `encoder` computes of the images. `logits`,
`probabilities` and `predict` are per pixel, and `score` is the pixel accuracy.
"""

import torch
import torch.nn.functional as F

from vlmcourse.backbone.features import Encoder
from vlmcourse.methods.base import Method
from vlmcourse.methods.class_text import class_features
from vlmcourse.tasks.segmentation import IGNORE, MaskSplit
from vlmcourse.tasks.split import Split

CHUNK = 64  # images whose full-size logits are kept at a time


class DenseMethod(Method):
    """Base of methods that segment; `_maps(features)` is for the subclass to write. `size` below: (H, W) of the
    result, None: that of the images given, or of the backbone's images where `x` holds features."""

    def _maps(self, features):
        raise NotImplementedError(f"{type(self).__name__} must define _maps(features)")

    def _chunks(self, x):
        """Parts of x, at most CHUNK images each."""
        if isinstance(x, Split):
            if self.encoder(self.backbone, x.images[:1]).nbytes * len(x) > 2**28:  # too much to keep for all
                x = x.images
            else:
                x = self.inputs(x)
        if isinstance(x, torch.Tensor) and (x.ndim > 3 or x.is_floating_point()):
            return x.split(CHUNK)
        return (x,)

    @torch.no_grad()
    def score_maps(self, x):
        """S (N, C, h, w) float32, as the method compares them. x: a Split, images, or features of its encoder."""
        self._require_fit()
        return torch.cat([self._selected(part) for part in self._chunks(x)])

    def _selected(self, part):
        maps = self._maps(self.inputs(part)).float()
        return maps if self._columns is None else maps[:, self._columns]  # what for_classes kept

    @torch.no_grad()
    def logits(self, x, size=None):
        """(N, C, H, W) float32: the score maps, enlarged."""
        return enlarge(self.score_maps(x), size or self._size(x))

    @torch.no_grad()
    def segment(self, x, size=None):
        """(N, H, W) long: the class of every pixel."""
        self._require_fit()
        size = size or self._size(x)
        parts = [enlarge(self._selected(part), size).argmax(dim=1) for part in self._chunks(x)]
        return torch.cat(parts)

    predict = segment

    def probabilities(self, x, size=None):
        """(N, C, H, W) softmax of the logits over the classes."""
        return self.logits(x, size).softmax(dim=1)

    def score(self, split):
        """Pixel accuracy in [0, 1] on a split with masks for these classes; mIoU is in evaluation/segmentation.py."""
        self._require_fit()
        if not isinstance(split, MaskSplit) or split.class_names != self.class_names:
            raise ValueError(f"split={split!r} must be a MaskSplit with the method's own classes; see for_classes")
        counts = split.labels != IGNORE
        return (self.segment(split).cpu() == split.labels)[counts].double().mean().item()

    def as_supervision(self, split):
        """A split with the same images, labelled by this method: masks for whoever wants to learn without any."""
        masks = self.segment(split).to(torch.uint8).cpu()
        name = f"{split.name} labelled by {self.card.name}"
        return MaskSplit(split.images, masks, self.class_names, self.templates, name)

    def _size(self, x):
        if isinstance(x, Split):
            return tuple(x.images.shape[-2:])
        if isinstance(x, torch.Tensor) and x.dtype == torch.uint8:
            return tuple(x.shape[-2:])
        return (self.backbone.image_size,) * 2


def enlarge(maps, size):
    """Maps (B, C, h, w) as (B, C, H, W), bilinear, align_corners False."""
    return F.interpolate(maps, size=tuple(size), mode="bilinear", align_corners=False)


def as_grid(features):
    """Features (B, P, E) of a square grid, row by row, as (B, E, h, w)."""
    side = round(features.shape[1] ** 0.5)
    return features.transpose(1, 2).unflatten(2, (side, side))


def local_encoder(path, side=None):
    """Joint-space features of all positions, (n, P, E), see `Backbone.dense_features`; side: images are enlarged to
    side x side pixels first, so that the grid is finer than the one the tower was trained on."""

    def encode(backbone, images, batch_size):
        if side is not None:
            ready = isinstance(images, torch.Tensor) and images.is_floating_point()
            pixels = images if ready else backbone.preprocess(images)
            images = F.interpolate(pixels, size=(side, side), mode="bicubic", align_corners=False, antialias=True)
        return backbone.dense_features(images, path, batch_size, normalise=False).flatten(2).transpose(1, 2)

    return Encoder(f"local:{path}" + (f"@{side}" if side else ""), encode, ndim=3)


class WholeImage(DenseMethod):
    """The reference that needs no dense features: zero-shot CLIP's scores of the whole image at every pixel."""

    def _fit(self, train, val):
        self.text = class_features(self.backbone, self.class_names, self.templates)  # (C, E)

    def _maps(self, features):
        return (features @ self.text.T)[:, :, None, None]
