"""Checks of notebooks/5_text_visual_prompts/22_cavpt.ipynb: candidates, class-aware prompts, the auxiliary loss."""

import torch
import torch.nn.functional as F

from vlmcourse.checks.report import attempt, close, report


def check_candidates(function) -> bool:
    """function: (f0 (B, E), W0 (C, E), T (C, E), k) -> (classes (B, k), T of these classes (B, k, E))."""
    draw = torch.Generator().manual_seed(0)
    f0, W0 = (F.normalize(torch.randn(n, 6, generator=draw), dim=-1) for n in (4, 5))
    T = 3 * torch.randn(5, 6, generator=draw)
    value, problem = attempt(function, f0, W0, T, 3)
    if problem:
        return report(False, "", problem)
    if not isinstance(value, tuple | list) or len(value) != 2:
        return report(False, "", "return two tensors: the classes (B, k) and what they ask with (B, k, E)")
    classes = (f0 @ W0.T).topk(3).indices
    hint = "expected the k classes with the highest f0 W0^T of each image, likeliest first, and T[classes]"
    if close(value[0], (f0 @ T.T).topk(3).indices):
        hint = "frozen CLIP ranks the classes, with the hand prompts W0; the learned T only asks"
    elif close(value[0], (f0 @ W0.T).topk(3, largest=False).indices):
        hint = "these are the unlikeliest classes"
    elif close(value[0], classes) and close(value[1], F.normalize(T, dim=-1)[classes]):
        hint = "the texts ask without being normalised"
    elif close(value[0], classes) and close(value[1], W0[classes]):
        hint = "the learned texts T ask, not the hand prompts"
    passed = close(value[0], classes) and close(value[1], T[classes])
    return report(passed, "every image asks with its own k texts", hint)


def check_class_prompts(function) -> bool:
    """function: (q (B, k, D), x (B, n, D), G (g, D), Wq (D, A), Wk (D, A), Wv (D, D)) -> LN(o + q) (B, k, D)."""
    draw = torch.Generator().manual_seed(1)
    q, x, G = (torch.randn(*s, generator=draw) for s in ((2, 3, 8), (2, 5, 8), (4, 8)))
    Wq, Wk, Wv = (torch.randn(*s, generator=draw) for s in ((8, 4), (8, 4), (8, 8)))
    value, problem = attempt(function, q, x, G, Wq, Wk, Wv)
    if problem:
        return report(False, "", problem)

    def prompts(H, scale=2.0, residual=1.0):
        found = ((q @ Wq) @ (H @ Wk).transpose(1, 2) / scale).softmax(-1) @ H @ Wv
        return found + residual * q

    H, norm = torch.cat([x, G.expand(2, -1, -1)], dim=1), lambda o: F.layer_norm(o, (8,))
    hint = "expected LN(softmax(q Wq (H Wk)^T / sqrt(A)) H Wv + q) with H = [x ; G]"
    if close(value, norm(prompts(x))):
        hint = "the learned tokens G are missing: the texts look at [x ; G]"
    elif close(value, norm(prompts(H, residual=0.0))):
        hint = "the residual is missing: add q before the LayerNorm"
    elif close(value, norm(prompts(H, scale=1.0))) or close(value, norm(prompts(H, scale=8**0.5))):
        hint = "divide by the root of A, the width of the queries behind Wq"
    elif close(value, prompts(H)):
        hint = "the LayerNorm over the last axis is missing"
    return report(close(value, norm(prompts(H))), "k prompts for each image, made from what the texts found", hint)


def check_auxiliary(function) -> bool:
    """function: (aux logits (B, k, C), candidates (B, k), labels (B,)) -> mean CE of true rows, 0 without."""
    draw = torch.Generator().manual_seed(2)
    aux, classes = torch.randn(3, 2, 4, generator=draw), torch.tensor([[0, 3], [1, 2], [2, 0]])
    labels = torch.tensor([3, 0, 2])  # among the candidates of the first and the last image
    value, problem = attempt(function, aux, classes, labels)
    if problem:
        return report(False, "", problem)
    rows = F.cross_entropy(torch.stack([aux[0, 1], aux[2, 0]]), torch.tensor([3, 2]))
    hint = "expected the mean cross-entropy over the candidates that are the true class"
    if close(value, F.cross_entropy(aux.flatten(0, 1), labels.repeat_interleave(2))):
        hint = "only the row of the true class counts, the other candidates have no target"
    elif close(value, F.cross_entropy(aux.flatten(0, 1), classes.flatten())):
        hint = "only the row of the true class counts, the other candidates have no target"
    elif close(value, 2 * rows):
        hint = "take the mean over the rows, not the sum"
    elif close(value, 2 * rows / 3):
        hint = "divide by the number of true rows, not by the number of images"
    if not close(value, rows):
        return report(False, "", hint)
    empty, problem = attempt(function, aux, classes, torch.tensor([1, 0, 1]))
    if problem or not close(empty, 0.0):
        return report(False, "", "if no image has its class among the candidates there is no row: return 0, not NaN")
    return report(True, "also for a batch without any true candidate, where the official code gives NaN", "")
