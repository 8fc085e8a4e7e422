"""A twin of a backbone in which a few weights are learned, while all others are shared and stay frozen.

Used where a method tunes LayerNorms (LASP), other small parts of a tower, or all of it (WiSE-FT). What stands in front
of the first tuned weight is frozen still, so it need not run again: for the blocks of a ViT, `vision_prompts.TOKENS`
are computed once. Where the patch embedding is tuned too, a method reads `PIXELS`.
"""

import copy

import torch

from vlmcourse.backbone.features import Encoder


def _pixels(backbone, images, batch_size=256):
    ready = isinstance(images, torch.Tensor) and images.is_floating_point()
    return images.to(backbone.device) if ready else backbone.preprocess(images)


PIXELS = Encoder("pixels", _pixels, ndim=4, unit=False)  # (n, 3, S, S): nothing of the tower is frozen


def block_norms(backbone):
    """Names of weight and bias of `ln_1`, `ln_2` in all blocks of a ViT's image tower (not ln_pre, ln_post)."""
    names = (name for name, _ in backbone.model.named_parameters())
    return [n for n in names if n.startswith("visual.transformer.resblocks.") and n.split(".")[-2] in ("ln_1", "ln_2")]


def image_tower(backbone, blocks_only=False):
    """(parameters, buffers): the names of all in the image tower. blocks_only: without what stands in front of the
    blocks of a ViT (patch embedding, class token, positions), so that `vision_prompts.TOKENS` stay frozen."""
    if blocks_only:
        backbone.require_vit("tuning the blocks only")
    front = ("visual.conv1", "visual.class_embedding", "visual.positional_embedding") if blocks_only else ()
    tensors = backbone.model.named_parameters(), backbone.model.named_buffers()
    return tuple([n for n, _ in kind if n.startswith("visual.") and not n.startswith(front)] for kind in tensors)


def with_own_parameters(backbone, names, buffers=()):
    """(twin, {name: tensor}): a backbone whose parameters `names` are copies that require gradients.

    buffers: names of buffers that are copies, too, for training changes the statistics of batch norms. All else is
    shared, and the given backbone is not changed. The copies have the model's precision: tune float32 models.
    ValueError for names that are not parameters, or buffers.
    """
    known, state = dict(backbone.model.named_parameters()), dict(backbone.model.named_buffers())
    if unknown := [name for name in names if name not in known]:
        raise ValueError(f"names={unknown} are not parameters of {backbone.name!r}")
    if unknown := [name for name in buffers if name not in state]:
        raise ValueError(f"buffers={unknown} are not buffers of {backbone.name!r}")
    own = {name: torch.nn.Parameter(known[name].detach().clone()) for name in names}
    own |= {name: state[name].clone() for name in buffers}
    known |= state
    shared = {id(tensor): tensor for tensor in known.values()}
    twin = copy.copy(backbone)
    twin.model = copy.deepcopy(backbone.model, shared | {id(known[name]): own[name] for name in own})
    twin._fingerprint = None
    return twin, own
