"""The checks of "Zero-shot in five minutes" accept the reference, and answer typical mistakes with a hint."""

import pytest
import torch
import torch.nn.functional as F

from vlmcourse.checks import quick_start as check
from vlmcourse.methods.baselines.zero_shot import ZeroShot
from vlmcourse.tasks import Split, Task


def best(similarity, k):
    own = torch.arange(len(similarity))[:, None]
    return (similarity.topk(k, dim=1).indices == own).any(dim=1).float().mean().item()


def on_validation(backbone, task, templates):
    return max(templates, key=lambda t: ZeroShot(backbone, templates=t).fit(task.val).score(task.val))


@pytest.fixture(scope="module")
def task():
    coarse = torch.rand(
        200, 3, 2, 2, generator=torch.Generator().manual_seed(3)
    )  # colours that the features tell apart
    images = (F.interpolate(coarse, (32, 32)) * 255).to(torch.uint8)
    part = Split(images, torch.arange(200) % 4, ("cat", "dog", "rocket", "house"))
    return Task("tiny", "Tiny", part, part, part, "none")


def test_the_references_pass(capsys, vit_backbone, task):
    assert check.check_ensemble(lambda f: F.normalize(F.normalize(f, dim=-1).mean(0), dim=-1))
    assert check.check_recall(best)
    assert check.check_choose_template(on_validation, vit_backbone, task)
    assert capsys.readouterr().out.count("✓") == 3


@pytest.mark.parametrize(
    "attempt, hint",
    [
        (lambda f: F.normalize(f.mean(0), dim=-1), "long features weigh more"),
        (lambda f: F.normalize(f, dim=-1).mean(0), "its length is"),
        (lambda f: f, "shape (E,)"),
        (lambda f: None, "return"),
        (lambda f: f @ f, "raised"),
        (7, "function itself"),
    ],
)
def test_ensemble_hints(capsys, attempt, hint):
    assert not check.check_ensemble(attempt)
    assert hint in capsys.readouterr().out


@pytest.mark.parametrize(
    "attempt, hint",
    [
        (lambda s, k: best(s.T, k), "rows"),
        (lambda s, k: best(s, 1), "not only the first"),
        (lambda s, k: best(s, k) * len(s), "divide"),
        (lambda s, k: s, "the shares are"),
        (lambda s: 1, "raised TypeError"),
        (None, "function itself"),
    ],
)
def test_recall_hints(capsys, attempt, hint):
    assert not check.check_recall(attempt)
    assert hint in capsys.readouterr().out


def test_choose_template_hints(capsys, vit_backbone, task):
    def worst(backbone, task, templates):
        return min(templates, key=lambda t: ZeroShot(backbone, templates=t).fit(task.val).score(task.val))

    scores = {ZeroShot(vit_backbone, templates=t).fit(task.val).score(task.val) for t in check.TEMPLATES}
    assert len(scores) > 1  # else there is nothing to choose
    for attempt, hint in (
        (worst, "not the best of the four"),
        (lambda *_: "a {}", "one of the templates"),
        (lambda *_: ["a {}"], "one of the templates"),
        (lambda *_: None, "return"),
        ("words", "function itself"),
    ):
        assert not check.check_choose_template(attempt, vit_backbone, task)
        assert hint in capsys.readouterr().out
