"""Exercise checks of SVL-Adapter: references pass, typical mistakes get their own hint, nothing raises."""

import pytest
import torch
import torch.nn.functional as F

from vlmcourse.checks.svl_adapter import check_choice, check_lambda, check_nt_xent
from vlmcourse.methods.self_supervised import nt_xent


def scores(z, g, labels, grid):
    return [float(((a * g + (1 - a) * z).argmax(1) == labels).double().mean()) for a in grid]


def rows_loss(z1, z2, tau, normalise=True, keep_self=False):
    z = torch.cat([z1, z2])
    z = F.normalize(z, dim=-1) if normalise else z
    similarity = z @ z.T / tau
    similarity = similarity if keep_self else similarity.fill_diagonal_(-torch.inf)
    return F.cross_entropy(similarity, torch.arange(len(z)).roll(len(z1)))


REFERENCES = {
    check_nt_xent: nt_xent,
    check_lambda: lambda z: 1 - z.softmax(-1).max(-1).values.mean(),
    check_choice: lambda z, g, y, grid: grid[scores(z, g, y, grid).index(max(scores(z, g, y, grid)))],
}
MISTAKES = [
    (check_nt_xent, lambda a, b, t: rows_loss(a, b, t, normalise=False), "normalise the rows"),
    (check_nt_xent, lambda a, b, t: rows_loss(a, b, t, keep_self=True), "compete with itself"),
    (check_nt_xent, lambda a, b, t: rows_loss(a, b, 1.0), "divide the cosines"),
    (check_nt_xent, lambda a, b, t: rows_loss(a, b, 1 / t), "do not multiply"),
    (check_nt_xent, lambda a, b, t: 10 * rows_loss(a, b, t), "take the mean"),
    (
        check_nt_xent,
        lambda a, b, t: F.cross_entropy(F.normalize(a, dim=-1) @ F.normalize(b, dim=-1).T / t, torch.arange(len(a))),
        "first crops with second crops only",
    ),
    (check_lambda, lambda z: z.softmax(-1).max(-1).values.mean(), "CLIP's confidence"),
    (check_lambda, lambda z: 1 - z.max(-1).values.mean(), "softmax first"),
    (check_lambda, lambda z: 1 - z.softmax(0).max(-1).values.mean(), "dim=-1"),
    (check_lambda, lambda z: 1 - z.softmax(-1).max(-1).values, "take the mean"),
    (check_lambda, lambda z: 1 - z.softmax(-1).mean(), "largest probability"),
    (check_choice, lambda z, g, y, grid: max(reversed(grid), key=lambda a: scores(z, g, y, [a])[0]), "take the first"),
    (check_choice, lambda z, g, y, grid: max(grid, key=lambda a: scores(g, z, y, [a])[0]), "weight of the adapter"),
    (check_choice, lambda z, g, y, grid: max(scores(z, g, y, grid)), "return the lambda"),
]


@pytest.mark.parametrize("check", REFERENCES, ids=lambda c: c.__name__)
def test_references_pass_and_non_answers_fail_with_a_hint(check, passes_reference_only):
    passes_reference_only(check, REFERENCES[check])


@pytest.mark.parametrize("check, mistake, hint", MISTAKES)
def test_typical_mistakes_get_their_hint(check, mistake, hint, hints_at):
    hints_at(check, mistake, hint)
