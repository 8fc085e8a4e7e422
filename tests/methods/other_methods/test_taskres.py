"""TaskRes: golden values, what x = 0 and alpha = 0 are, recipe, bases, all residuals, absent classes, errors."""

import pytest
import torch
import torch.nn.functional as F

from vlmcourse.backbone.features import image_features
from vlmcourse.methods.class_text import template_features
from vlmcourse.methods.other_methods.taskres import TaskRes, residual_logits

QUICK = {"epochs": 4, "base_epochs": 4, "lr": 0.1, "base_lr": 0.01, "warmup_epochs": 0}


def sines(rows, columns, a, b):
    """sin(a i j + b i) in float64, rows i and columns j from 1: the toy tensors of the golden values."""
    i, j = torch.arange(1.0, rows + 1).double()[:, None], torch.arange(1.0, columns + 1).double()
    return torch.sin(a * i * j + b * i)


def test_golden_values_of_the_official_functions():
    t = 3 * sines(3, 6, 0.53, 0.9)  # raw, as the base is
    x, f = sines(3, 6, 0.19, 0.4), F.normalize(sines(2, 6, 0.41, 0.2), dim=-1)
    for alpha, expected in (
        (0.0, [[41.08043, -18.323332, -14.206889], [87.632488, -60.633353, 1.557267]]),
        (0.5, [[57.009827, -1.724414, -13.979981], [79.148067, -57.5398, 18.45982]]),
    ):
        expected = torch.tensor(expected, dtype=torch.float64)
        torch.testing.assert_close(residual_logits(f, t, x, alpha, 100.0), expected, atol=1e-5, rtol=0)


def raw_zero_shot(backbone, train, split):
    base = template_features(backbone, train.class_names, train.templates, normalise=False).mean(dim=1)
    return backbone.logit_scale * image_features(backbone, split) @ F.normalize(base, dim=-1).T


@pytest.mark.parametrize("residual", ["text", "image", "both"])
def test_no_residual_and_no_scale_are_zero_shot_with_the_same_base(tower, train, test_split, residual):
    expected = raw_zero_shot(tower, train, test_split)
    untrained = TaskRes(tower, residual=residual, epochs=0).fit(train)
    torch.testing.assert_close(untrained.logits(test_split), expected, atol=1e-4, rtol=0)
    unscaled = TaskRes(tower, residual=residual, alpha=0, epochs=2).fit(train)
    torch.testing.assert_close(unscaled.logits(test_split), expected, atol=1e-4, rtol=0)


@pytest.mark.parametrize("base", ["regular", "enhanced"])
def test_logits_are_the_formula_and_scale_and_residual_can_be_traded(tower, train, test_split, base):
    method = TaskRes(tower, base=base, alpha=0.7, **QUICK).fit(train)
    f = image_features(tower, test_split)
    expected = tower.logit_scale * f @ F.normalize(method.base + 0.7 * method.x, dim=-1).T
    torch.testing.assert_close(method.logits(test_split), expected, atol=1e-4, rtol=0)
    torch.testing.assert_close(tower.logit_scale * f @ method.text_features().T, expected, atol=1e-4, rtol=0)
    torch.testing.assert_close(
        residual_logits(f, method.base, method.x, 0.7, 5.0),
        residual_logits(f, method.base, 4 * method.x, 0.7 / 4, 5.0),
        atol=1e-5, rtol=0,
    )  # fmt: skip
    norms = 0.7 * method.x.norm(dim=-1) / method.base.norm(dim=-1)
    torch.testing.assert_close(method.residual_norms(), norms)


def test_the_gradient_at_zero_is_alpha_times_that_of_the_classifier(vit_backbone, train):
    f, labels = image_features(vit_backbone, train), train.labels
    base = TaskRes(vit_backbone, epochs=0).fit(train).base
    for alpha in (0.5, 2.0):
        x, free = torch.zeros_like(base, requires_grad=True), base.clone().requires_grad_()
        F.cross_entropy(residual_logits(f, base, x, alpha, 10.0), labels).backward()
        F.cross_entropy(residual_logits(f, free, torch.zeros_like(base), alpha, 10.0), labels).backward()
        torch.testing.assert_close(x.grad, alpha * free.grad, atol=1e-6, rtol=1e-4)


@pytest.mark.parametrize("residual, learned", [("text", {"x"}), ("image", {"x_image"}), ("both", {"x", "x_image"})])
def test_fit_lowers_the_loss_and_learns_only_the_residual(tower, train, residual, learned):
    method = TaskRes(tower, residual=residual, epochs=20, lr=0.05, warmup_epochs=0).fit(train)
    assert method.history["cross_entropy"][-1] < method.history["cross_entropy"][0]
    parameters = method.learned_parameters()
    assert set(parameters) == learned and all(p.abs().max() > 0 for p in parameters.values())
    assert method.n_learned == sum({"x": 4 * 16, "x_image": 16}[name] for name in learned)
    untouched = {"x": method.x, "x_image": method.x_image}
    assert all(untouched[name].abs().max() == 0 for name in untouched.keys() - learned)


def test_weight_decay_is_adams_and_pulls_to_zero(vit_backbone, train):
    """The term of the loss has the gradient that torch's Adam adds: the same steps, whatever the decay."""
    for decay in (0.0, 0.05):
        method = TaskRes(vit_backbone, epochs=6, lr=0.1, warmup_epochs=0, weight_decay=decay).fit(train)
        x = torch.zeros_like(method.base, requires_grad=True)
        optimiser = torch.optim.Adam([x], lr=0.1, weight_decay=decay)
        f = image_features(vit_backbone, train)
        for lr in method.history["lr"]:
            optimiser.param_groups[0]["lr"] = lr
            optimiser.zero_grad()
            F.cross_entropy(residual_logits(f, method.base, x, 0.5, vit_backbone.logit_scale), train.labels).backward()
            optimiser.step()
        torch.testing.assert_close(method.x, x.detach(), atol=1e-4, rtol=1e-3)
        assert method.x.abs().max() > 0.1
    strong = TaskRes(vit_backbone, epochs=60, lr=0.1, weight_decay=5.0).fit(train)
    assert strong.x.norm() < 0.5 * TaskRes(vit_backbone, epochs=60, lr=0.1).fit(train).x.norm()


def test_the_enhanced_base_is_behind_a_tuned_projection(tower, train):
    regular = TaskRes(tower, **QUICK).fit(train)
    start = TaskRes(tower, base="enhanced", **QUICK | {"base_epochs": 0}).fit(train)
    torch.testing.assert_close(start.base, regular.base, atol=1e-4, rtol=1e-4)
    before = tower.model.text_projection.clone()
    tuned = TaskRes(tower, base="enhanced", **QUICK | {"base_epochs": 20}).fit(train)
    assert torch.equal(tower.model.text_projection, before), "the backbone is not changed"
    assert tuned.base_history["loss"][-1] < tuned.base_history["loss"][0]
    assert set(tuned.learned_parameters()) == {"x", "text_projection"}
    assert tuned.projection.shape == before.shape and not torch.equal(tuned.projection, before)
    assert tuned.history["cross_entropy"][0] < regular.history["cross_entropy"][0], "x starts from a better base"
    assert not torch.allclose(tuned.base, regular.base)


def test_a_normalised_base_makes_the_same_residual_larger(vit_backbone, train, test_split):
    options = {"epochs": 5, "lr": 0.01, "warmup_epochs": 0}
    raw, unit = (TaskRes(vit_backbone, normalised_base=n, **options).fit(train) for n in (False, True))
    torch.testing.assert_close(unit.base, F.normalize(raw.base, dim=-1))
    assert (unit.residual_norms() > raw.residual_norms()).all() == bool((raw.base.norm(dim=-1) > 1).all())


def test_classes_without_images_move_only_as_negatives(vit_backbone, splits):
    train = splits(labels=[0, 0, 1, 1, 3, 3])
    method = TaskRes(vit_backbone, epochs=10, lr=0.05).fit(train)
    assert method.x[2].abs().max() > 0
    f, t = image_features(vit_backbone, train), method.base[2]
    assert (F.cosine_similarity(f, method.text_features()[2][None]) < F.cosine_similarity(f, t[None])).all()


def test_rows_can_be_sliced_but_not_moved(tower, train, test_split):
    method = TaskRes(tower, **QUICK).fit(train)
    part = method.for_classes([train.class_names[2], train.class_names[0]])
    torch.testing.assert_close(part.logits(test_split), method.logits(test_split)[:, [2, 0]])
    with pytest.raises(ValueError, match="cannot move to classes it was not fitted on, such as 'yak'"):
        method.for_classes(["dog", "yak"])


def test_the_official_recipe(vit_backbone, splits, monkeypatch):
    seen = []
    monkeypatch.setattr("vlmcourse.training.fit", lambda parameters, loss, n, **s: seen.append(s) or {})
    for shots in (4, 8):
        TaskRes(vit_backbone, seed=2).fit(splits(per_class=shots))
    assert seen[0] == {
        "epochs": 100, "lr": 2e-3, "batch_size": 256, "warmup_epochs": 1, "optimizer": "adamw", "weight_decay": 0.0,
        "seed": 2, "progress": False,
    }  # fmt: skip
    assert seen[1]["epochs"] == 200
    assert (TaskRes(vit_backbone).alpha, TaskRes(vit_backbone).weight_decay) == (0.5, 5e-4)


@pytest.mark.parametrize("batch_size", [1, 7, 300])
def test_odd_batches_and_seeds(tower, train, test_split, batch_size):
    options = {"epochs": 2, "batch_size": batch_size}
    one, same = (TaskRes(tower, seed=1, **options).fit(train).logits(test_split) for _ in range(2))
    assert torch.equal(one, same) and torch.isfinite(one).all()


def test_bad_arguments_are_named(vit_backbone):
    for arguments, message in (
        ({"base": "better"}, "base='better' must be one of"),
        ({"residual": "none"}, "residual='none' must be one of"),
        ({"alpha": -1}, "alpha=-1 must be a number >= 0"),
        ({"alpha": "a"}, "alpha='a'"),
        ({"weight_decay": -0.1}, "weight_decay=-0.1"),
        ({"templates": ["no place"]}, "'no place'"),
    ):
        with pytest.raises(ValueError, match=message):
            TaskRes(vit_backbone, **arguments)
