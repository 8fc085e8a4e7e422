"""Checks of notebooks/3_text_prompts/09_softcpt.ipynb: contexts from task features, the loss of a mixed batch."""

import torch
import torch.nn.functional as F

from vlmcourse.checks.report import attempt, close, report


def check_contexts(function) -> bool:
    """function: (features (T, E), P (E, M D), M) -> contexts (T, M, D), differentiable in both."""
    generator = torch.Generator().manual_seed(0)
    T, E, M, D = 3, 6, 4, 5
    features, P = torch.randn(T, E, generator=generator), torch.randn(E, M * D, generator=generator)
    value, problem = attempt(function, features.clone(), P.clone().requires_grad_(), M)
    if problem:
        return report(False, "", problem)
    expected = (features @ P).reshape(T, M, D)
    if close(value, expected):
        if not value.requires_grad:
            return report(False, "", "no gradient can reach P: do not detach it, nor go through .data or numpy")
        return report(True, "one matrix product writes the context of every task", "")
    hint = "your numbers differ from reshape(F P): the row of task t is F_t P, cut into M pieces of D numbers"
    if not isinstance(value, torch.Tensor) or value.shape != (T, M, D):
        got = tuple(value.shape) if isinstance(value, torch.Tensor) else type(value).__name__
        hint = f"expected contexts (T, M, D) = {(T, M, D)}, got {got}"
    elif close(value, (F.normalize(features, dim=-1) @ P).reshape(T, M, D)):
        hint = "the task features enter as they are, not normalised"
    elif close(value, (features @ P).reshape(T, D, M).transpose(1, 2)):
        hint = "the M D numbers of a task are M vectors of D numbers one after the other: reshape to (T, M, D) at once"
    return report(False, "", hint)


def soft_loss(logits, task, label, sizes):
    """What `check_loss` expects: cross-entropy within the own task, mean over the batch."""
    total, first = 0.0, 0
    for t, size in enumerate(sizes):
        own = task == t
        total = total + F.cross_entropy(logits[own, first : first + size], label[own], reduction="sum")
        first += size
    return total / len(logits)


def check_loss(function) -> bool:
    """function: (logits (B, sum C_t), task (B,), label (B,) within the task, sizes [C_t]) -> the scalar loss."""
    generator = torch.Generator().manual_seed(0)
    sizes, task = [3, 2, 4], torch.tensor([0, 2, 2, 0, 2, 0, 0])  # no image of task 1
    logits = 3 * torch.randn(7, 9, generator=generator)
    label = torch.tensor([2, 3, 0, 1, 1, 0, 2])
    value, problem = attempt(function, logits.clone(), task, label, sizes)
    if problem:
        return report(False, "", problem)
    if close(value, soft_loss(logits, task, label, sizes)):
        return report(True, "every image competes within its own task; a task without images adds nothing", "")
    starts = torch.tensor([0, 3, 5])
    columns = starts[task] + label
    means = [F.cross_entropy(logits[task == t, s : s + n], label[task == t]) for t, s, n in ((0, 0, 3), (2, 5, 4))]
    hint = "sum the cross-entropy of each image over the columns of its own task, then divide by the batch size"
    if isinstance(value, torch.Tensor) and value.ndim:
        hint = f"the loss is one number, got a tensor of shape {tuple(value.shape)}"
    elif close(torch.as_tensor(value).isnan(), True):
        hint = "your loss is nan: a task without an image in the batch adds nothing; leave out means over empty sets"
    elif close(value, F.cross_entropy(logits, columns)):
        hint = "your softmax runs over all classes of all tasks; an image competes within its own task only"
    elif close(value, sum(means)) or close(value, sum(means) / 2) or close(value, sum(means) / 3):
        hint = "you took the mean within each task: sum over the images of all tasks, and divide by the batch size once"
    elif close(value, 7 * soft_loss(logits, task, label, sizes)):
        hint = "divide by the batch size"
    return report(False, "", hint)
