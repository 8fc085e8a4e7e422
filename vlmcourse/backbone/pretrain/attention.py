"""Self-attention as explicit matrix products: faster than the fused kernel for short sequences on a CPU."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class PlainAttention(nn.Module):
    """Stands in for an `nn.MultiheadAttention` (batch first) and shares its parameters, under the same names."""

    def __init__(self, attention: nn.MultiheadAttention):
        super().__init__()
        self.in_proj_weight, self.in_proj_bias = attention.in_proj_weight, attention.in_proj_bias
        self.out_proj, self.num_heads = attention.out_proj, attention.num_heads
        self.batch_first = True

    def forward(self, query: Tensor, key=None, value=None, need_weights=False, attn_mask: Tensor | None = None):
        """query (B, N, D), attn_mask (N, N) additive -> ((B, N, D), None)."""
        b, n, d = query.shape
        qkv = F.linear(query, self.in_proj_weight, self.in_proj_bias).view(b, n, 3, self.num_heads, -1)
        q, k, v = qkv.permute(2, 0, 3, 1, 4).reshape(3, b * self.num_heads, n, -1)  # (B h, N, D/h) each
        scores = torch.bmm(q, k.transpose(1, 2)) * (d // self.num_heads) ** -0.5
        if attn_mask is not None:
            scores = scores + attn_mask
        out = torch.bmm(scores.softmax(-1).to(v.dtype), v)
        return self.out_proj(out.view(b, self.num_heads, n, -1).transpose(1, 2).reshape(b, n, d)), None


def use_plain_attention(model: nn.Module) -> None:
    """Replace the attention of every residual block of an open_clip model in place."""
    for block in [*model.visual.transformer.resblocks, *model.transformer.resblocks]:
        block.attn = PlainAttention(block.attn)


def restore_attention(model: nn.Module, fresh: nn.Module) -> nn.Module:
    """A model with open_clip's own attention and the weights of `model`: `fresh` is filled and returned."""
    fresh.load_state_dict(model.state_dict())
    return fresh
