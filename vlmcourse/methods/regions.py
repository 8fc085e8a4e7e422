"""Features of an image's regions beside the feature of the whole, and their pooling class by class.

A `region_encoder` gives (B, 1 + N, E): row 0 the whole image, rows 1..N its regions, row by row. Where they come from:

    ResNet  "value"    c_proj(v_proj(x_i)) of every position of the last map (DualCoOp, TaI-DPT). positions=True: with
                       the pool's positional embedding, row 0 is the mean token on the same way (DualCoOp);
                       positions=False: without it, row 0 is the attention pool without it (TaI-DPT)
    ViT     "windows"  windows of side h = ceil(H / 2) every ceil(h / 2) of the patch grid: the tower runs on the
                       patches of one window alone, its class token is the region's feature; row 0 is the pooled feature
            "value" | "value+residual" | "full"   patch tokens, see `Backbone.dense_features`; row 0 as above

The papers know ResNets only. A ViT's patch tokens are not trained to agree with texts, a class token is, whatever
patches it sees; and what costs most, the patch embedding, runs once for all windows.
"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from vlmcourse.backbone import vision
from vlmcourse.backbone.features import Encoder


def default_path(backbone) -> str:
    """Where regions come from unless it is said: "windows" for a ViT, "value" for a ResNet."""
    return "windows" if backbone.is_vit else "value"


def region_encoder(backbone, path: str | None = None, positions: bool = True) -> Encoder:
    """The Encoder of (B, 1 + N, E). positions: see above, without meaning for a ViT. ValueError for a wrong path."""
    path = default_path(backbone) if path is None else path
    paths = ("windows", *vision.PATHS) if backbone.is_vit else ("value",)
    if path not in paths:
        raise ValueError(f"path={path!r} must be one of {paths} for this image tower")
    make = {True: _vit, False: _resnet}[backbone.is_vit]

    def encode(backbone, images, batch_size: int) -> Tensor:
        def one(batch):
            return make(backbone.model.visual, batch, path, positions)

        return backbone._in_batches(one, images, batch_size, normalise=False)

    return Encoder(f"regions:{path}" + ":no positions" * (not positions and not backbone.is_vit), encode, ndim=3)


def windows(grid: tuple[int, int]) -> Tensor:
    """The windows of a grid (H, W): (N, H W) bool, which cells each of them has."""
    places = []
    for side in grid:
        length = math.ceil(side / 2)
        starts = list(range(0, side - length + 1, math.ceil(length / 2)))
        if starts[-1] < side - length:
            starts.append(side - length)  # the last window ends where the grid ends
        places.append([(start, start + length) for start in starts])
    cells = []
    for top, bottom in places[0]:
        for left, right in places[1]:
            inside = torch.zeros(grid, dtype=torch.bool)
            inside[top:bottom, left:right] = True
            cells.append(inside.flatten())
    return torch.stack(cells)


def _vit(visual, images: Tensor, path: str, positions: bool) -> Tensor:
    tokens, grid = vision.embed(visual, images)  # (B, 1 + P, Dv)
    whole = vision.read_out(visual, vision.run_blocks(visual, tokens))
    if path != "windows":
        return torch.cat([whole[:, None], vision.dense_vit(visual, images, path).flatten(2).transpose(1, 2)], dim=1)
    regions = [whole]
    for inside in windows(grid):
        chosen = torch.cat([torch.zeros(1, dtype=torch.long), 1 + inside.nonzero().squeeze(1)])  # class token first
        regions.append(vision.read_out(visual, vision.run_blocks(visual, tokens[:, chosen.to(tokens.device)])))
    return torch.stack(regions, dim=1)


def _resnet(visual, images: Tensor, path: str, positions: bool) -> Tensor:
    x = visual.stem(images)
    for layer in (visual.layer1, visual.layer2, visual.layer3, visual.layer4):
        x = layer(x)
    grid, pool = tuple(x.shape[-2:]), visual.attnpool
    x = x.flatten(2).transpose(1, 2)  # (B, P, Dr)
    x = torch.cat([x.mean(dim=1, keepdim=True), x], dim=1)  # (B, 1 + P, Dr)
    if positions:
        x = x + vision.resize_positions(pool.positional_embedding, grid).to(x.dtype)
        return pool.c_proj(pool.v_proj(x))
    q, k, v = (
        project(part).unflatten(-1, (pool.num_heads, -1)).transpose(1, 2)
        for project, part in ((pool.q_proj, x[:, :1]), (pool.k_proj, x), (pool.v_proj, x))
    )
    whole = pool.c_proj(F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2))  # (B, 1, E)
    return torch.cat([whole, pool.c_proj(pool.v_proj(x[:, 1:]))], dim=1)


def pool_regions(cosine: Tensor, scale: float, by: Tensor | None = None, mask: Tensor | None = None):
    """(pooled (B, C), weights (B, C, N)): sum_i a_i cosine_i with a = softmax_i(scale by_i), class by class.

    cosine, by: (B, C, N); by None: cosine itself. mask (B, N) bool: regions that take part (None: all).
    scale 0 gives the mean, infinity the cosine where `by` is largest.
    """
    by = scale * (cosine if by is None else by)
    if mask is not None:
        by = by.masked_fill(~mask[:, None], -math.inf)
    weights = by.softmax(dim=-1)
    return (weights * cosine).sum(dim=-1), weights


def region_map(weights: Tensor, backbone, path: str | None = None) -> Tensor:
    """Weights of the regions (..., N), row 0 left out before, as a map (..., H, W) that sums to the same.

    A window's weight is spread over its cells, so a cell adds up what the windows on it have.
    """
    path = default_path(backbone) if path is None else path
    if path != "windows":
        side = math.isqrt(weights.shape[-1])
        return weights.unflatten(-1, (side, side))
    side = backbone.image_size // backbone.model.visual.patch_size[0]
    cells = windows((side, side)).to(weights)  # (N, H W)
    if weights.shape[-1] != len(cells):
        raise ValueError(f"weights {tuple(weights.shape)} must have {len(cells)} windows, without the whole image")
    return (weights @ (cells / cells.sum(dim=1, keepdim=True))).unflatten(-1, (side, side))
