"""Checks of notebooks/3_text_prompts/05_subpt.ipynb: the directions of a trajectory, the projection, the NFL term."""

import torch
import torch.nn.functional as F

from vlmcourse.checks.report import attempt, close, report


def check_directions(function) -> bool:
    """function: (trajectory (t, P), r) -> U (r, P): the r main directions of the points around their mean."""
    draw = torch.Generator().manual_seed(0)
    trajectory = torch.randn(9, 12, generator=draw) * torch.linspace(3, 0.2, 12) + 4
    for r in (1, 3):
        value, problem = attempt(function, trajectory.clone(), r)
        if problem:
            return report(False, "", problem)
        if not isinstance(value, torch.Tensor) or tuple(value.shape) != (r, 12):
            got = tuple(value.shape) if isinstance(value, torch.Tensor) else type(value).__name__
            return report(False, "", f"for a trajectory (9, 12) and r = {r} expected shape ({r}, 12), got {got}")
        if not close(value @ value.T, torch.eye(r)):
            return report(False, "", "the rows must have length 1 and be perpendicular: U Uᵀ = I")
        centred = torch.linalg.svd(trajectory - trajectory.mean(0), full_matrices=False).Vh
        plain = torch.linalg.svd(trajectory, full_matrices=False).Vh[:r]
        if not close(value.T @ value, centred[:r].T @ centred[:r], 1e-3):
            hint = "these are not the directions of largest variance; check which rows of Vh you take"
            if close(value.T @ value, plain.T @ plain, 1e-3):
                hint = "subtract the mean of the points first: we want how they move, not where they are"
            elif close(value.T @ value, centred[-r:].T @ centred[-r:], 1e-3):
                hint = "these are the last rows of Vh; singular values come in descending order, take the first r"
            return report(False, "", hint)
    return report(True, "orthonormal, centred, and the largest variance first", "")


def check_projection(function) -> bool:
    """function: (gradient (M, D), basis U (r, M D)) -> (M, D), the part of the gradient inside the span of U."""
    draw = torch.Generator().manual_seed(1)
    basis = torch.linalg.qr(torch.randn(12, 4, generator=draw)).Q.T.contiguous()  # (4, 12)
    gradient = torch.randn(3, 4, generator=draw)
    value, problem = attempt(function, gradient.clone(), basis.clone())
    if problem:
        return report(False, "", problem)
    expected = (basis.T @ (basis @ gradient.flatten())).reshape(3, 4)
    hint = "this is not Uᵀ U g: flatten g, take its r coordinates U g, and come back with Uᵀ"
    if not isinstance(value, torch.Tensor) or value.shape != gradient.shape:
        got = tuple(value.shape) if isinstance(value, torch.Tensor) else type(value).__name__
        hint = f"the result takes the place of the gradient: expected shape (3, 4), got {got}"
    elif close(value, gradient - expected):
        hint = "this is the part outside the subspace; the part inside is what remains in training"
    elif close(value, gradient):
        hint = "the gradient came back unchanged"
    elif close(F.normalize(value.flatten(), dim=0), F.normalize(expected.flatten(), dim=0)):
        hint = "the direction is right, the length is not: do not normalise, a projection may shorten"
    return report(close(value, expected), "inside the subspace, never longer than before", hint)


def check_nfl(function) -> bool:
    """function: (text (J, E), zero_shot (J, E)) -> scalar: mean over the names of 1 - cosine; rows not normalised."""
    draw = torch.Generator().manual_seed(2)
    text, target = 3 * torch.randn(5, 6, generator=draw), 2 * torch.randn(5, 6, generator=draw)
    value, problem = attempt(function, text.clone().requires_grad_(), target.clone())
    if problem:
        return report(False, "", problem)
    cosine = F.cosine_similarity(text, target, dim=-1)
    expected, hint = (1 - cosine).mean(), "this is not the mean over the names of 1 - cos"
    if not isinstance(value, torch.Tensor) or value.ndim:
        hint = "return one number, a tensor without dimensions: the mean over the names"
    elif close(value, cosine.mean()):
        hint = "this grows when the texts agree; the loss must fall: 1 - cosine"
    elif close(value, (1 - cosine).sum()):
        hint = "this is the sum over the names; take the mean, so that lambda does not depend on their number"
    elif close(value, (1 - (text * target).sum(-1)).mean()):
        hint = "normalise both rows first: an inner product is a cosine only for vectors of length 1"
    elif close(value, (1 - F.normalize(text, dim=-1) @ F.normalize(target, dim=-1).T).mean()):
        hint = "each name belongs to its own zero-shot feature only; compare row j with row j"
    elif close(value, expected) and not value.requires_grad:
        hint = "the number is right, but no gradient can reach the text: do not detach it"
        return report(False, "", hint)
    return report(close(value, expected), "zero where nothing has been forgotten, two at worst", hint)
