"""The checks of 21_maple accept the solutions and answer typical wrong attempts with a hint, without raising."""

import pytest
import torch

from vlmcourse.checks.maple import check_count, check_coupling, check_replace


def coupling(prompts, weights, biases):
    return torch.einsum("jmd,jvd->jmv", prompts, weights) + biases[:, None]


def replace(tokens, prompts):
    kept = tokens[:, : tokens.shape[1] - len(prompts)]
    return torch.cat([kept, prompts.expand(len(tokens), -1, -1)], dim=1)


def count(J, M, D, Dv):
    return J * (M * D + D * Dv + Dv)


def in_place(tokens, prompts):
    tokens[:, tokens.shape[1] - len(prompts) :] = prompts
    return tokens


def minus_m(tokens, prompts):
    return torch.cat([tokens[:, : -len(prompts)], prompts.expand(len(tokens), -1, -1)], dim=1)


def appended(tokens, prompts):
    return torch.cat([tokens, prompts.expand(len(tokens), -1, -1)], dim=1)


def behind_cls(tokens, prompts):
    return torch.cat([tokens[:, :1], prompts.expand(len(tokens), -1, -1), tokens[:, 1 + len(prompts) :]], dim=1)


@pytest.mark.parametrize(
    ("check", "solution"), [(check_coupling, coupling), (check_replace, replace), (check_count, count)]
)
def test_solutions_pass(check, solution, capsys):
    assert check(solution) is True
    assert capsys.readouterr().out.startswith("✓ ")


def test_the_references_are_the_packages(vit_backbone):
    from vlmcourse.methods.text_visual_prompts.maple import MaPLe
    from vlmcourse.tasks.base import Split

    train = Split(torch.zeros(2, 3, 32, 32, dtype=torch.uint8), [0, 1], ["owl", "yak"])
    method = MaPLe(vit_backbone, epochs=0).fit(train)
    weights, biases = (torch.stack([getattr(net[0], n) for net in method.coupling]) for n in ("weight", "bias"))
    ours = coupling(torch.stack(method.text_prompts()), weights, biases)
    torch.testing.assert_close(ours, torch.stack(method.visual_prompts()))
    assert method.n_learned == count(3, 2, 32, 48)


WRONG = [
    (check_coupling, lambda p, w, b: None, "returns None"),
    (check_coupling, lambda p, w, b: p @ w.transpose(1, 2), "biases are missing"),
    (check_coupling, lambda p, w, b: p @ w[0].T + b[0], "coupling of its own"),
    (check_coupling, lambda p, w, b: coupling(p, w, b).detach(), "no gradient"),
    (check_coupling, lambda p, w, b: p @ w, "raised"),
    (check_coupling, 3, "pass the function itself"),
    (check_replace, lambda x, p: None, "returns None"),
    (check_replace, in_place, "changed the tokens"),
    (check_replace, minus_m, "count from the front"),
    (check_replace, appended, "you appended"),
    (check_replace, behind_cls, "behind the class token"),
    (check_replace, lambda x, p: x.clone(), "expected the first tokens"),
    (check_count, lambda J, M, D, Dv: None, "returns None"),
    (check_count, lambda J, M, D, Dv: J * M * D + J * D * Dv, "biases, too"),
    (check_count, lambda J, M, D, Dv: J * M * D + (J - 1) * (D * Dv + Dv), "the first one included"),
    (check_count, lambda J, M, D, Dv: J * M * (D + Dv), "independent prompts"),
    (check_count, lambda J, M, D, Dv: 1, "expected 3555072"),
]


@pytest.mark.parametrize(("check", "wrong", "hint"), WRONG)
def test_wrong_attempts_get_a_hint(check, wrong, hint, capsys):
    assert check(wrong) is False
    said = capsys.readouterr().out
    assert said.startswith("✗ not yet: ") and hint in said
