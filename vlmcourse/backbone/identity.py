"""Which CLIP is this: can the interface serve it, and a fingerprint that keeps cached features apart."""

import hashlib
import json

import open_clip
import torch
from open_clip.modified_resnet import ModifiedResNet
from open_clip.transformer import ResidualAttentionBlock, VisionTransformer


def check_supported(model) -> None:
    """Raise TypeError or ValueError unless `model` is an open_clip.CLIP with towers of CLIP's own kind."""
    if not isinstance(model, open_clip.CLIP):
        raise TypeError(f"model is a {type(model).__name__}, expected an open_clip.CLIP")
    visual = model.visual
    if not isinstance(visual, VisionTransformer | ModifiedResNet):
        kind = type(visual).__name__
        raise TypeError(f"image tower is a {kind}, expected open_clip's VisionTransformer or ModifiedResNet")
    if model.text_pool_type != "argmax" or model.attn_mask is None or model.text_projection is None:
        raise ValueError(
            "the text tower must be causal, pooled at its end token ('argmax') and projected, as CLIP's is"
        )
    blocks = list(model.transformer.resblocks)
    if isinstance(visual, VisionTransformer):
        if visual.attn_pool is not None or visual.image_size[0] != visual.image_size[1]:
            raise ValueError("the image tower must read square images and have no attentional pooling")
        blocks += list(visual.transformer.resblocks)
    if other := {type(b).__name__ for b in blocks if not isinstance(b, ResidualAttentionBlock)}:
        raise ValueError(f"the towers have blocks of type {sorted(other)}, expected ResidualAttentionBlock")


def fingerprint(backbone) -> str:
    """16 hexadecimal digits of weights, architecture, transform, tokenizer and precision. Equal on every device."""
    tokenizer, model = backbone.tokenizer, backbone.model
    clean = getattr(getattr(tokenizer, "clean_fn", None), "__name__", "")
    facts = {
        "modules": [(name, type(m).__name__, getattr(m, "num_heads", 0)) for name, m in model.named_modules()],
        "transform": repr(backbone.transform),
        "tokenizer": [
            type(tokenizer).__name__,
            clean,
            list(getattr(tokenizer, "encoder", ())),
            backbone.context_length,
        ],
        "dtype": str(backbone.dtype),
    }
    digest = hashlib.sha256(json.dumps(facts).encode())
    for name, tensor in sorted(model.state_dict().items()):
        digest.update(f"{name} {tuple(tensor.shape)} {tensor.dtype}".encode())
        digest.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy())
    return digest.hexdigest()[:16]
