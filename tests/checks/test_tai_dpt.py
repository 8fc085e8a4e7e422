"""The checks of 12_tai_dpt accept the solutions and answer typical wrong attempts with a hint, without raising."""

import pytest

from vlmcourse.checks.tai_dpt import check_local_score, check_merge, check_ranking_loss
from vlmcourse.methods.text_prompts.tai_dpt import merge_scores, ranking_loss


def local(cosine, end, beta):
    cosine = cosine[: end + 1]
    return 4 * ((beta * cosine).softmax(dim=0) * cosine).sum(dim=0)


@pytest.mark.parametrize(
    ("check", "solution"),
    [(check_ranking_loss, ranking_loss), (check_local_score, local), (check_merge, merge_scores)],
)
def test_solutions_pass(check, solution, capsys):
    assert check(solution) is True
    assert capsys.readouterr().out.startswith("✓ ")


def unclamped(z, y):
    pairs = (y[:, :, None] == 1) & (y[:, None, :] == 0)
    return ((1 - z[:, :, None] + z[:, None, :]) * pairs).sum() / len(z)


WRONG = [
    (check_ranking_loss, lambda z, y: None, "returns None"),
    (check_ranking_loss, lambda z, y: len(z) * ranking_loss(z, y), "mean over the rows"),
    (check_ranking_loss, unclamped, "clamp"),
    (check_ranking_loss, lambda z, y: ranking_loss(-z, y), "the sign"),
    (check_local_score, lambda c, end, beta: local(c, len(c), beta), "padding takes part"),
    (check_local_score, lambda c, end, beta: local(c, end - 1, beta), "the end token takes part"),
    (check_local_score, lambda c, end, beta: local(c, end, beta) / 4, "the scale 4"),
    (check_local_score, "no", "pass the function itself"),
    (check_merge, lambda a, b, r: (1 - r) * a + r * b, "scale first"),
    (check_merge, lambda a, b, r: merge_scores(a, b, 1 - r), "the second matrix"),
    (check_merge, lambda a, b, r: 1 / 0, "ZeroDivisionError"),
]


@pytest.mark.parametrize(("check", "attempt", "hint"), WRONG)
def test_wrong_attempts_get_a_hint(check, attempt, hint, capsys):
    assert check(attempt) is False
    out = capsys.readouterr().out
    assert out.startswith("✗ not yet: ") and hint in out
