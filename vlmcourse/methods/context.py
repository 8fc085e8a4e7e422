"""Text from learnable context: prompts of C classes with M open slots, filled by vectors in token-embedding space.

    end     [SOS | v_1 ... v_M | name . EOT]
    middle  [SOS | v_1 ... v_{M//2} | name | v_{M//2+1} ... v_M | . EOT]
    front   [SOS | name | v_1 ... v_M | . EOT]                        (CoOp, Zhou et al., IJCV 2022, equations 2 and 3)

Context tensors are (..., K, M, D), D the text width. K is the class axis, written out: 1 where all classes share the
context, C where each has its own; (M, D) stands for (1, M, D). Leading axes are free and come back in front of the
features (..., C, E):
    unified (M, D) -> (C, E)        class-specific (C, M, D) -> (C, E)        N prompts (N, 1, M, D) -> (N, C, E)
    one context per image (B, 1, M, D) -> (B, C, E)
Prompts are cut behind the longest one: the text tower is causal, so nothing after an end token can reach it.
"""

import copy

import torch

from vlmcourse.methods.base import full_precision
from vlmcourse.methods.class_text import readable

POSITIONS = ("end", "middle", "front")


class ClassPrompts:
    """The frozen part of C prompts: token embeddings (C, l, D), with `slots` (C, M) open for the context.

    ValueError for an unknown position, or a class name that is too long together with n_ctx context tokens.
    """

    def __init__(self, backbone, class_names, n_ctx, position="end"):
        if position not in POSITIONS:
            raise ValueError(f"class_token_position={position!r} must be one of {POSITIONS}")
        if not isinstance(n_ctx, int) or n_ctx < 0:
            raise ValueError(f"n_ctx={n_ctx!r} must be a whole number >= 0")
        self.backbone, self.n_ctx, self.position = backbone, n_ctx, position
        names, bpe = [readable(name) for name in class_names], backbone.tokenizer
        before = {"end": n_ctx, "middle": n_ctx // 2, "front": 0}[position]  # context tokens in front of the name
        rows, slots = [], []
        for name in names:
            ids = bpe.encode(name)
            if position == "end":  # name and full stop stand together: after "etc." they may be one token, ".."
                tail = bpe.encode(name + ".")
            else:
                tail = ids + [0] * (n_ctx - before) + bpe.encode(".")
            rows.append([bpe.sot_token_id] + [0] * before + tail + [bpe.eot_token_id])  # 0 holds a vector's place
            slots.append([1 + m if m < before else 1 + m + len(ids) for m in range(n_ctx)])
        longest = max(len(row) for row in rows)
        if longest > backbone.context_length:
            worst = names[max(range(len(rows)), key=lambda c: len(rows[c]))]
            raise ValueError(
                f"n_ctx={n_ctx} and the class name {worst!r} need {longest} tokens, "
                f"{backbone.name!r} reads {backbone.context_length}"
            )
        ids = torch.tensor([row + [0] * (longest - len(row)) for row in rows], device=backbone.device)  # (C, l)
        with torch.no_grad():
            self.embeddings = backbone.token_embedding(ids)  # (C, l, D)
        self.slots = torch.tensor(slots, dtype=torch.long, device=backbone.device).reshape(len(names), n_ctx)  # (C, M)
        self.eot = torch.tensor([len(row) - 1 for row in rows], device=backbone.device)  # (C,)

    def select(self, classes):
        """The prompts of some classes only: classes (n,) long, in any order."""
        few = copy.copy(self)
        few.embeddings, few.slots, few.eot = self.embeddings[classes], self.slots[classes], self.eot[classes]
        return few

    def insert(self, ctx):
        """(..., C, l, D): context (..., K, M, D) written into the slots, differentiable."""
        ctx = self._class_axis(ctx)
        lead, (C, length, D) = ctx.shape[:-3], self.embeddings.shape
        prompts = self.embeddings.expand(*lead, C, length, D)
        where = self.slots[:, :, None].expand(*lead, C, self.n_ctx, D)
        return prompts.scatter(-2, where, ctx.expand(*lead, C, self.n_ctx, D))

    def encode(self, ctx, share_prefix=True, deep=None, normalise=True):
        """(..., C, E) text features for context (..., K, M, D), L2-normalised unless normalise=False.

        Where the classes share the context and it stands in front (position "end", K = 1), start token and context are
        one prefix for all classes and run once; share_prefix=False runs every prompt in full, with equal results.
        deep: {layer: (M, D)}, context that replaces the tokens behind the start token there (position "end" only).
        """
        if deep and self.position != "end":
            raise ValueError(
                f"deep context stands behind the start token, so class_token_position={self.position!r} must be 'end'"
            )
        ctx = self._class_axis(ctx)
        lead, C = ctx.shape[:-3], len(self.eot)
        options = {"deep": deep, "normalise": normalise}
        if share_prefix and self.position == "end" and ctx.shape[-3] == 1:
            start = self.embeddings[0, :1].expand(*lead, 1, ctx.shape[-1])
            prefix = torch.cat([start, ctx.squeeze(-3)], dim=-2)  # (..., 1 + M, D)
            text = self.backbone.encode_text_shared_prefix(
                prefix, self.embeddings[:, 1 + self.n_ctx :], self.eot, **options
            )
        else:
            text = self.backbone.encode_text_embeddings(self.insert(ctx), self.eot.expand(*lead, C), **options)
        return full_precision(text)

    def _class_axis(self, ctx):
        ctx = ctx[None] if ctx.ndim == 2 else ctx
        C, _, D = self.embeddings.shape
        if ctx.ndim < 3 or ctx.shape[-3] not in (1, C) or ctx.shape[-2:] != (self.n_ctx, D):
            raise ValueError(
                f"context {tuple(ctx.shape)} must be (..., 1 or {C}, {self.n_ctx}, {D}) or ({self.n_ctx}, {D})"
            )
        return ctx.to(self.embeddings)


def random_context(backbone, *shape, seed, std=0.02):
    """(*shape, D) from N(0, std^2), by its own generator; at least float32 whatever the backbone's precision."""
    draw = torch.randn(*shape, backbone.text_width, generator=torch.Generator().manual_seed(seed)) * std
    return draw.to(backbone.device, torch.promote_types(backbone.dtype, torch.float32))


@torch.no_grad()
def words_context(backbone, words):
    """(M, D): the token embeddings of some words; M counts BPE tokens, not words. ValueError for no words."""
    ids = backbone.tokenizer.encode(words)
    if not ids:
        raise ValueError(f"ctx_init={words!r} has no words")
    return full_precision(backbone.token_embedding(torch.tensor(ids, device=backbone.device))).clone()


@torch.no_grad()
def nearest_words(backbone, ctx, k=5):
    """For each vector of ctx (M, D) its k nearest vocabulary tokens: M lists [(token, Euclidean distance), ...].

    As in the CoOp paper's table of learned words; the tokens are pieces of words, and seldom explain the context.
    """
    vocabulary = backbone.tokenizer.vocab_size
    table = full_precision(backbone.token_embedding(torch.arange(vocabulary, device=backbone.device)))  # (V, D)
    if ctx.ndim != 2 or ctx.shape[1] != table.shape[1]:
        raise ValueError(
            f"ctx={tuple(ctx.shape)} must be (M, {table.shape[1]}); take one prompt or one class of a larger context"
        )
    if not 1 <= k <= vocabulary:
        raise ValueError(f"k={k!r} must be between 1 and {vocabulary}")
    distances, ids = torch.cdist(ctx.to(table), table).topk(k, largest=False)  # (M, k)
    return [
        [(backbone.tokenizer.decode([i]).strip(), d) for i, d in zip(row, near, strict=True)]
        for row, near in zip(ids.tolist(), distances.tolist(), strict=True)
    ]
