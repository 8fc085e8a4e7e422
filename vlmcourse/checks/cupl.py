"""Checks of notebooks/7_other_methods/31_cupl.ipynb: the ensemble of unequal lists, a filter, the questions."""

import torch
import torch.nn.functional as F

from vlmcourse.checks.report import attempt, close, report


def check_ensemble(function) -> bool:
    """function: (features (sum m, E) not normalised, counts: list of m per class) -> (C, E) unit class features."""
    x = torch.randn(6, 5, generator=torch.Generator().manual_seed(0)) * torch.tensor([1, 9, 1, 3, 1, 2.0])[:, None]
    counts = [3, 1, 2]
    value, problem = attempt(function, x.clone(), list(counts))
    if problem:
        return report(False, "", problem)
    unit = F.normalize(x, dim=-1)
    groups = unit.split(counts)
    expected = F.normalize(torch.stack([g.mean(0) for g in groups]), dim=-1)
    hint = f"expected a tensor (3, 5): for each class normalise(mean of its normalised rows), got {value!r:.60}"
    if close(value, torch.stack([g.mean(0) for g in groups])):
        hint = "normalise the means, too; without that it is VCD's class vector"
    elif close(value, F.normalize(torch.stack([g.mean(0) for g in x.split(counts)]), dim=-1)):
        hint = "normalise every sentence before the mean, else long vectors count more"
    elif close(value, F.normalize(unit[:6].reshape(3, 2, 5).mean(1), dim=-1)):
        hint = "the classes have 3, 1 and 2 sentences, not 2 each: use counts"
    return report(close(value, expected), "each class is the direction of the mean of its sentences", hint)


def check_questions(function) -> bool:
    """function: (question with {a} and {}, class name) -> question; underscores become spaces, "an" before a vowel."""
    cases = {("Describe what {a} {} looks like:", "apple"): "Describe what an apple looks like:",
             ("What is {a} {}?", "red_fox"): "What is a red fox?",
             ("A caption of an image of {a} {}:", "Umbrella"): "A caption of an image of an Umbrella:",
             ("Describe {}.", "hot_air_balloon"): "Describe hot air balloon."}  # fmt: skip
    for (question, name), expected in cases.items():
        value, problem = attempt(function, question, name)
        if problem:
            return report(False, "", problem)
        if value == expected:
            continue
        hint = f"for {name!r} expected {expected!r}, got {value!r}"
        if isinstance(value, str) and "_" in value:
            hint = "underscores in class names are spaces"
        elif name == "apple" and isinstance(value, str) and " a apple" in value:
            hint = "this is the official rule, which knows upper-case vowels only; here 'apple' gets 'an', too"
        return report(False, "", hint)
    return report(True, "one question per class, ready for a language model", "")


def check_filter(function) -> bool:
    """function: (similarities (m, C) of m sentences with the C name-only prompts, own class c, k) -> k row numbers.

    The k sentences whose cosine with the own class exceeds the mean cosine with the other classes most, best first.
    """
    s = torch.tensor([[0.9, 0.88, 0.9], [0.6, 0.1, 0.2], [0.2, 0.5, 0.4], [0.7, 0.5, 0.4], [0.3, 0.1, 0.1]])
    for c, k in ((0, 2), (0, 3), (1, 2)):
        value, problem = attempt(function, s.clone(), c, k)
        if problem:
            return report(False, "", problem)
        others = s[:, [i for i in range(3) if i != c]]
        margin = s[:, c] - others.mean(1)
        expected = margin.topk(k).indices
        if close(value, expected):
            continue
        hint = f"expected the rows {expected.tolist()} for class {c} and k = {k}, got {value!r:.60}"
        if close(value, s[:, c].topk(k).indices):
            hint = "these are nearest to the own class, but a sentence may be near to every class: subtract the others"
        elif close(value, margin.topk(k, largest=False).indices):
            hint = "the largest margins, not the smallest"
        elif close(torch.as_tensor(value).sort().values, expected.sort().values):
            hint = "the right sentences; return them best first"
        return report(False, "", hint)
    return report(True, "a sentence is useful if it separates, not if it is merely near", "")
