"""Exercise checks of CLIP-Adapter: references pass, typical mistakes get their own hint, nothing raises."""

import pytest
import torch.nn.functional as F

from vlmcourse.checks.clip_adapter import check_adapter, check_choice, check_parameters


def bend(x, down, up):
    return F.relu(F.relu(x @ down.T) @ up.T)


def mean_best(table):
    return max(sorted(table), key=lambda r: round(sum(table[r]) / len(table[r]), 9))


REFERENCES = {
    check_adapter: lambda x, d, u, r: F.normalize(r * bend(x, d, u) + (1 - r) * x, dim=-1),
    check_parameters: lambda width, reduction, sides: 2 * sides * width * (width // reduction),
    check_choice: mean_best,
}
MISTAKES = [
    (check_adapter, lambda x, d, u, r: r * bend(x, d, u) + (1 - r) * x, "normalise the blend"),
    (check_adapter, lambda x, d, u, r: F.normalize((1 - r) * bend(x, d, u) + r * x, dim=-1), "changed places"),
    (check_adapter, lambda x, d, u, r: F.normalize(r * F.relu(x @ d.T) @ u.T + (1 - r) * x, dim=-1), "second ReLU"),
    (check_adapter, lambda x, d, u, r: F.normalize(r * bend(x, d, u) + x, dim=-1), "keeps 1 - ratio"),
    (
        check_adapter,
        lambda x, d, u, r: F.normalize(r * bend(x, d, u) + (1 - r) * F.normalize(x, dim=-1), dim=-1),
        "x that went in",
    ),
    (check_parameters, lambda w, r, s: s * (2 * w * (w // r) + w + w // r), "no biases"),
    (check_parameters, lambda w, r, s: s * w * (w // r), "two matrices"),
    (check_parameters, lambda w, r, s: 2 * w * (w // r), "two adapters"),
    (check_choice, lambda table: max(table, key=lambda r: max(table[r])), "single seed"),
    (check_choice, lambda table: max(table, key=lambda r: round(sum(table[r]), 9)), "take the smaller one"),
    (check_choice, lambda table: max(sum(v) / len(v) for v in table.values()), "return the ratio"),
]


@pytest.mark.parametrize("check", REFERENCES, ids=lambda c: c.__name__)
def test_references_pass_and_non_answers_fail_with_a_hint(check, passes_reference_only):
    passes_reference_only(check, REFERENCES[check])


@pytest.mark.parametrize("check, mistake, hint", MISTAKES)
def test_typical_mistakes_get_their_hint(check, mistake, hint, hints_at):
    hints_at(check, mistake, hint)
