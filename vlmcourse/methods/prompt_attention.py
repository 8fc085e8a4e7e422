"""One attention head over a handful of prompt tokens: the core of the tiny transformers that write prompts.

    Q, K, V = X W_q + b, X W_k + b, X W_v + b            X (n, d): the tokens of both modalities
    A = drop(softmax(Q K^T / sqrt(d)))   (n, n)          out = (A V) W_o + b_o    (n, d)

mix=False is what two released code bases compute by mistake: they give 1 x n x d to a module that takes the first axis
for the sequence, so that n sequences of length one are attended to. Every softmax is then over one number: A is the
identity, no token sees another, and the layer is linear.
"""

import torch
import torch.nn.functional as F
from torch import nn


class PromptAttention(nn.Module):
    """width: d. mix: False for the released behaviour above. dropout: of A, in training. Weights start as those of
    nn.MultiheadAttention."""

    def __init__(self, width, *, mix=True, dropout=0.0):
        super().__init__()
        self.mix, self.dropout = mix, dropout
        self.into, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)
        nn.init.xavier_uniform_(self.into.weight)
        for linear in (self.into, self.out):
            nn.init.zeros_(linear.bias)

    def weights(self, x):
        """A (n, n) without dropout: row i says what token i takes from each token."""
        if not self.mix:
            return torch.eye(len(x), dtype=x.dtype, device=x.device)
        q, k, _ = self.into(x).chunk(3, dim=-1)
        return (q @ k.T / x.shape[-1] ** 0.5).softmax(dim=-1)

    def forward(self, x, draw=None):
        """(n, d) to (n, d). draw: generator of the dropout in training; None: no dropout."""
        v = self.into(x).chunk(3, dim=-1)[2]
        return self.out(dropped(self.weights(x), 0.0 if draw is None else self.dropout, draw) @ v)


class PromptCoupling(nn.Module):
    """MVLPT's: text prompts (M, D) and visual prompts (n, Dv) to new ones of the same shapes, by way of one sequence of
    M + n tokens of width `dim`: in between stand a pre-norm transformer block ("transformer") or a GELU ("mlp")."""

    def __init__(self, width, vision_width, method="transformer", dim=128, mix=True):
        super().__init__()
        self.method = method
        self.text_in, self.vision_in = nn.Linear(width, dim), nn.Linear(vision_width, dim)
        self.text_out, self.vision_out = nn.Linear(dim, width), nn.Linear(dim, vision_width)
        if method == "transformer":
            self.ln_1, self.ln_2 = nn.LayerNorm(dim), nn.LayerNorm(dim)
            self.attention = PromptAttention(dim, mix=mix)
            self.wide, self.narrow = nn.Linear(dim, 4 * dim), nn.Linear(4 * dim, dim)

    def forward(self, ctx, visual):
        e = torch.cat([self.text_in(ctx), self.vision_in(visual)])  # (M + J M, dim)
        if self.method == "mlp":
            e = F.gelu(e)
        else:
            e = e + self.attention(self.ln_1(e))
            hidden = self.wide(self.ln_2(e))
            e = e + self.narrow(hidden * torch.sigmoid(1.702 * hidden))  # CLIP's activation
        return self.text_out(e[: len(ctx)]), self.vision_out(e[len(ctx) :])


def dropped(x, p, draw):
    """Dropout with its own generator `draw`: each number is zero with probability p, the others grow by 1 / (1 - p)."""
    if p == 0:
        return x
    return x * (torch.rand(x.shape, generator=draw) >= p).to(x) / (1 - p)


def seeded(build, seed, backbone):
    """build() -> nn.Module with weights drawn from `seed`, on the backbone's device, in at least single precision."""
    with torch.random.fork_rng(devices=[]):  # layers start as PyTorch's do; the caller's stream is left alone
        torch.manual_seed(seed)
        module = build()
    dtype = torch.promote_types(backbone.dtype, torch.float32)
    for part in module.modules():
        for name, tensor in list(part.named_parameters(recurse=False)):
            setattr(part, name, nn.Parameter(tensor.detach().to(backbone.device, dtype)))
    return module
