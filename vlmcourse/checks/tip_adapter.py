"""Checks of the exercises in the Tip-Adapter notebook (Zhang et al., ECCV 2022, arXiv 2207.09519).

    check_tip_adapter(fn)      fn(f, W, keys, labels, alpha, beta, scale) -> logits (B, C), from integer labels (N,)
    check_prototypes(fn)       fn(keys, labels, num_classes) -> class means (C, E)
    check_leave_one_out(fn)    fn(W, keys, labels, alpha, beta, scale) -> accuracy in 0..1 on its own images
Each prints one line and returns whether the attempt is right; none raises.
"""

import torch
import torch.nn.functional as F

from vlmcourse.checks.report import attempt, close, report


def _unit(*shape, seed: int):
    return F.normalize(torch.randn(*shape, generator=torch.Generator().manual_seed(seed)), dim=-1)


def _problem():
    """f (5, E), W (4, E), keys (9, E), labels (9,): four classes with 4, 1, 3 and 1 cached images, not sorted."""
    labels = torch.tensor([2, 0, 0, 3, 2, 0, 1, 2, 0])
    return _unit(5, 6, seed=1), _unit(4, 6, seed=2), _unit(9, 6, seed=3), labels


def _logits(f, W, keys, labels, alpha, beta, scale, weight=lambda affinity, beta: torch.exp(-beta * (1 - affinity))):
    votes = weight(f @ keys.T, beta) @ F.one_hot(labels, len(W)).to(f)
    return scale * f @ W.T + alpha * votes


def check_tip_adapter(fn) -> bool:
    """Whether fn computes Tip-Adapter's logits for caches of any size and order."""
    f, W, keys, labels = _problem()
    settings = (1.5, 4.0, 20.0)
    right, inputs = _logits(f, W, keys, labels, *settings), (f, W, keys, labels, *settings)
    mistakes = {
        "the votes are there, the zero-shot logits scale · f Wᵀ are not": _logits(f, 0 * W, keys, labels, *settings),
        "the zero-shot part needs the factor `scale`": _logits(f, W, keys, labels, 1.5, 4.0, 1.0),
        "the votes need the factor `alpha`": _logits(f, W, keys, labels, 1.0, 4.0, 20.0),
        "this is zero-shot: the votes of the cache are missing": _logits(f, W, keys, labels, 0.0, 4.0, 20.0),
        "look at the sign: a cached image at A = 1 must get weight 1, farther ones less": _logits(
            f, W, keys, labels, *settings, weight=lambda a, b: torch.exp(b * (1 - a))
        ),
        "the weight is exp(−β(1 − A)): at A = 1 it must be 1": _logits(
            f, W, keys, labels, *settings, weight=lambda a, b: torch.exp(b * a)
        ),
        "the votes are sums over the cached images of a class; do not normalise the weights": _logits(
            f, W, keys, labels, *settings, weight=lambda a, b: torch.softmax(b * a, dim=-1)
        ),
    }
    value, problem = attempt(fn, *inputs)
    if problem is None and not close(value, right):
        problem = next((hint for hint, wrong in mistakes.items() if close(value, wrong)), _shape(value, right))
    return report(problem is None, "the vote of the cache, from integer labels", problem or "")


def check_prototypes(fn) -> bool:
    """Whether fn computes the mean key of every class, not normalised, also for classes of different size."""
    *_, keys, labels = _problem()
    sums = F.one_hot(labels, 4).float().T @ keys  # (C, E)
    right = sums / torch.bincount(labels, minlength=4)[:, None]
    value, problem = attempt(fn, keys, labels, 4)
    if problem is None and not close(value, right):
        mistakes = {
            "these are sums; divide each by the number of its cached images": sums,
            "do not normalise: the length of the mean tells how well the images of a class agree": F.normalize(
                right, dim=-1
            ),
        }
        problem = next((hint for hint, wrong in mistakes.items() if close(value, wrong)), _shape(value, right))
    return report(problem is None, "one prototype per class", problem or "")


def check_leave_one_out(fn) -> bool:
    """Whether fn lets every cached image be classified by all the others."""
    _, W, keys, labels = _problem()
    problem = None
    for alpha, beta, scale in ((6.0, 2.0, 1.0), (30.0, 5.0, 1.0), (0.0, 1.0, 1.0)):
        right, own = (_leave_one_out(W, keys, labels, alpha, beta, scale, own) for own in (False, True))
        value, problem = attempt(fn, W, keys, labels, alpha, beta, scale)
        if problem is None and not close(value, right):
            problem = (
                "every image still votes for itself: A = 1 on the diagonal, so its weight there must become 0"
                if right != own and close(value, own)
                else _shape(value, torch.tensor(right))
            )
        if problem is not None:
            break
    return report(problem is None, "every cached image judged by the others", problem or "")


def _leave_one_out(W, keys, labels, alpha, beta, scale, own: bool) -> float:
    weights = torch.exp(-beta * (1 - keys @ keys.T))
    weights = weights if own else weights - torch.diag(weights.diagonal())
    logits = scale * keys @ W.T + alpha * weights @ F.one_hot(labels, len(W)).to(keys)
    return (logits.argmax(1) == labels).double().mean().item()


def _shape(value, right) -> str:
    """What to say where no known mistake fits."""
    got, want = tuple(getattr(value, "shape", ())), tuple(right.shape)
    if not want:
        return f"I expected one number, {right.item():.4f} in this test case, and got {_short(value)}"
    if not isinstance(value, torch.Tensor):
        return f"return a tensor of shape {want}, not {type(value).__name__}"
    if got != want:
        return f"the result has shape {got} and should have {want}"
    return "the shape is right, the numbers are not; compare with the formula term by term"


def _short(value) -> str:
    text = repr(value)
    return text if len(text) < 60 else type(value).__name__
