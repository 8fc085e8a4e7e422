"""A small network that turns a feature into a shift in token-embedding space (the "Meta-Net" of conditional prompts).

    pi = W_2 ReLU(W_1 x + b_1) + b_2      x (..., in_dim) -> pi (..., out_dim)     (CoCoOp, CVPR 2022, arXiv 2203.05557)

CoCoOp: in_dim = E (a normalised image feature), one hidden layer of E // 16, out_dim = D, the text tower's width.
Conditional Bayesian prompts (arXiv 2210.02390): two hidden layers of E // 2, ELU; one net for mu, one for log sigma^2.
The start is PyTorch's for linear layers, uniform in +-1 / sqrt(fan_in) for weights and biases: the shift is not zero at
the first step, and most of it (b_2) is the same for every input. zero_start sets the last layer to zero instead.
"""

from itertools import pairwise

import torch
from torch import nn


class MetaNet(nn.Sequential):
    """Linear layers in_dim -> hidden -> out_dim with an activation between them.

    hidden: a width or a tuple of widths; None: in_dim // 16, at least 1. activation: a module class. seed: of the
    start, drawn by its own generator. zero_start: the last layer starts at zero, so the first shifts are zero.
    device, dtype: of the weights. ValueError for a size that is not a whole number >= 1.
    """

    def __init__(
        self,
        in_dim,
        out_dim,
        hidden=None,
        *,
        activation=nn.ReLU,
        seed=0,
        zero_start=False,
        device=None,
        dtype=torch.float32,
    ):
        hidden = max(1, in_dim // 16) if hidden is None else hidden
        widths = tuple(hidden) if isinstance(hidden, tuple | list) else (hidden,)
        for name, sizes in (("in_dim", (in_dim,)), ("hidden", widths), ("out_dim", (out_dim,))):
            if any(not isinstance(size, int) or isinstance(size, bool) or size < 1 for size in sizes):
                raise ValueError(f"{name}={sizes if name == 'hidden' else sizes[0]!r} must be whole numbers >= 1")
        draw, layers, sizes = torch.Generator().manual_seed(seed), [], (in_dim, *widths, out_dim)
        for i, (fan_in, fan_out) in enumerate(pairwise(sizes)):
            linear = nn.Linear(fan_in, fan_out, device="meta")  # sizes only: draws nothing from the global generator
            scale = 0.0 if zero_start and i == len(widths) else fan_in**-0.5
            for name, shape in (("weight", (fan_out, fan_in)), ("bias", (fan_out,))):
                start = scale * (2 * torch.rand(shape, generator=draw) - 1)
                setattr(linear, name, nn.Parameter(start.to(device, dtype)))
            layers += [linear, activation()]
        super().__init__(*layers[:-1])  # no activation behind the last layer

    def forward(self, x):
        """Shifts (..., out_dim) of features (..., in_dim), in the precision of the weights."""
        return super().forward(x.to(self[0].weight.dtype))
