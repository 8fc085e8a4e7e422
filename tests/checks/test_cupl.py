"""The checks of 31_cupl accept the solutions and answer typical wrong attempts with a hint, without raising."""

import pytest
import torch
import torch.nn.functional as F

from vlmcourse.checks.cupl import check_ensemble, check_filter, check_questions


def ensemble(features, counts):
    groups = F.normalize(features, dim=-1).split(counts)
    return F.normalize(torch.stack([g.mean(0) for g in groups]), dim=-1)


def question(template, name):
    name = name.replace("_", " ")
    return template.replace("{a}", "an" if name[0].lower() in "aeiou" else "a").replace("{}", name)


def margins(similarities, c):
    return similarities[:, c] - (similarities.sum(1) - similarities[:, c]) / (similarities.shape[1] - 1)


def chosen(similarities, c, k):
    return margins(similarities, c).topk(k).indices


@pytest.mark.parametrize(
    ("check", "solution"), [(check_ensemble, ensemble), (check_questions, question), (check_filter, chosen)]
)
def test_solutions_pass(check, solution, capsys):
    assert check(solution) is True
    assert capsys.readouterr().out.startswith("✓ ")


def test_the_references_are_the_packages(vit_backbone):
    from vlmcourse.methods.descriptions import class_index, class_mean
    from vlmcourse.methods.other_methods.cupl import QUESTIONS, ask

    x, counts = torch.randn(6, 5), [3, 1, 2]
    index = class_index([range(n) for n in counts])
    expected = F.normalize(class_mean(F.normalize(x, dim=-1), index, 3), dim=-1)
    torch.testing.assert_close(ensemble(x, counts), expected)
    for template in QUESTIONS["full"]:
        assert question(template, "red_apple") == ask(template, "red_apple", fix_article=True)


@pytest.mark.parametrize(
    ("check", "wrong", "hint"),
    [
        (check_ensemble, lambda f, counts: torch.stack([g.mean(0) for g in F.normalize(f, dim=-1).split(counts)]),
         "normalise the means, too"),
        (check_ensemble, lambda f, counts: F.normalize(torch.stack([g.mean(0) for g in f.split(counts)]), dim=-1),
         "before the mean"),
        (check_ensemble, lambda f, counts: F.normalize(F.normalize(f, dim=-1).reshape(3, 2, 5).mean(1), dim=-1),
         "not 2 each"),
        (check_questions, lambda q, n: q.replace("{a}", "a").replace("{}", n), "upper-case vowels only"),
        (check_questions, lambda q, n: q.replace("{a}", "an" if n[0].lower() in "aeiou" else "a").replace("{}", n),
         "underscores"),
        (check_filter, lambda s, c, k: s[:, c].topk(k).indices, "subtract the others"),
        (check_filter, lambda s, c, k: margins(s, c).topk(k, largest=False).indices, "not the smallest"),
        (check_filter, lambda s, c, k: chosen(s, c, k).flip(0), "best first"),
        (check_ensemble, lambda f, counts: 1 / 0, "raised ZeroDivisionError"),
        (check_questions, lambda q, n: None, "returns None"),
        (check_filter, "chosen", "pass the function itself"),
    ],
)  # fmt: skip
def test_wrong_attempts_get_a_hint(check, wrong, hint, capsys):
    assert check(wrong) is False
    said = capsys.readouterr().out
    assert said.startswith("✗ not yet: ") and hint in said
