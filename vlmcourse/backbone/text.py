"""The text tower as a function of token *embeddings*, so that prompts can be learned. open_clip's modules, no fork.

CLIP's text tower (Radford et al., "Learning Transferable Visual Models From Natural Language Supervision", ICML 2021,
arXiv 2103.00020) reads token ids. Prompt learning replaces some of the looked-up embeddings by free vectors, so it
needs the rest of the tower: with token embeddings e (l, D), positions p (L, D) and the causal mask,

    x_0 = e + p[:l]      x_{i+1} = block_i(x_i)      feature = ln_final(x_n)[eot] @ text_projection      (E,)

Two exact savings follow from causality (a token sees only itself and what stands before it):
1. *trimmed prompts*: nothing behind the end token (eot) can reach it, so l may be the longest prompt instead of L = 77;
2. *shared prefix*: start token and context are equal for every class, and no class token can reach them. Their
   states, keys and values are computed once per layer; per class only the remaining tokens run and attend to them.

Symbols: C prompts (classes), l tokens, D text width, E joint width, P prefix tokens, h heads, d = D / h.
"""

from collections.abc import Callable, Mapping

import torch
import torch.nn.functional as F
from torch import Tensor

Deep = Mapping[int, Tensor | Callable[[Tensor], Tensor]]


def encode_embeddings(model, embeddings: Tensor, eot: Tensor, deep: Deep | None = None) -> Tensor:
    """Features of prompts given as token embeddings, not normalised.

    model: open_clip.CLIP. embeddings: (..., l, D), without positions. eot: (...) index of the end token, broadcast over
    the leading shape. deep: {layer: (M, D) or (..., M, D), or a function of the tokens (N, l, D)}: before that layer,
    tokens 1..M (the context, behind the start token) are replaced. Returns (..., E).
    """
    *lead, length, width = embeddings.shape
    x = embeddings.reshape(-1, length, width)  # (N, l, D), N = product of the leading shape
    x = x + model.positional_embedding[:length].to(x.dtype)
    mask = model.attn_mask[:length, :length]  # (l, l), -inf above the diagonal
    check_layers(deep or {}, len(model.transformer.resblocks))
    for i, block in enumerate(model.transformer.resblocks):
        if deep and i in deep:
            x = replace_context(x, deep[i], lead)
        x = block(x, attn_mask=mask)
    return _read_out(model, x, eot.expand(lead).reshape(-1)).reshape(*lead, -1)


def encode_tokens(model, embeddings: Tensor) -> Tensor:
    """Joint-space features of *every* token, (N, l, E), not normalised; embeddings (N, l, D) without positions.

    Only the end token was trained to stand for its sentence. TaI-DPT (CVPR 2023) reads the others like image regions.
    """
    length = embeddings.shape[-2]
    x = embeddings + model.positional_embedding[:length].to(embeddings.dtype)
    for block in model.transformer.resblocks:
        x = block(x, attn_mask=model.attn_mask[:length, :length])
    x, projection = model.ln_final(x), model.text_projection
    return projection(x) if callable(projection) else x @ projection


def encode_shared_prefix(model, prefix: Tensor, suffix: Tensor, eot: Tensor, deep: Deep | None = None) -> Tensor:
    """The same features as `encode_embeddings` of [prefix ; suffix_c], with the prefix computed once, not C times.

    prefix: (..., P, D), equal for all classes; a leading shape G (say one context per image) gives each its own prefix.
    suffix: (C, l, D). eot: (C,) index of the end token in the whole prompt, so P <= eot < P + l.
    deep: {layer: (M, D) or (..., M, D)} with M < P, as above. Returns (..., C, E), not normalised.
    """
    *lead, n_prefix, width = prefix.shape
    n_class, length = suffix.shape[:2]
    position = model.positional_embedding.to(suffix.dtype)
    p = prefix.reshape(-1, n_prefix, width) + position[:n_prefix]  # (G, P, D)
    groups = len(p)
    x = suffix + position[n_prefix : n_prefix + length]  # (C, l, D)
    x = x.expand(groups, -1, -1, -1).flatten(0, 1)  # (G C, l, D)
    mask = model.attn_mask[: n_prefix + length, : n_prefix + length].to(suffix.dtype)
    blocks = model.transformer.resblocks
    check_layers(deep or {}, len(blocks))
    for i, block in enumerate(blocks):
        if deep and i in deep:
            p = replace_context(p, deep[i], lead)
        q, k, v = _heads(block, p)  # (G, h, P, d) each
        past = tuple(t[:, None].expand(-1, n_class, -1, -1, -1).flatten(0, 1) for t in (k, v))  # (G C, h, P, d)
        if i + 1 < len(blocks):  # behind the last layer nobody reads the prefix
            p = _finish(block, p, F.scaled_dot_product_attention(q, k, v, attn_mask=mask[:n_prefix, :n_prefix]))
        q, k, v = _heads(block, x)  # (G C, h, l, d)
        k, v = torch.cat([past[0], k], 2), torch.cat([past[1], v], 2)  # (G C, h, P + l, d)
        x = _finish(block, x, F.scaled_dot_product_attention(q, k, v, attn_mask=mask[n_prefix:]))
    features = _read_out(model, x, (eot - n_prefix).expand(groups, -1).reshape(-1))  # (G C, E)
    return features.reshape(*lead, n_class, -1)


def replace_context(x: Tensor, prompts, lead: list[int]) -> Tensor:
    """x (N, l, D) with tokens 1..M replaced by (M, D) or (*lead, M, D), or a function of x -> (M, D) or (N, M, D)."""
    if callable(prompts):
        prompts, lead = prompts(x), [len(x)]
    if prompts.shape[-1] != x.shape[-1] or prompts.shape[-2] >= x.shape[1]:
        raise ValueError(
            f"deep text prompts have shape {tuple(prompts.shape)}, expected (M, {x.shape[-1]}) "
            f"with M < {x.shape[1]}, the number of tokens"
        )
    count = prompts.shape[-2]
    prompts = prompts.to(x.dtype).expand(*(lead or [1]), -1, -1).reshape(len(x), count, x.shape[-1])
    return torch.cat([x[:, :1], prompts, x[:, 1 + count :]], dim=1)


def check_layers(deep: Mapping[int, object], count: int) -> None:
    """Raise ValueError unless the keys are numbers of layers, 0 to count - 1."""
    if wrong := [i for i in deep if not isinstance(i, int) or not 0 <= i < count]:
        raise ValueError(f"deep has layers {wrong}, expected integers from 0 to {count - 1}")


def token_rows(tokenizer, sentences, context_length: int) -> list[list[int]]:
    """Sentences to lists of token ids: start token, pieces, end token. ValueError names a sentence that is too long."""
    sentences = [sentences] if isinstance(sentences, str) else list(sentences)
    if not sentences or not all(isinstance(s, str) for s in sentences):
        raise TypeError(f"sentences must be a non-empty list of strings, got {sentences[:3]!r}")
    rows = [[tokenizer.sot_token_id, *tokenizer.encode(s), tokenizer.eot_token_id] for s in sentences]
    for sentence, row in zip(sentences, rows, strict=True):
        if len(row) > context_length:
            raise ValueError(f"{sentence!r} has {len(row)} tokens, the text tower reads at most {context_length}")
    return rows


def check_tokens(model, name: str, tokens: Tensor, ndim: int | None = None, more: int = 0) -> None:
    """Raise unless tokens are floating-point embeddings (..., l, D) with l + more at most L (and `ndim` dimensions)."""
    width, longest = model.token_embedding.embedding_dim, model.context_length
    shape = tuple(tokens.shape)
    if len(shape) < 2 or (ndim and len(shape) != ndim) or shape[-1] != width or not 1 <= shape[-2] + more <= longest:
        wanted = f"(C, l, {width})" if ndim == 3 else f"(..., l, {width})"
        raise ValueError(f"{name} has shape {shape}, expected {wanted}, whole prompts of 1 to {longest} tokens")
    if not tokens.is_floating_point():
        raise TypeError(f"{name} has dtype {tokens.dtype}, expected floating point (token embeddings, not ids)")


def _heads(block, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Queries, keys and values of one block for x (N, l, D): three times (N, h, l, d)."""
    attn = block.attn
    qkv = F.linear(block.ln_1(x), attn.in_proj_weight, attn.in_proj_bias)  # (N, l, 3 D)
    return tuple(t.unflatten(-1, (attn.num_heads, -1)).transpose(1, 2) for t in qkv.chunk(3, dim=-1))


def _finish(block, x: Tensor, attended: Tensor) -> Tensor:
    """The rest of one block: attended (N, h, l, d) back into the stream x (N, l, D), then the MLP."""
    x = x + block.ls_1(block.attn.out_proj(attended.transpose(1, 2).flatten(2)))
    return x + block.ls_2(block.mlp(block.ln_2(x)))


def _read_out(model, x: Tensor, eot: Tensor) -> Tensor:
    """States x (N, l, D) and end positions eot (N,) to features (N, E)."""
    index = eot.to(x.device)[:, None, None].expand(-1, 1, x.shape[-1])
    x = model.ln_final(x.gather(1, index)[:, 0])  # (N, D)
    projection = model.text_projection
    return projection(x) if callable(projection) else x @ projection
