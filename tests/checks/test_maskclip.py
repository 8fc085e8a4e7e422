"""The checks of 27_maskclip accept the solutions and answer typical wrong attempts with a hint, without raising."""

import pytest
import torch
import torch.nn.functional as F

from vlmcourse.checks.maskclip import check_denoise, check_iou, check_score_maps
from vlmcourse.evaluation.segmentation import confusion, iou
from vlmcourse.methods.other_methods import maskclip


def score_maps(dense, text):
    return torch.einsum("behw,ce->bchw", F.normalize(dense, dim=1), F.normalize(text, dim=1))


def denoise(scores, pd, scale):
    return maskclip.denoise(scores[None], pd, scale)[0]


def class_iou(predicted, labels, classes):
    return iou(confusion(predicted, labels, classes))


@pytest.mark.parametrize(
    ("check", "solution"), [(check_score_maps, score_maps), (check_denoise, denoise), (check_iou, class_iou)]
)
def test_solutions_pass(check, solution, capsys):
    assert check(solution) is True and capsys.readouterr().out.startswith("✓ ")


@pytest.mark.parametrize(
    ("check", "wrong", "hint"),
    [
        (check_score_maps, lambda d, t: torch.einsum("behw,ce->bchw", d, t), "unit vectors"),
        (check_score_maps, lambda d, t: score_maps(d, t).argmax(1), "argmax comes after"),
        (check_score_maps, None, "function itself"),
        (check_denoise, lambda s, pd, k: torch.where((k * s).softmax(0) >= pd, s, -100.0), "as a whole"),
        (
            check_denoise,
            lambda s, pd, k: torch.where((k * s).softmax(1).amax(1, keepdim=True) >= pd, s, -100.0),
            "over the classes",
        ),
        (check_denoise, lambda s, pd, k: None, "returns None"),
        (check_iou, lambda p, y, c: class_iou(p, y, c).mean(), "their mean already"),
        (check_iou, lambda p, y, c: torch.tensor([1.0, 2 / 3, 1.0]), "share of each class"),
        (check_iou, lambda p, y, c: 1 / 0, "ZeroDivisionError"),
    ],
)
def test_wrong_attempts_get_a_hint(check, wrong, hint, capsys):
    assert check(wrong) is False
    assert hint in capsys.readouterr().out
