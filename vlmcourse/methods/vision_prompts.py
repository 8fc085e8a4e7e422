"""Prompt tokens in a ViT's image tower, on images whose frozen part is computed once.

Patch embedding, class token and positions come before any prompt, so they are constants of an image: `TOKENS` computes
(and caches) them, `encode_prompted` runs the rest of the tower with prompts and is differentiable in them.

    x = [CLS ; patches] + positions (B, 1 + P, Dv)     constants
    f = Proj(ln_post(Blocks([x ; prompts])_CLS))       (..., B, E)

Prompts are (..., K, M, Dv), Dv the vision width, like the contexts of context.py. K is the image axis, written out: 1
where all images share the prompts, B where each has its own; (M, Dv) stands for (1, M, Dv). Leading axes are free and
come back in front of the features (..., B, E):
    one set (M, Dv) -> (B, E)     N sets (N, 1, M, Dv) -> (N, B, E)     one per image (B, M, Dv) -> (B, E)
Papers differ in where prompts join (see backbone/vision.py): `before_ln_pre` changes the features, `where` does not.
"""

import math

import torch
import torch.nn.functional as F

from vlmcourse.backbone import vision
from vlmcourse.backbone.features import Encoder
from vlmcourse.backbone.images import as_sequence
from vlmcourse.methods.base import full_precision


@torch.no_grad()
def image_tokens(backbone, images, batch_size=256):
    """(B, 1 + P, Dv) what the tower reads before ln_pre, CLS first. images: as encode_image takes them; needs a ViT."""
    backbone.require_vit("prompts in the image tower")
    images = as_sequence(images)
    parts = [images[i : i + batch_size] for i in range(0, len(images), batch_size)]
    return torch.cat([vision.embed(backbone.model.visual, _pixels(backbone, part))[0] for part in parts])


TOKENS = Encoder("tokens", image_tokens, ndim=3, unit=False)


def _pixels(backbone, images):
    ready = isinstance(images, torch.Tensor) and images.is_floating_point()
    return images.to(backbone.device, backbone.dtype) if ready else backbone.preprocess(images)


def encode_prompted(backbone, tokens, shallow=None, deep=None, where="end", before_ln_pre=True, normalise=True):
    """(..., B, E) features of image tokens (B, 1 + P, Dv) with prompts, L2-normalised unless normalise=False.

    shallow: joins before the first block. deep: {layer: prompts}, which replace those of before at that layer. All
    prompts are (..., K, M, Dv) with the same leading axes, or functions of the tokens there, (sets B, 1 + P, Dv), that
    return (sets B, M, Dv) or (M, Dv). where: "end" or "after_cls". ValueError for other shapes, or
    an image tower that is no ViT.
    """
    backbone.require_vit("prompts in the image tower")
    visual, deep, tokens = backbone.model.visual, deep or {}, tokens.to(backbone.dtype)
    given = [p for p in (shallow, *deep.values()) if isinstance(p, torch.Tensor)]
    lead = max((p.shape[:-3] for p in given), key=len, default=torch.Size())
    B, sets = len(tokens), math.prod(lead)

    def flat(prompts):  # (sets B, M, Dv)
        if callable(prompts):
            return prompts
        prompts = prompts[None] if prompts.ndim == 2 else prompts
        if prompts.ndim < 3 or prompts.shape[-3] not in (1, B) or prompts.shape[-1] != tokens.shape[-1]:
            raise ValueError(
                f"image prompts {tuple(prompts.shape)} must be (..., 1 or {B}, M, {tokens.shape[-1]}) or "
                f"(M, {tokens.shape[-1]})"
            )
        return prompts.to(tokens).expand(*lead, B, *prompts.shape[-2:]).reshape(sets * B, *prompts.shape[-2:])

    x = tokens.expand(sets, *tokens.shape).flatten(0, 1)  # (sets B, 1 + P, Dv)
    with vision.plain_attention():
        first = None if shallow is None else flat(shallow)
        x = vision.run_blocks(visual, x, first, {i: flat(p) for i, p in deep.items()}, where, before_ln_pre)
        features = full_precision(vision.read_out(visual, x)).reshape(*lead, B, -1)
    return F.normalize(features, dim=-1) if normalise else features


def normal_prompts(backbone, *shape, seed, std=0.02):
    """(*shape, Dv) from N(0, std^2), by its own generator; at least float32 whatever the backbone's precision."""
    backbone.require_vit("prompts in the image tower")
    draw = torch.randn(*shape, backbone.vision_width, generator=torch.Generator().manual_seed(seed)) * std
    return draw.to(backbone.device, torch.promote_types(backbone.dtype, torch.float32))


def uniform_prompts(backbone, *shape, seed):
    """(*shape, Dv) uniform in (-v, v), v = sqrt(6 / (3 p^2 + Dv)), patches of p x p pixels: VPT's initialisation."""
    backbone.require_vit("prompts in the image tower")
    height, width = backbone.model.visual.patch_size
    v = math.sqrt(6 / (3 * height * width + backbone.vision_width))
    draw = torch.rand(*shape, backbone.vision_width, generator=torch.Generator().manual_seed(seed)) * 2 * v - v
    return draw.to(backbone.device, torch.promote_types(backbone.dtype, torch.float32))
