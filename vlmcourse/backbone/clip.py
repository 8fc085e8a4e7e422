"""Backbone: a frozen CLIP with its tokenizer, image transform, device and precision, behind one small interface.

CLIP: Radford et al., "Learning Transferable Visual Models From Natural Language Supervision", ICML 2021, arXiv
2103.00020. The model is an open_clip.CLIP, used as it is; ViT and ModifiedResNet image towers both work. Every feature
that leaves this class is L2-normalised unless `normalise=False` was said, so the zero-shot logits of images f (B, E)
and class texts t (C, E) are

    logits = logit_scale * f @ t.T      (B, C)

Gradients: the weights are frozen (`requires_grad` False), but nothing here is under `no_grad`: prompts, embeddings or
images that require gradients receive them. Wrap calls in `torch.no_grad()` where none are wanted.

Symbols: B images, S image side, H W patches, Dv vision width; C sentences, L context length, D text width; E joint.
"""

import copy
from collections.abc import Sequence
from contextlib import nullcontext

import torch
import torch.nn.functional as F
from open_clip.transformer import VisionTransformer
from torch import Tensor

from vlmcourse.backbone import text, vision
from vlmcourse.backbone.identity import check_supported, fingerprint
from vlmcourse.backbone.images import Transform, as_sequence


class Backbone:
    """A frozen CLIP. Attributes: model, tokenizer, name, device, dtype, image_size (S), embed_dim (E), text_width (D),
    vision_width (Dv; None for a ResNet), context_length (L), is_vit, logit_scale (scalar tensor, exp already taken),
    mean, std (pixel statistics, (3, 1, 1)), fingerprint.

    model: open_clip.CLIP; it is frozen, set to eval mode and moved in place. tokenizer: open_clip's SimpleTokenizer.
    mean, std, and how images are resized, are read from the model's `visual.preprocess_cfg`, else CLIP's own are used.
    Raises TypeError or ValueError for models that the interface cannot serve (other classes, other text pooling).
    """

    def __init__(self, model, tokenizer, name: str = "custom", device="cpu", dtype: torch.dtype = torch.float32):
        check_supported(model)
        visual = model.visual
        self.name, self.device, self.dtype, self.tokenizer = name, torch.device(device), dtype, tokenizer
        self.logit_scale = model.logit_scale.detach().float().exp().reshape(()).to(device)
        self.model = model.to(device=device, dtype=dtype).eval().requires_grad_(False)
        self.is_vit = isinstance(visual, VisionTransformer)
        self.transform = Transform.of(visual)
        self.image_size = self.transform.size
        self.mean = torch.tensor(self.transform.mean, device=device).reshape(3, 1, 1)
        self.std = torch.tensor(self.transform.std, device=device).reshape(3, 1, 1)
        self.vision_width = visual.transformer.width if self.is_vit else None
        self.embed_dim, self.text_width = int(visual.output_dim), int(model.token_embedding.embedding_dim)
        self.context_length = int(model.context_length)
        self._fingerprint: tuple | None = None

    def __repr__(self) -> str:
        sizes = f"image_size={self.image_size}, embed_dim={self.embed_dim}"
        return f"Backbone({self.name!r}, {sizes}, {self.dtype}, {self.device})"

    # ---- images ---------------------------------------------------------------------------------------------------

    def preprocess(self, images) -> Tensor:
        """Images to (B, 3, S, S) in the backbone's dtype, on its device, normalised.

        images: a PIL image, a list of them, or a uint8 tensor (3, H, W) or (B, 3, H, W). The shorter side is resized to
        S (bicubic, antialiased; nothing happens if the image is S x S already), the centre is cut out.
        """
        return self.normalise(self.transform.pixels(images, self.device))

    def normalise(self, pixels: Tensor) -> Tensor:
        """Pixels (B, 3, S, S) in [0, 1] to what the image tower reads: minus mean, divided by std. Differentiable."""
        return ((pixels - self.mean) / self.std).to(self.dtype)

    def encode_image(self, images, batch_size: int = 256, normalise: bool = True) -> Tensor:
        """Image features (B, E).

        images: whatever `preprocess` takes, or a float tensor (B, 3, S, S) that is preprocessed already.
        Differentiable in float images.
        """
        encode = self._encode_vit if self.is_vit else self.model.visual
        return self._in_batches(encode, images, batch_size, normalise)

    def encode_image_prompted(
        self,
        images,
        shallow: vision.Prompts | None = None,
        deep: dict[int, vision.Prompts] | None = None,
        where: str = "end",
        before_ln_pre: bool = False,
        batch_size: int | None = None,
        normalise: bool = True,
    ) -> Tensor:
        """Image features (B, E) of a ViT with prompt tokens; equal to `encode_image` bit for bit without any.

        shallow: (M, Dv) or (B, M, Dv), joins the tokens before the first block; before `ln_pre` (which then normalises
        the prompts too) if `before_ln_pre`. deep: {layer: same, or a function of that layer's input (B, 1 + P, Dv)
        without the prompts}: the prompts are replaced before that block; an empty (0, Dv) drops them. where: "end" or
        "after_cls". batch_size: None runs all images at once; a number needs unbatched prompts. Differentiable.
        """
        self.require_vit("prompts in the image tower")

        def encode(batch: Tensor) -> Tensor:
            return self._encode_vit(batch, shallow, deep, where, before_ln_pre)

        return self._in_batches(encode, images, batch_size, normalise)

    def patch_tokens(self, images, batch_size: int = 256) -> Tensor:
        """The ViT's last patch tokens behind `ln_post`, (B, H W, Dv): not projected, not L2-normalised."""
        self.require_vit("patch tokens")
        visual = self.model.visual

        def encode(batch: Tensor) -> Tensor:
            return visual.ln_post(vision.run_blocks(visual, vision.embed(visual, batch)[0])[:, 1:])

        return self._in_batches(encode, images, batch_size, normalise=False)

    def dense_features(self, images, path: str = "value", batch_size: int = 256, normalise: bool = True) -> Tensor:
        """One joint-space feature per position, (B, E, H, W), L2-normalised along E: compare them with text features.

        path: "value", "value+residual" (MaskCLIP's ViT form; not for a ResNet) or "full" (the ordinary last layer); see
        backbone/vision.py. Float images may have any size that the tower's stride divides.
        """
        if path not in vision.PATHS:
            raise ValueError(f"path={path!r}, expected one of {vision.PATHS}")
        dense = vision.dense_vit if self.is_vit else vision.dense_resnet

        def encode(batch: Tensor) -> Tensor:
            return dense(self.model.visual, batch, path)

        return self._in_batches(encode, images, batch_size, normalise, axis=1, any_size=True)

    # ---- text -----------------------------------------------------------------------------------------------------

    def tokenize(self, sentences: str | Sequence[str]) -> Tensor:
        """Sentences to ids (C, L): start token, pieces, end token, zeros. ValueError if a sentence is too long."""
        rows = text.token_rows(self.tokenizer, sentences, self.context_length)
        return torch.tensor([row + [0] * (self.context_length - len(row)) for row in rows])

    def token_embedding(self, ids: Tensor) -> Tensor:
        """Token ids (..., L) to their embeddings (..., L, D), without positions."""
        return self.model.token_embedding(torch.as_tensor(ids, device=self.device)).to(self.dtype)

    def encode_text(self, sentences, batch_size: int = 256, normalise: bool = True) -> Tensor:
        """Text features (C, E). sentences: a list of strings, or token ids (C, L) as from `tokenize`."""
        if isinstance(sentences, Tensor):
            if sentences.ndim != 2 or sentences.is_floating_point():
                raise ValueError(
                    f"token ids have shape {tuple(sentences.shape)} and {sentences.dtype}, expected (C, L) integers"
                )
            rows = sentences.to(self.device)
            ends = rows.argmax(dim=-1)  # the end token has the largest id
            longest = int(ends.max()) + 1
        else:
            lists = text.token_rows(self.tokenizer, sentences, self.context_length)
            longest = max(map(len, lists))
            rows = torch.tensor([row + [0] * (longest - len(row)) for row in lists], device=self.device)
            ends = torch.tensor([len(row) - 1 for row in lists], device=self.device)
        rows = rows[:, :longest]  # (C, l): nothing behind the last end token matters
        batches = zip(rows.split(_checked(batch_size)), ends.split(batch_size), strict=True)
        parts = [self.encode_text_embeddings(self.token_embedding(r), e, normalise=normalise) for r, e in batches]
        return torch.cat(parts)

    def encode_text_tokens(self, sentences: Sequence[str], batch_size: int = 256) -> tuple[Tensor, Tensor]:
        """Features of every token, (C, l, E) L2-normalised, and the positions of the end tokens, (C,).

        Row `ends` of a sentence is its feature; rows behind it are padding and mean nothing.
        """
        lists = text.token_rows(self.tokenizer, sentences, self.context_length)
        longest = max(map(len, lists))
        rows = torch.tensor([row + [0] * (longest - len(row)) for row in lists], device=self.device)  # (C, l)
        batches = [self.token_embedding(part) for part in rows.split(_checked(batch_size))]
        features = torch.cat([text.encode_tokens(self.model, part) for part in batches])
        return F.normalize(features, dim=-1), torch.tensor([len(row) - 1 for row in lists], device=self.device)

    def encode_text_embeddings(
        self, embeddings: Tensor, eot: Tensor, deep: text.Deep | None = None, normalise: bool = True
    ) -> Tensor:
        """Text features (..., E) of prompts given as token embeddings; differentiable in them.

        embeddings: (..., l, D) without positions, any leading shape, l <= L (a prompt may stop at its end token).
        eot: (...) index of each end token, broadcast over the leading shape. deep: {layer: (M, D) or (..., M, D)}
        context tokens 1..M, replaced before that layer.
        """
        text.check_tokens(self.model, "embeddings", embeddings)
        eot = torch.as_tensor(eot, device=self.device)
        features = text.encode_embeddings(self.model, embeddings.to(self.dtype), eot, deep)
        return F.normalize(features, dim=-1) if normalise else features

    def encode_text_shared_prefix(
        self, prefix: Tensor, suffix: Tensor, eot: Tensor, deep: text.Deep | None = None, normalise: bool = True
    ) -> Tensor:
        """The same as `encode_text_embeddings` of [prefix ; suffix_c], but the prefix is computed once for all classes.

        prefix: (P, D) start token and context, or (..., P, D) for several contexts. suffix: (C, l, D), the rest of each
        prompt. eot: (C,) index of the end token within the whole prompt. deep: as above, M < P.
        Returns (C, E), or (..., C, E).
        """
        text.check_tokens(self.model, "suffix", suffix, ndim=3)
        text.check_tokens(self.model, "prefix", prefix, more=suffix.shape[1])
        eot = torch.as_tensor(eot, device=self.device)
        features = text.encode_shared_prefix(self.model, prefix.to(self.dtype), suffix.to(self.dtype), eot, deep)
        return F.normalize(features, dim=-1) if normalise else features

    # ---- the whole ------------------------------------------------------------------------------------------------

    def require_vit(self, method_name: str) -> None:
        """Raise ValueError if the image tower is not a ViT."""
        if not self.is_vit:
            raise ValueError(
                f"{method_name} needs a ViT image tower, but {self.name!r} has a ResNet; load for example 'ViT-B-16'"
            )

    def to(self, device=None, dtype: torch.dtype | None = None) -> "Backbone":
        """Like Tensor.to: a copy on another device or in another precision; itself if nothing changes."""
        device = self.device if device is None else torch.device(device)
        dtype = self.dtype if dtype is None else dtype
        if (device, dtype) == (self.device, self.dtype):
            return self
        new = copy.copy(self)
        new.model = copy.deepcopy(self.model).to(device=device, dtype=dtype)
        new.device, new.dtype, new._fingerprint = device, dtype, None
        for name in ("logit_scale", "mean", "std"):
            setattr(new, name, getattr(self, name).to(device))
        return new

    @property
    def fingerprint(self) -> str:
        """16 hexadecimal digits that differ when weights, architecture, transform, tokenizer or precision differ."""
        weights = self.model.state_dict(keep_vars=True).values()
        version = tuple((t.data_ptr(), t._version) for t in weights)  # changes when weights are changed in place
        if self._fingerprint is None or self._fingerprint[0] != version:
            self._fingerprint = (version, fingerprint(self))
        return self._fingerprint[1]

    # ---- helpers --------------------------------------------------------------------------------------------------

    def _encode_vit(self, images: Tensor, *prompts) -> Tensor:
        tokens, _ = vision.embed(self.model.visual, images)
        return vision.read_out(self.model.visual, vision.run_blocks(self.model.visual, tokens, *prompts))

    def _in_batches(self, encode, images, batch_size, normalise, axis: int = -1, any_size: bool = False) -> Tensor:
        images = as_sequence(images)
        size = len(images) if batch_size is None else _checked(batch_size)
        with vision.plain_attention() if self.is_vit else nullcontext():
            parts = [encode(self._ready(images[i : i + size], any_size)) for i in range(0, len(images), size)]
        features = torch.cat(parts)
        return F.normalize(features, dim=axis) if normalise else features

    def _ready(self, images, any_size: bool) -> Tensor:
        if not (isinstance(images, Tensor) and images.is_floating_point()):
            return self.preprocess(images)
        if not any_size and images.shape[-2:] != (self.image_size, self.image_size):
            raise ValueError(
                f"images are float, shape {tuple(images.shape)}, so they count as preprocessed and must be "
                f"(B, 3, {self.image_size}, {self.image_size}); give uint8 or PIL images to have them resized"
            )
        return images.to(self.device, self.dtype)


def _checked(batch_size: int) -> int:
    if batch_size < 1:
        raise ValueError(f"batch_size={batch_size}, expected at least 1")
    return batch_size
