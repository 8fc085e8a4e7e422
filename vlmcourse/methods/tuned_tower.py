"""A twin of a backbone in which a few weights are learned, while all others are shared and stay frozen.

Used where a method tunes LayerNorms (LASP) or other small parts of a tower. What stands in front of the first tuned
weight is frozen still, so it need not run again: for the blocks of a ViT, `vision_prompts.TOKENS` are computed once.
"""

import copy

import torch


def block_norms(backbone):
    """Names of weight and bias of `ln_1`, `ln_2` in all blocks of a ViT's image tower (not ln_pre, ln_post)."""
    names = (name for name, _ in backbone.model.named_parameters())
    return [n for n in names if n.startswith("visual.transformer.resblocks.") and n.split(".")[-2] in ("ln_1", "ln_2")]


def with_own_parameters(backbone, names):
    """(twin, {name: tensor}): a backbone whose parameters `names` are copies that require gradients.

    All else is shared, and the given backbone is not changed. The copies have the model's precision: tune float32
    models. ValueError for names that are not parameters.
    """
    known = dict(backbone.model.named_parameters())
    if unknown := [name for name in names if name not in known]:
        raise ValueError(f"names={unknown} are not parameters of {backbone.name!r}")
    own = {name: torch.nn.Parameter(known[name].detach().clone()) for name in names}
    shared = {id(tensor): tensor for tensor in (*known.values(), *backbone.model.buffers())}
    twin = copy.copy(backbone)
    twin.model = copy.deepcopy(backbone.model, shared | {id(known[name]): own[name] for name in names})
    twin._fingerprint = None
    return twin, own
