"""The image tower as pure functions: prompt tokens, patch tokens, dense features. open_clip's modules, no fork.

ViT (Dosovitskiy et al., ICLR 2021, arXiv 2010.11929; as in CLIP): image -> conv1 -> P patch tokens, plus CLS and
positions, `ln_pre`, n blocks, `ln_post` of CLS, projection. Prompt tokens (Visual Prompt Tuning, Jia et al., ECCV 2022,
arXiv 2203.12119) join the sequence; papers differ in two ways, and the second one changes the features:

    where          "end": [CLS ; patches ; prompts]      "after_cls": [CLS ; prompts ; patches]
    before_ln_pre  True: ln_pre([tokens ; prompts]) (MaPLe, UPT)   False: [ln_pre(tokens) ; prompts] (VPT, MVLPT, DPT)

Dense features (MaskCLIP: Zhou et al., "Extract Free Dense Labels from CLIP", ECCV 2022, arXiv 2112.01071): the pooled
feature is an attention average of *value* vectors, so drop query and key of the last layer and project each value by
itself.

    ViT, x the input of the last block, v = out_proj(W_v ln_1(x) + b_v), i.e. attention weights = identity:
      "value"            v                              the attention branch alone (as in ClearCLIP, arXiv 2407.12442)
      "value+residual"   y + MLP(ln_2(y)), y = x + v    the last block with attention = identity: MaskCLIP's own form
      "full"             block(x)                       the ordinary last block
    each followed by ln_post and the projection. ResNet, x the last map: "value" c_proj(v_proj(x)), without positions;
    "full" every position as a query of the attention pool (CALIP, arXiv 2209.14169). A ResNet's pool has no residual.

Symbols: B images, P = H W patches, Dv vision width, M prompts, E joint width.
"""

import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager

import torch
import torch.nn.functional as F
from torch import Tensor

from vlmcourse.backbone.text import check_layers

Prompts = Tensor | Callable[[Tensor], Tensor]
PATHS = ("value", "value+residual", "full")
_lock = threading.Lock()
_users = {"count": 0, "before": True}  # who is inside `plain_attention`, and PyTorch's setting before the first came


@contextmanager
def plain_attention() -> Iterator[None]:
    """Inside, nn.MultiheadAttention takes one code path whether or not gradients are wanted.

    Its fused inference path differs from the ordinary one by about 2e-6, so without this "no prompts" would equal the
    frozen tower only to rounding. PyTorch has one switch per process; the last user who leaves puts it back.
    """
    mha = torch.backends.mha
    with _lock:
        if _users["count"] == 0:
            _users["before"] = mha.get_fastpath_enabled()
            mha.set_fastpath_enabled(False)
        _users["count"] += 1
    try:
        yield
    finally:
        with _lock:
            _users["count"] -= 1
            if _users["count"] == 0:
                mha.set_fastpath_enabled(_users["before"])


def embed(visual, images: Tensor) -> tuple[Tensor, tuple[int, int]]:
    """Images (B, 3, S, S) to tokens (B, 1 + P, Dv), CLS first, before ln_pre; and the grid (H, W).

    `conv1` may be any module with a (B, Dv, H, W) output. Where that grid differs from the trained one (images of
    another size), the positions are resized bicubically, as MaskCLIP does.
    """
    x = visual.conv1(images)  # (B, Dv, H, W)
    grid = tuple(x.shape[-2:])
    x = x.flatten(2).transpose(1, 2)  # (B, P, Dv)
    cls = visual.class_embedding.to(x.dtype).expand(len(x), 1, -1)  # (B, 1, Dv)
    position = resize_positions(visual.positional_embedding, grid).to(x.dtype)  # (1 + P, Dv)
    return torch.cat([cls, x], dim=1) + position, grid


def resize_positions(position: Tensor, grid: tuple[int, int]) -> Tensor:
    """Positions (1 + P, Dv) of a square grid, resized to another grid (H, W); themselves if it is the same one."""
    side = round((len(position) - 1) ** 0.5)
    if grid == (side, side):
        return position
    square = position[1:].float().T.reshape(1, -1, side, side)  # (1, Dv, side, side)
    resized = F.interpolate(square, size=grid, mode="bicubic", align_corners=False)[0].flatten(1).T  # (H W, Dv)
    return torch.cat([position[:1], resized.to(position.dtype)])


def run_blocks(
    visual,
    tokens: Tensor,
    shallow: Prompts | None = None,
    deep: Mapping[int, Prompts] | None = None,
    where: str = "end",
    before_ln_pre: bool = False,
) -> Tensor:
    """Tokens (B, 1 + P, Dv) from `embed` through ln_pre and all blocks, with prompts; returns them without the prompts.

    shallow: (M, Dv) or (B, M, Dv), joins before the first block. deep: {layer: same, or a function of the (B, 1 + P,
    Dv) tokens}: before that block the prompts are replaced (an empty (0, Dv) tensor drops them); in between they live
    on.
    """
    deep, count = deep or {}, 0
    check_layers(deep, len(visual.transformer.resblocks))
    if where not in ("end", "after_cls"):
        raise ValueError(f"where={where!r}, expected 'end' or 'after_cls'")
    if shallow is not None and 0 in deep:
        raise ValueError("shallow and deep[0] were both given: deep[0] would overwrite the shallow prompts")
    if shallow is None:
        x = visual.ln_pre(tokens)
    else:
        prompts = as_prompts(shallow, tokens)
        count = prompts.shape[1]
        if before_ln_pre:
            x = visual.ln_pre(join(tokens, prompts, where))
        else:
            x = join(visual.ln_pre(tokens), prompts, where)
    for i, block in enumerate(visual.transformer.resblocks):
        if i in deep:
            tokens = without(x, count, where)
            prompts = as_prompts(deep[i], tokens)
            x, count = join(tokens, prompts, where), prompts.shape[1]
        x = block(x)
    return without(x, count, where)  # (B, 1 + P, Dv)


def as_prompts(prompts: Prompts, tokens: Tensor) -> Tensor:
    """Prompts (M, Dv), (B, M, Dv), or a function of the tokens (B, n, Dv) that returns one of them, as (B, M, Dv)."""
    prompts = prompts(tokens) if callable(prompts) else prompts
    batch, _, width = tokens.shape
    if (
        prompts.ndim not in (2, 3)
        or prompts.shape[-1] != width
        or (prompts.ndim == 3 and len(prompts) not in (1, batch))
    ):
        raise ValueError(
            f"image prompts have shape {tuple(prompts.shape)}, expected (M, {width}) or ({batch}, M, {width})"
        )
    return prompts.to(tokens.dtype).expand(batch, -1, -1)


def join(tokens: Tensor, prompts: Tensor, where: str) -> Tensor:
    """[CLS ; patches ; prompts] or [CLS ; prompts ; patches]: (B, 1 + P + M, Dv)."""
    return torch.cat([tokens, prompts] if where == "end" else [tokens[:, :1], prompts, tokens[:, 1:]], dim=1)


def without(x: Tensor, count: int, where: str) -> Tensor:
    """Undo `join`: (B, 1 + P + M, Dv) with M = count prompts to (B, 1 + P, Dv)."""
    if count == 0:
        return x
    return x[:, : x.shape[1] - count] if where == "end" else torch.cat([x[:, :1], x[:, 1 + count :]], dim=1)


def read_out(visual, tokens: Tensor) -> Tensor:
    """Tokens (B, 1 + P, Dv) behind the last block to image features (B, E), not normalised."""
    return visual._pool(tokens)[0] @ visual.proj


def dense_vit(visual, images: Tensor, path: str) -> Tensor:
    """Joint-space features of every patch, (B, E, H, W), not normalised; see the top of the module for `path`."""
    tokens, grid = embed(visual, images)
    x = visual.ln_pre(tokens)  # (B, 1 + P, Dv)
    *first, last = visual.transformer.resblocks
    for block in first:
        x = block(x)
    if path == "full":
        x = last(x)
    else:
        value = last.ls_1(values(last.attn, last.ln_1(x)))
        x = value if path == "value" else x + value
        if path == "value+residual":
            x = x + last.ls_2(last.mlp(last.ln_2(x)))
    x = visual.ln_post(x[:, 1:]) @ visual.proj  # (B, P, E)
    return x.transpose(1, 2).unflatten(2, grid)


def values(attn, y: Tensor) -> Tensor:
    """What attention returns if every token attends to itself only: out_proj(W_v y + b_v). y: (B, n, Dv)."""
    bias = None if attn.in_proj_bias is None else attn.in_proj_bias[-attn.embed_dim :]
    return attn.out_proj(F.linear(y, attn.in_proj_weight[-attn.embed_dim :], bias))


def dense_resnet(visual, images: Tensor, path: str) -> Tensor:
    """The same for CLIP's ModifiedResNet: (B, E, H, W), not normalised."""
    x = visual.stem(images)
    for layer in (visual.layer1, visual.layer2, visual.layer3, visual.layer4):
        x = layer(x)  # finally (B, Dr, H, W)
    grid, pool = tuple(x.shape[-2:]), visual.attnpool
    x = x.flatten(2).transpose(1, 2)  # (B, P, Dr)
    if path == "value":
        x = pool.c_proj(pool.v_proj(x))  # (B, P, E): two 1x1 convolutions
    elif path == "full":
        x = torch.cat([x.mean(1, keepdim=True), x], dim=1)  # (B, 1 + P, Dr): the mean token first, as the pool has it
        x = x + resize_positions(pool.positional_embedding, grid).to(x.dtype)
        q, k, v = (
            m(x).unflatten(-1, (pool.num_heads, -1)).transpose(1, 2) for m in (pool.q_proj, pool.k_proj, pool.v_proj)
        )
        x = pool.c_proj(F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2))[:, 1:]
    else:
        raise ValueError(
            f"path={path!r} needs a ViT: the attention pool of a ResNet has no residual; use 'value' or 'full'"
        )
    return x.transpose(1, 2).unflatten(2, grid)
