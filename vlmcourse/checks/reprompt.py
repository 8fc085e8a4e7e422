"""Checks of notebooks/4_visual_prompts/18_reprompt.ipynb: search without oneself, the guided loss, the mix."""

import torch
import torch.nn.functional as F

from vlmcourse.checks.report import attempt, close, report


def check_search(function) -> bool:
    """function: (queries (B, E), keys (N, E), own (B,) indices, k) -> index (B, k), nearest first, never own[b]."""
    draw = torch.Generator().manual_seed(0)
    keys = F.normalize(torch.randn(7, 4, generator=draw), dim=-1)
    own, k = torch.tensor([2, 0, 5]), 3
    queries = F.normalize(keys[own] + 0.05 * torch.randn(3, 4, generator=draw), dim=-1)
    value, problem = attempt(function, queries, keys.clone(), own.clone(), k)
    if problem:
        return report(False, "", problem)
    similarity = queries @ keys.T
    leaky = similarity.topk(k).indices
    expected = similarity.scatter(1, own[:, None], -torch.inf).topk(k).indices
    if close(value, expected):
        return report(True, "nobody is a neighbour of itself", "")
    hint = f"expected indices of shape {tuple(expected.shape)}, nearest first, by the inner product"
    if close(value, leaky):
        hint = "every query finds itself first: leave out the key own[b] of query b"
    elif close(value, similarity.scatter(1, own[:, None], torch.inf).topk(k, largest=False).indices):
        hint = "these are the farthest keys, not the nearest"
    elif close(value, expected.sort(dim=1).values):
        hint = "the order is lost: the nearest comes first"
    elif close(value, similarity.topk(k + 1).indices[:, 1:]):
        hint = "the first is not always the own image; look at own[b]"
    return report(False, "", hint)


def check_loss(function) -> bool:
    """function: (logits (B, C), labels (B,), votes (B, C), beta, clamp) -> scalar."""
    logits = torch.tensor([[2.0, 1.0, 0.0], [0.0, 1.0, 0.0], [1.0, 0.0, 0.0]], requires_grad=True)
    votes = torch.tensor([[0.5, 0.25, 0.25], [0.2, 0.6, 0.2], [1.0, 0.0, 0.0]])
    labels, beta, clamp = torch.tensor([0, 1, 2]), 0.4, 4.6
    value, problem = attempt(function, logits, labels, votes.clone(), beta, clamp)
    if problem:
        return report(False, "", problem)
    entropies = F.cross_entropy(logits, labels, reduction="none")
    surprise = (-votes[torch.arange(3), labels].clamp_min(1e-9).log()).clamp(max=clamp)
    if close(value, (entropies * (1 + beta * surprise)).mean()):
        return report(True, "images whose neighbours disagree count more", "")
    hint = "expected the mean over the images of CE_i * (1 + beta * min(-log p_knn(y_i), clamp))"
    unclamped = -votes[torch.arange(3), labels].clamp_min(1e-9).log()
    if close(value, entropies.mean() * (1 + beta * surprise.mean())):
        hint = "you multiplied the two means: weigh every image by its own surprise, then average"
    elif close(value, (entropies * (1 + beta * unclamped)).mean()) or close(value, torch.tensor(torch.inf)):
        hint = "where no neighbour has the right class, -log p_knn is without bound: clamp it"
    elif close(value, (entropies * (1 + beta * surprise)).mean() / 3):
        hint = "this is divided by the batch size twice"
    elif close(value, entropies.mean()):
        hint = "this is the plain cross-entropy; the votes are missing"
    elif close(value, (entropies + beta * surprise).mean()):
        hint = "the surprise multiplies the cross-entropy: added, it would have no gradient"
    return report(False, "", hint)


def check_mix(function) -> bool:
    """function: (logits (B, C), votes (B, C), mix) -> probabilities (B, C)."""
    logits, votes = torch.tensor([[2.0, 1.0, 0.0]]), torch.tensor([[0.0, 0.75, 0.25]])
    for mix in (0.5, 0.2, 1.0):
        value, problem = attempt(function, logits.clone(), votes.clone(), mix)
        if problem:
            return report(False, "", problem)
        p = logits.softmax(-1)
        if close(value, mix * votes + (1 - mix) * p):
            continue
        hint = "expected mix * votes + (1 - mix) * softmax(logits)"
        if close(value, (1 - mix) * votes + mix * p):
            hint = "mix is the share of the votes"
        elif close(value, mix * votes + (1 - mix) * logits):
            hint = "logits are no probabilities: take their softmax first"
        return report(False, "", hint)
    return report(True, "two opinions, one distribution", "")
