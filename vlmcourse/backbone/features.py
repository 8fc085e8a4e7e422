"""Image features, computed once and kept on disk: what is frozen need not be encoded twice.

A frozen tower gives the same feature for the same picture, so a method that trains on features can read them from a
file. The file's name is a hash of everything that the numbers depend on (weights, transform, tokenizer, precision,
pictures, views), so features of another model or another data set can never be picked up. Files hold raw (not
normalised) features.

What is kept is the pooled feature of an image, or, as an `Encoder` says, something else that the frozen tower makes of
it: `local(path)` the joint-space features of its P positions, methods may define others.

Rules: a file is whole or absent; a damaged one is computed again, with a warning; two processes that want the same
features wait for each other and compute once; a full or read-only disk costs a warning, not the result.
"""

import dataclasses
import hashlib
import json
import warnings
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

import torch
import torch.nn.functional as F
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from vlmcourse.backbone.augment import crop_and_resize, draw_boxes
from vlmcourse.files import atomic_write, lock, remove_leftovers
from vlmcourse.paths import cache_dir

FORMAT = 1  # raise it when the same settings give other numbers
LARGEST = 2**28  # bytes of one cache file; what is larger is computed each time
SMALL = 2048  # images; a split cut from one of this size shares its features


@dataclasses.dataclass(frozen=True)
class Encoder:
    """What is computed once for each image. Equal names must mean equal numbers: the name is part of the cache's key.

    function: (backbone, images, batch_size) -> (n, ...), raw. ndim: of the result. unit: whether its last axis holds
    directions, to be L2-normalised before use.
    """

    name: str
    function: Callable[..., Tensor]
    ndim: int = 2
    unit: bool = True

    def __call__(self, backbone, images, batch_size: int = 256) -> Tensor:
        return self.function(backbone, images, batch_size)


def _pooled(backbone, images, batch_size: int) -> Tensor:
    return backbone.encode_image(images, batch_size=batch_size, normalise=False)


POOLED = Encoder("pooled", _pooled)  # (n, E)


def local(path: str, with_pooled: bool = False) -> Encoder:
    """Features of all positions, (n, P, E), row by row; path: see `dense_features`. with_pooled: the pooled one too."""

    def encode(backbone, images, batch_size: int) -> Tensor:
        dense = backbone.dense_features(images, path, batch_size, normalise=False).flatten(2).transpose(1, 2)
        return torch.cat([_pooled(backbone, images, batch_size)[:, None], dense], dim=1) if with_pooled else dense

    return Encoder("pooled+" * with_pooled + f"local:{path}", encode, ndim=3)


def image_features(
    backbone,
    split,
    views: int = 1,
    crop_scale: tuple[float, float] | None = None,
    flip: bool = True,
    seed: int = 0,
    cache: bool = True,
    normalise: bool = True,
    batch_size: int = 256,
    encoder: Encoder = POOLED,
) -> Tensor:
    """Features of a split's images, on the backbone's device and in its precision, without gradients.

    split: has `images` (uint8 (N, 3, H, W)), `fingerprint` (`image_fingerprint` goes first) and a length N. With views
    = 1 and no crop_scale: the test view (resized, centre crop), shape (N, E). Otherwise random resized crops, shape
    (views, N, E): the area is drawn from crop_scale (default 0.08 to 1), mirrored half of the time if `flip`,
    reproducible by `seed`. normalise: L2-normalised (default), or raw. cache: False neither reads nor writes files.
    encoder: POOLED, or another with shape (N, ...) in place of (N, E).
    """
    if not isinstance(views, int) or views < 1:
        raise ValueError(f"views={views!r}, expected an integer of at least 1")
    pictures = getattr(split, "image_fingerprint", None) or split.fingerprint
    settings = {"format": FORMAT, "backbone": backbone.fingerprint, "split": pictures, "view": "test"}
    settings["device"] = backbone.device.type  # devices round differently; results must not depend on who came first
    if encoder.name != POOLED.name:
        settings["encoder"] = encoder.name
    augmented = views > 1 or crop_scale is not None
    if not augmented and cache and (whole := _worth_sharing(backbone, split, encoder)):
        root, rows = whole
        features = image_features(backbone, root, normalise=normalise, batch_size=batch_size, encoder=encoder)
        return features[rows.to(features.device)]
    if augmented:
        scale = tuple(map(float, crop_scale or (0.08, 1.0)))
        settings |= {"view": "crop", "views": views, "scale": scale, "flip": bool(flip), "seed": int(seed)}

    @torch.no_grad()
    def compute() -> Tensor:
        if not augmented:
            return encoder(backbone, split.images, batch_size).cpu()
        generator = torch.Generator().manual_seed(seed)
        return torch.stack(
            [_one_view(backbone, encoder, split.images, generator, scale, flip, batch_size) for _ in range(views)]
        )

    features = _cached(settings, compute) if cache else compute()
    features = features.to(backbone.device)
    return F.normalize(features, dim=-1) if normalise else features


def _worth_sharing(backbone, split, encoder: Encoder) -> tuple | None:
    """(whole, rows): what `split` was cut from and where its images lie in it, if the whole had better be encoded.

    Draws of several seeds, shots and halves of the classes overlap: encoded together, no image is encoded twice. Not so
    where the whole is large and little of it is wanted, or too large to keep.
    """
    root, rows = getattr(split, "origin", (split, None))
    if root is split or len(root) > max(SMALL, 4 * len(split)):
        return None
    fits = encoder.ndim <= 2 or len(root) * encoder(backbone, split.images[:1]).nbytes <= LARGEST
    return (root, rows) if fits else None


def _one_view(backbone, encoder: Encoder, images: Tensor, generator, scale, flip: bool, batch_size: int) -> Tensor:
    """One random crop of every image, encoded: (N, ...) on the CPU."""
    boxes, flips = draw_boxes(len(images), generator, tuple(images.shape[-2:]), scale)
    parts = []
    for i in range(0, len(images), batch_size):
        part = slice(i, i + batch_size)
        pixels = images[part].to(backbone.device)
        crops = crop_and_resize(pixels, boxes[part], flips[part] if flip else None, backbone.image_size)
        parts.append(encoder(backbone, backbone.normalise(crops), batch_size).cpu())
    return torch.cat(parts)


def _cached(settings: dict, compute: Callable[[], Tensor]) -> Tensor:
    """What `compute` returns, from the file that belongs to these settings if there is one."""
    key = json.dumps(settings, sort_keys=True)
    path = cache_dir() / "features" / f"{hashlib.sha256(key.encode()).hexdigest()[:24]}.safetensors"
    features = _read(path, key, complain=False)
    if features is not None:  # files are whole or absent: reading needs no lock
        return features
    with ExitStack() as stack:
        try:
            stack.enter_context(lock(path))
        except OSError as error:
            return _not_cached(path, error, compute())
        features = _read(path, key)  # another process may have written it while this one waited
        if features is None:
            features = compute().contiguous()
            if features.nbytes > LARGEST:
                return features
            try:
                remove_leftovers(path)
                content = save({"features": features}, metadata={"key": key, "sha256": _checksum(features)})
                atomic_write(path, content)
            except OSError as error:
                return _not_cached(path, error, features)
        return features


def _not_cached(path: Path, error: OSError, features: Tensor) -> Tensor:
    warnings.warn(f"features are not cached: {path} cannot be written ({error})", RuntimeWarning, stacklevel=4)
    return features


def _read(path: Path, key: str, complain: bool = True) -> Tensor | None:
    """The features in a cache file; None if there is no file, or (with a warning, if `complain`) a damaged one."""
    if not path.is_file():
        return None
    try:
        with safe_open(path, framework="pt") as file:
            features, facts = file.get_tensor("features"), file.metadata() or {}
        if facts.get("key") != key or facts.get("sha256") != _checksum(features):
            raise ValueError("its content does not match its checksum")
        return features
    except (OSError, ValueError, SafetensorError) as error:
        if complain:
            warnings.warn(
                f"cached features are damaged and computed again: {path} ({error})", RuntimeWarning, stacklevel=4
            )
        return None


def _checksum(features: Tensor) -> str:
    return hashlib.sha256(features.reshape(-1).view(torch.uint8).numpy()).hexdigest()
