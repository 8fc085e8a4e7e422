"""Checks of notebooks/5_text_visual_prompts/19_upt.ipynb: one-head attention, splitting the tokens, a variance."""

import torch
import torch.nn.functional as F

from vlmcourse.checks.report import attempt, close, report


def attention(u, wq, wk, wv):
    """What `check_attention` expects: (n, d) tokens that take from each other."""
    return (u @ wq @ (u @ wk).T / u.shape[-1] ** 0.5).softmax(dim=-1) @ (u @ wv)


def check_attention(function) -> bool:
    """function: (u (n, d), W_q, W_k, W_v (d, d)) -> (n, d), softmax over the tokens that are taken from."""
    draw = torch.Generator().manual_seed(0)
    u, wq, wk, wv = (torch.randn(n, 5, generator=draw) for n in (4, 5, 5, 5))
    value, problem = attempt(function, u.clone(), wq, wk, wv)
    if problem:
        return report(False, "", problem)
    if close(value, attention(u, wq, wk, wv)):
        return report(True, "every token takes from every token, and the weights of each row sum to one", "")
    scores = u @ wq @ (u @ wk).T
    hint = "expected softmax(Q K^T / sqrt(d)) V with Q = u W_q, K = u W_k, V = u W_v"
    if not isinstance(value, torch.Tensor) or value.shape != u.shape:
        got = tuple(value.shape) if isinstance(value, torch.Tensor) else type(value).__name__
        hint = f"expected as many tokens as there were, (n, d) = {tuple(u.shape)}, got {got}"
    elif close(value, u @ wv):
        hint = "no token sees another: this is what the released code computes"
    elif close(value, scores.softmax(-1) @ (u @ wv)):
        hint = "the scores are divided by the square root of d before the softmax"
    elif close(value, (scores / 5**0.5).softmax(0) @ (u @ wv)):
        hint = "the softmax runs over the tokens that row i takes from: the last axis"
    return report(False, "", hint)


def split(y, count, weight, bias):
    """What `check_split` expects: text prompts as they are, visual prompts mapped to the other width."""
    return y[:count], y[count:] @ weight.T + bias


def check_split(function) -> bool:
    """function: (y (2 M, D), M, weight (Dv, D), bias (Dv,)) -> (text prompts (M, D), visual prompts (M, Dv))."""
    draw = torch.Generator().manual_seed(1)
    y, weight, bias = (torch.randn(shape, generator=draw) for shape in ((6, 4), (5, 4), (5,)))
    value, problem = attempt(function, y.clone(), 3, weight, bias)
    if problem:
        return report(False, "", problem)
    if not isinstance(value, tuple | list) or len(value) != 2:
        return report(False, "", "return two things: the text prompts and the visual prompts")
    (text, visual), (want_text, want_visual) = value, split(y, 3, weight, bias)
    hint = "the first M rows are the text's, the others go through the linear map"
    if close(text, want_text) and close(visual, want_visual):
        return report(True, "the towers have different widths, so one half needs a map", "")
    if close(text, y[3:]):
        hint = "the first half belongs to the text"
    elif close(text, want_text) and close(visual, y[3:]):
        hint = "the visual prompts have the width Dv of the image tower: apply weight and bias"
    elif close(text, want_text) and close(visual, y[3:] @ weight.T):
        hint = "the bias is missing"
    return report(False, "", hint)


def inter_class_variance(text):
    """What `check_variance` expects: mean squared distance of class features to their mean."""
    return (text - text.mean(dim=0)).square().sum(dim=-1).mean()


def check_variance(function) -> bool:
    """function: (class features (C, E), unit rows) -> their variance, one number; 0 if all classes have one feature."""
    text = F.normalize(torch.randn(5, 8, generator=torch.Generator().manual_seed(2)), dim=-1)
    value, problem = attempt(function, text.clone())
    if problem:
        return report(False, "", problem)
    expected = inter_class_variance(text)
    hint = "expected the mean over classes of the squared distance to the mean feature"
    if close(value, expected):
        return report(True, "0 if all names mean the same to the text tower, at most 1 for unit vectors", "")
    if close(value, text.var(0, correction=0)) or close(value, (text - text.mean(0)).square().mean(0)):
        hint = "this is one variance per dimension; sum over the dimensions"
    elif close(value, (text - text.mean(0)).square().mean()):
        hint = "you averaged over the dimensions: sum over them, average over the classes"
    elif close(value, (text - text.mean(0)).square().sum()):
        hint = "average over the classes"
    elif close(value, (text - text.mean(0)).norm(dim=-1).mean()):
        hint = "the distances are squared"
    return report(False, "", hint)
