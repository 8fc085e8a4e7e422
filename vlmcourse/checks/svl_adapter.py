"""Checks of notebooks/6_adapters/25_svl_adapter.ipynb: NT-Xent, the label-free lambda, lambda by validation."""

import torch
import torch.nn.functional as F

from vlmcourse.checks.report import attempt, close, report


def _nt_xent(z, partner, temperature, keep_self=False):
    similarity = z @ z.T / temperature
    if not keep_self:
        similarity = similarity.fill_diagonal_(-torch.inf)
    return F.cross_entropy(similarity, partner)


def check_nt_xent(function) -> bool:
    """function: (z1 (B, d), z2 (B, d), temperature) -> NT-Xent, one number; rows are not normalised."""
    draw = torch.Generator().manual_seed(0)
    z1, z2 = 2 * torch.randn(5, 6, generator=draw), torch.randn(5, 6, generator=draw)
    value, problem = attempt(function, z1.clone(), z2.clone(), 0.5)
    if problem:
        return report(False, "", problem)
    raw = torch.cat([z1, z2])
    z, partner = F.normalize(raw, dim=-1), torch.arange(10).roll(5)
    a, b = z[:5], z[5:]
    hint = "expected the mean over all 2B rows of the cross-entropy of their similarities, without the row itself"
    if close(value, _nt_xent(raw, partner, 0.5)):
        hint = "the similarity is a cosine: normalise the rows first"
    elif close(value, _nt_xent(z, partner, 0.5, keep_self=True)):
        hint = "a row must not compete with itself: its similarity to itself is the largest of all; leave it out"
    elif close(value, _nt_xent(z, partner, 1.0)):
        hint = "divide the cosines by the temperature"
    elif close(value, _nt_xent(z, partner, 2.0)):
        hint = "divide by the temperature, do not multiply"
    elif close(value, F.cross_entropy(a @ b.T / 0.5, torch.arange(5))):
        hint = "this compares first crops with second crops only; here every crop is compared with all 2B - 1 others"
    elif close(value, 10 * _nt_xent(z, partner, 0.5)):
        hint = "this is the sum over the rows; take the mean"
    return report(close(value, _nt_xent(z, partner, 0.5)), "find your twin among all other crops", hint)


def check_lambda(function) -> bool:
    """function: (zero-shot logits (N, C)) -> 1 - mean confidence, a number."""
    logits = 3 * torch.randn(7, 4, generator=torch.Generator().manual_seed(1))
    value, problem = attempt(function, logits.clone())
    if problem:
        return report(False, "", problem)
    p = logits.softmax(dim=-1)
    expected = 1 - p.max(dim=-1).values.mean()
    hint = "expected 1 minus the mean over the images of the largest softmax probability"
    if close(value, 1 - expected):
        hint = "this is CLIP's confidence: lambda is what is missing to 1"
    elif close(value, 1 - logits.max(dim=-1).values.mean()):
        hint = "logits are not probabilities: softmax first"
    elif close(value, 1 - logits.softmax(dim=0).max(dim=-1).values.mean()):
        hint = "the softmax runs over the classes, dim=-1"
    elif close(value, 1 - p.max(dim=-1).values):
        hint = "this is one number per image; lambda is one for all: take the mean"
    elif close(value, 1 - p.mean()):
        hint = "confidence is the largest probability of each image, not the mean over the classes"
    return report(close(value, expected), "the less sure CLIP is, the more the adapter says", hint)


def check_choice(function) -> bool:
    """function: (z (B, C), g (B, C), labels (B,), grid: list of lambda) -> the first lambda with the best accuracy."""
    eye = torch.eye(3)
    cases = (
        (
            torch.tensor([[2.0, 0, 1], [0, 2.0, 1], [2.0, 1, 0], [2.0, 0, 1]]),
            3 * eye[[0, 1, 2, 0]],
            torch.tensor([0, 1, 2, 1]),  # nothing gets the last one right
            [0.0, 0.2, 0.4, 0.6, 0.8, 1.0],
        ),
        (4 * eye, eye.roll(1, 0), torch.arange(3), [0.0, 0.5, 1.0]),
    )
    for z, g, labels, grid in cases:
        value, problem = attempt(function, z.clone(), g.clone(), labels.clone(), list(grid))
        if problem:
            return report(False, "", problem)
        right = [float(((a * g + (1 - a) * z).argmax(1) == labels).double().mean()) for a in grid]
        swapped = [float(((a * z + (1 - a) * g).argmax(1) == labels).double().mean()) for a in grid]
        best = grid[right.index(max(right))]
        if close(value, best):
            continue
        hint = f"expected lambda {best:g}, got {value!r}"
        if close(value, grid[len(grid) - 1 - right[::-1].index(max(right))]):
            hint = "several are equally good: take the first, which trusts CLIP most"
        elif close(value, grid[swapped.index(max(swapped))]):
            hint = "lambda is the weight of the adapter g, 1 - lambda that of the zero-shot logits z"
        elif close(value, max(right)):
            hint = "this is the accuracy; return the lambda that has it"
        return report(False, "", hint)
    return report(True, "both ends are candidates, so validation can say: no adapter, or no CLIP", "")
