"""Checks of notebooks/3_text_prompts/08_kgcoop.ipynb: the distance, the whole loss, the choice of a weight by H."""

import torch
import torch.nn.functional as F

from vlmcourse.checks.report import attempt, close, report


def check_distance(function) -> bool:
    """function: (text (C, E), hand (C, E)) -> 1 - mean_c cos(text_c, hand_c); neither is normalised."""
    draw = torch.Generator().manual_seed(0)
    text, hand = 3 * torch.randn(4, 6, generator=draw), 0.5 * torch.randn(4, 6, generator=draw)
    value, problem = attempt(function, text.clone().requires_grad_(), hand.clone())
    if problem:
        return report(False, "", problem)
    t, g = F.normalize(text, dim=-1), F.normalize(hand, dim=-1)
    expected = 1 - (t * g).sum(-1).mean()
    hint = "expected one number, 1 minus the mean over the classes of the cosine of text[c] and hand[c]"
    if close(value, 1 - (text * hand).sum(-1).mean()):
        hint = "these features are not normalised: a cosine needs unit vectors (F.normalize, or F.cosine_similarity)"
    elif close(value, 2 * expected):
        hint = "this is the mean squared distance of the unit vectors, twice what is asked"
    elif close(value, 1 - (t @ g.T).mean()):
        hint = "this compares every class with every class; only text[c] with hand[c] counts"
    elif close(value, 1 - expected):
        hint = "this is the mean cosine; the distance is 1 minus it"
    elif close(value, 1 - (t * g).sum(-1)):
        hint = "this is one distance per class; take their mean"
    elif close(value, (1 - (t * g).sum(-1)).sum()):
        hint = "this is the sum over the classes; with the mean, the weight does not depend on how many there are"
    passed = close(value, expected)
    if passed and not (isinstance(value, torch.Tensor) and value.requires_grad):
        passed, hint = False, "no gradient can reach the learned features: return a tensor, without item() or detach()"
    return report(passed, "0 where both agree, 2 where they are opposite", hint)


def check_loss(function) -> bool:
    """function: (features (B, E), labels (B,), text (C, E), hand (C, E), scale, weight) -> loss; unit rows."""
    draw = torch.Generator().manual_seed(1)
    features, text, hand = (F.normalize(torch.randn(n, 6, generator=draw), dim=-1) for n in (5, 3, 3))
    labels, scale, weight = torch.tensor([0, 2, 1, 1, 0]), 10.0, 8.0
    value, problem = attempt(function, features, labels, text, hand, scale, weight)
    if problem:
        return report(False, "", problem)
    ce, distance = F.cross_entropy(scale * features @ text.T, labels), 1 - (text * hand).sum(-1).mean()
    hint = "expected cross_entropy(scale * features @ text.T, labels) + weight * (1 - mean cosine of text and hand)"
    if close(value, ce + weight * distance):
        again, _ = attempt(function, features, labels, text, hand, scale, 0.0)
        return report(close(again, ce), "with weight 0 it is CoOp's loss", "with weight 0 only the cross-entropy stays")
    if close(value, ce + distance):
        hint = "the weight is missing"
    elif close(value, F.cross_entropy(features @ text.T, labels) + weight * distance):
        hint = "the logits need the scale"
    elif close(value, F.cross_entropy(scale * features @ hand.T, labels) + weight * distance):
        hint = "the logits belong to the learned features; the hand prompts only appear in the distance"
    elif close(value, ce - weight * distance):
        hint = "the distance is a penalty: it is added"
    elif close(value, ce + weight * 2 * distance):
        hint = "this weights the squared distance, twice the cosine distance; see section 2"
    return report(False, "", hint)


def check_choice(function) -> bool:
    """function: {weight: (base accuracies, new accuracies)}, lists over the splits -> the weight with the largest H.

    H is the harmonic mean of the *averages*, as in the papers' tables, not the average of the splits' H.
    """
    cases = ({0.0: ([80, 80], [30, 34]), 8.0: ([78, 76], [42, 44]), 32.0: ([50, 52], [46, 48])},
             {0.0: ([90, 10], [10, 90]), 8.0: ([40, 40], [40, 40]), 32.0: ([20, 20], [20, 20])})  # fmt: skip
    for table in cases:
        value, problem = attempt(function, {w: (list(b), list(n)) for w, (b, n) in table.items()})
        if problem:
            return report(False, "", problem)
        mean = {w: (sum(b) / len(b), sum(n) / len(n)) for w, (b, n) in table.items()}
        best = max(table, key=lambda w: 2 * mean[w][0] * mean[w][1] / sum(mean[w]))
        if close(value, best):
            continue
        hint = f"expected the weight {best:g}, got {value!r}"
        if table is cases[1] and close(value, 8.0):
            hint = "you averaged the splits' H; the tables take the harmonic mean of the averages"
        elif close(value, max(table, key=lambda w: mean[w][0])):
            hint = "this is the best weight on base classes only"
        elif close(value, max(table, key=lambda w: mean[w][1])):
            hint = "this is the best weight on new classes only"
        return report(False, "", hint)
    return report(True, "H asks for both halves at once", "")
