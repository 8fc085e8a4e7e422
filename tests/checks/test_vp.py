"""The checks of 17_vp accept the solutions and answer typical wrong attempts with a hint, without raising."""

import pytest
import torch

from vlmcourse.checks.vp import check_frame, check_label_map, check_numbers


def frame(up, down, left, right):
    inner = left.shape[1]
    return torch.cat([up, torch.cat([left, left.new_zeros(3, inner, inner), right], 2), down], 1)


def numbers(design, p, S):
    return 6 * p * (2 * S - 2 * p) if design == "padding" else 3 * p * p


def label_map(outputs, labels, C):
    chosen = []
    for c in range(C):
        votes = torch.bincount(outputs[labels == c].argmax(1), minlength=outputs.shape[1]).float()
        votes[chosen] = -1
        chosen.append(int(votes.argmax()))
    return chosen


@pytest.mark.parametrize(
    ("check", "solution"), [(check_frame, frame), (check_numbers, numbers), (check_label_map, label_map)]
)
def test_solutions_pass(check, solution, capsys):
    assert check(solution) is True
    assert capsys.readouterr().out.startswith("✓ ")


def test_the_reference_is_the_packages(vit_backbone):
    from vlmcourse.methods.visual_prompts.vp import VP

    for design in ("padding", "fixed_patch"):
        method = VP(vit_backbone, design=design, prompt_size=5)
        method.parts = method._start()
        assert numbers(design, 5, 32) == sum(part.numel() for part in method.parts.values())
        if design == "padding":
            assert torch.equal(method.delta(), frame(*(method.parts[n] for n in ("up", "down", "left", "right"))))


def filled(up, down, left, right):
    value = frame(up, down, left, right).clone()
    value[:, 2:-2, 2:-2] = 1
    return value


WRONG = [
    (check_frame, lambda u, d, le, r: None, "returns None"),
    (check_frame, lambda u, d, le, r: frame(u, d, le, r).detach(), "no gradient"),
    (check_frame, lambda u, d, le, r: frame(d, u, le, r), "up and down are exchanged"),
    (check_frame, lambda u, d, le, r: frame(u, d, r, le), "left and right are exchanged"),
    (check_frame, lambda u, d, le, r: torch.cat([u, d], 1), "has shape (3, 4, 6)"),
    (check_frame, filled, "middle must be 0"),
    (check_frame, "frame", "pass the function itself"),
    (check_numbers, lambda d, p, S: None, "returns None"),
    (check_numbers, lambda d, p, S: 12 * p * S if d == "padding" else 3 * p * p, "counted twice"),
    (check_numbers, lambda d, p, S: numbers(d, p, S) // 3, "three colours"),
    (check_numbers, lambda d, p, S: numbers("padding", p, S), "learns 2,700 numbers"),
    (check_label_map, lambda o, y, C: None, "returns None"),
    (check_label_map, lambda o, y, C: [3, 3, 4], "same output"),
    (check_label_map, lambda o, y, C: range(C), "hard-coded"),
    (check_label_map, lambda o, y, C: list(range(C)), "hard-coded"),
    (check_label_map, lambda o, y, C: [1, 2, 3], "expected [3, 0, 4]"),
    (check_label_map, 3, "pass the function itself"),
]


@pytest.mark.parametrize(("check", "wrong", "hint"), WRONG)
def test_wrong_attempts_get_a_hint(check, wrong, hint, capsys):
    assert check(wrong) is False
    said = capsys.readouterr().out
    assert said.startswith("✗ not yet: ") and hint in said
