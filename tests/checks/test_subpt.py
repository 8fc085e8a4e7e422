"""The checks of 05_subpt accept the solutions and answer typical wrong attempts with a hint, without raising."""

import pytest
import torch
import torch.nn.functional as F

from vlmcourse.checks.subpt import check_directions, check_nfl, check_projection
from vlmcourse.methods.text_prompts.subpt import principal_directions, project


def directions(trajectory, r):
    return principal_directions(trajectory, r)[0]


def nfl(text, zero_shot):
    return (1 - F.cosine_similarity(text, zero_shot, dim=-1)).mean()


@pytest.mark.parametrize(
    ("check", "solution"), [(check_directions, directions), (check_projection, project), (check_nfl, nfl)]
)
def test_solutions_pass(check, solution, capsys):
    assert check(solution) is True
    assert capsys.readouterr().out.startswith("✓ ")


def rows(x):
    return torch.linalg.svd(x, full_matrices=False).Vh


WRONG = [
    (check_directions, lambda t, r: None, "returns None"),
    (check_directions, lambda t, r: rows(t)[:r], "subtract the mean"),
    (check_directions, lambda t, r: rows(t - t.mean(0))[-r:], "last rows"),
    (check_directions, lambda t, r: rows(t - t.mean(0))[:r].T, "expected shape (1, 12)"),
    (check_directions, lambda t, r: 2 * directions(t, r), "length 1"),
    (check_directions, lambda t, r: torch.eye(12)[-r:], "not the directions"),
    (check_directions, 3, "pass the function itself"),
    (check_projection, lambda g, u: None, "returns None"),
    (check_projection, lambda g, u: g, "unchanged"),
    (check_projection, lambda g, u: g - project(g, u), "outside the subspace"),
    (check_projection, lambda g, u: project(g, u).flatten(), "expected shape (3, 4)"),
    (check_projection, lambda g, u: F.normalize(project(g, u).flatten(), dim=0).reshape(3, 4), "do not normalise"),
    (check_projection, lambda g, u: u @ g, "raised"),
    (check_projection, lambda g, u: g * 0, "not Uᵀ U g"),
    (check_nfl, lambda t, z: None, "returns None"),
    (check_nfl, lambda t, z: 1 - F.cosine_similarity(t, z, dim=-1), "return one number"),
    (check_nfl, lambda t, z: F.cosine_similarity(t, z, dim=-1).mean(), "grows when the texts agree"),
    (check_nfl, lambda t, z: 5 * nfl(t, z), "the sum over the names"),
    (check_nfl, lambda t, z: (1 - (t * z).sum(-1)).mean(), "normalise both rows"),
    (check_nfl, lambda t, z: (1 - F.normalize(t, dim=-1) @ F.normalize(z, dim=-1).T).mean(), "row j with row j"),
    (check_nfl, lambda t, z: nfl(t.detach(), z), "no gradient"),
    (check_nfl, lambda t, z: (t - z).square().mean(), "not the mean"),
]


@pytest.mark.parametrize(("check", "attempt", "hint"), WRONG)
def test_wrong_attempts_get_a_hint(check, attempt, hint, capsys):
    assert check(attempt) is False
    out = capsys.readouterr().out
    assert out.startswith("✗ not yet: ") and hint in out
