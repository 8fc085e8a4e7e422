"""Checks of notebooks/7_other_methods/32_vcd.ipynb: the phrase, the scores of unequal lists, leave-one-out reasons."""

import torch
import torch.nn.functional as F

from vlmcourse.checks.report import attempt, close, report


def check_phrase(function) -> bool:
    """function: descriptor -> relative clause, decided by the first *word*."""
    cases = {"a long tail": "which is a long tail", "large eyes": "which has large eyes",
             "often found in trees": "which often found in trees", "used for cooking": "which is used for cooking",
             "can fly": "which can fly", "antlers": "which has antlers",
             "candles on top": "which has candles on top"}  # fmt: skip
    for descriptor, expected in cases.items():
        value, problem = attempt(function, descriptor)
        if problem:
            return report(False, "", problem)
        if value != expected:
            hint = f"for {descriptor!r} expected {expected!r}, got {value!r}"
            if descriptor in ("antlers", "candles on top") and value in ("which is antlers", "which candles on top"):
                hint = f"{descriptor!r} does not begin with the *word* in question; compare the first word"
            return report(False, "", hint)
    return report(True, "grammar that looks at words, not at characters", "")


def check_scores(function) -> bool:
    """function: (features (B, E) unit, sentences (sum m, E) unit, counts) -> (B, C), the mean similarity per class."""
    draw = torch.Generator().manual_seed(0)
    f, e = (F.normalize(torch.randn(n, 5, generator=draw), dim=-1) for n in (4, 6))
    counts = [3, 1, 2]
    value, problem = attempt(function, f.clone(), e.clone(), list(counts))
    if problem:
        return report(False, "", problem)
    parts = (f @ e.T).split(counts, dim=1)
    expected = torch.stack([part.mean(1) for part in parts], dim=1)
    means = torch.stack([group.mean(0) for group in e.split(counts)])
    hint = f"expected (4, 3): for each class the mean over its columns of features @ sentences.T, got {value!r:.50}"
    if close(value, f @ F.normalize(means, dim=-1).T):
        hint = "you normalised the mean vector: that is CuPL. VCD takes the mean of the similarities"
    elif close(value, torch.stack([part.sum(1) for part in parts], dim=1)):
        hint = "this is the sum: classes with many descriptors would win; take the mean"
    elif close(value, torch.stack([part.amax(1) for part in parts], dim=1)):
        hint = "this is the maximum; the paper takes the mean"
    return report(close(value, expected), "one score per class, however many descriptors it has", hint)


def check_reasons(function) -> bool:
    """function: (winner (m,), other (n,) similarities) -> m drops of the margin when one of the winner's is removed.

    The margin is mean(winner) - mean(other); a drop is positive where the descriptor supported the decision.
    """
    winner, other = torch.tensor([0.5, 0.3, 0.1]), torch.tensor([0.2, 0.25])
    value, problem = attempt(function, winner.clone(), other.clone())
    if problem:
        return report(False, "", problem)
    without = torch.stack([torch.cat([winner[:i], winner[i + 1 :]]).mean() for i in range(3)])
    expected = winner.mean() - without
    hint = f"expected {[round(v, 3) for v in expected.tolist()]} for the example, got {value!r:.60}"
    if close(value, -expected):
        hint = "the sign: a descriptor that supported the decision has a positive drop"
    elif close(value, without - other.mean()):
        hint = "these are the margins that remain; asked is how much each is below the whole margin"
    elif close(value, winner - other.mean()):
        hint = "this compares each similarity with the other class; asked is what happens without it"
    elif close(value, winner / 3):
        hint = "this is the share of the sum; without a descriptor the mean is over one fewer"
    return report(close(value, expected), "what would be missing: an explanation one can test", hint)
