"""Exercise checks of TaskRes: references pass, typical mistakes get their own hint, nothing raises."""

import pytest
import torch.nn.functional as F

from vlmcourse.checks.taskres import check_fold, check_logits, check_tangent


def unit(x):
    return F.normalize(x, dim=-1)


REFERENCES = {
    check_logits: lambda f, t, x, a, s: s * f @ unit(t + a * x).T,
    check_tangent: lambda t, x: (x - (x * unit(t)).sum(-1, keepdim=True) * unit(t)).norm(dim=-1) / x.norm(dim=-1),
    check_fold: lambda t, x, a, keep: unit(t + a * x)[keep],
}
MISTAKES = [
    (check_logits, lambda f, t, x, a, s: s * f @ (t + a * x).T, "not normalised"),
    (check_logits, lambda f, t, x, a, s: s * f @ unit(unit(t) + a * x).T, "as long as it is"),
    (check_logits, lambda f, t, x, a, s: s * f @ (unit(t) + a * unit(x)).T, "not its parts"),
    (check_logits, lambda f, t, x, a, s: s * f @ unit(t + x).T, "scale alpha"),
    (check_logits, lambda f, t, x, a, s: f @ unit(t + a * x).T, "logit scale"),
    (check_logits, lambda f, t, x, a, s: s * unit(t + a * x) @ f.T, "rows"),
    (check_tangent, lambda t, x: F.cosine_similarity(t, x), "longer or shorter"),
    (check_tangent, lambda t, x: F.cosine_similarity(t, x).abs(), "along t_c"),
    (check_tangent, lambda t, x: 1 - F.cosine_similarity(t, x) ** 2, "square root"),
    (check_tangent, lambda t, x: (1 - F.cosine_similarity(t, x) ** 2).sqrt() * x.norm(dim=-1), "divide"),
    (check_fold, lambda t, x, a, keep: unit(t + a * x), "all classes"),
    (check_fold, lambda t, x, a, keep: unit(t + a * x)[sorted(keep)], "order"),
    (check_fold, lambda t, x, a, keep: (t + a * x)[keep], "normalise the rows"),
    (check_fold, lambda t, x, a, keep: unit(t)[keep], "residual is missing"),
]


@pytest.mark.parametrize("check", REFERENCES, ids=lambda c: c.__name__)
def test_references_pass_and_non_answers_fail_with_a_hint(check, passes_reference_only):
    passes_reference_only(check, REFERENCES[check])


@pytest.mark.parametrize("check, mistake, hint", MISTAKES)
def test_typical_mistakes_get_their_hint(check, mistake, hint, hints_at):
    hints_at(check, mistake, hint)
