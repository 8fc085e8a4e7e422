"""CLIP-Adapter: the formula, ratios 0 and 1, both sides, what is learned, choice on validation, new classes, errors."""

import pytest
import torch
import torch.nn.functional as F

from vlmcourse.backbone.features import image_features
from vlmcourse.methods.adapters.clip_adapter import CLIPAdapter, adapt_features, new_adapter
from vlmcourse.methods.augment import TrainingFeatures
from vlmcourse.methods.baselines.zero_shot import ZeroShot

QUICK = {"epochs": 3, "lr": 0.05, "batch_size": 5}


@pytest.mark.parametrize("adapt", ["image", "text", "both"])
def test_logits_are_the_formula(tower, train, test_split, adapt):
    method = CLIPAdapter(tower, adapt=adapt, alpha=0.6, beta=0.3, **QUICK).fit(train)
    f, text = image_features(tower, test_split, normalise=False), ZeroShot(tower).fit(train).text  # f raw

    def adapted(x, side, ratio):
        down, up = method.adapters[side]["down"], method.adapters[side]["up"]
        bottleneck = torch.relu(torch.relu(x @ down.T) @ up.T)
        return ratio * bottleneck + (1 - ratio) * x

    f = adapted(f, "image", 0.6) if adapt != "text" else f
    text = adapted(text, "text", 0.3) if adapt != "image" else text
    expected = tower.logit_scale * F.normalize(f, dim=-1) @ F.normalize(text, dim=-1).T
    torch.testing.assert_close(method.logits(test_split), expected, atol=1e-4, rtol=0)
    torch.testing.assert_close(method.adapted_images(test_split), F.normalize(f, dim=-1), atol=1e-5, rtol=0)
    torch.testing.assert_close(method.adapted_text(), F.normalize(text, dim=-1), atol=1e-5, rtol=0)


@pytest.mark.parametrize("adapt", ["image", "text", "both"])
def test_ratio_zero_is_zero_shot(tower, train, test_split, adapt):
    method = CLIPAdapter(tower, adapt=adapt, alpha=0.0, beta=0.0, **QUICK).fit(train)
    zero_shot = ZeroShot(tower).fit(train)
    torch.testing.assert_close(method.logits(test_split), zero_shot.logits(test_split), atol=1e-4, rtol=0)


def test_zero_weights_are_zero_shot_at_any_ratio_below_one(vit_backbone, train, test_split):
    method, zero_shot = CLIPAdapter(vit_backbone, alpha=0.9, **QUICK).fit(train), ZeroShot(vit_backbone).fit(train)
    assert not torch.allclose(method.logits(test_split), zero_shot.logits(test_split), atol=1e-2)
    method.adapters["image"]["up"].zero_()
    torch.testing.assert_close(method.logits(test_split), zero_shot.logits(test_split), atol=1e-4, rtol=0)


def test_an_adapter_alone_is_in_the_positive_corner(tower, train, test_split):
    method = CLIPAdapter(tower, alpha=1.0, **QUICK).fit(train)
    features = method.adapted_images(test_split)
    assert features.min() >= 0 and features.max() > 0
    assert image_features(tower, test_split).min() < 0, "CLIP's own features are not"


def test_the_length_of_a_feature_does_not_matter_for_logits_or_gradients():
    draw = torch.Generator().manual_seed(3)
    x = torch.randn(6, 16, generator=draw)
    target = F.normalize(torch.randn(6, 16, generator=draw), dim=-1)
    gradients = []
    for scaled in (x, x * torch.linspace(0.5, 20, 6)[:, None]):
        adapter = new_adapter(16, 4, torch.Generator().manual_seed(0), like=x)
        weights = [w.requires_grad_() for w in adapter.values()]
        out = adapt_features(scaled, adapter, 0.4)
        gradients.append([out.detach(), *torch.autograd.grad((out * target).sum(), weights)])
    for one, other in zip(*gradients, strict=True):
        torch.testing.assert_close(one, other, atol=1e-6, rtol=1e-4)
    assert gradients[0][1].abs().max() > 1e-3


def test_the_start_is_that_of_linear_layers():
    adapter = new_adapter(1024, 4, torch.Generator().manual_seed(0), like=torch.zeros(1))
    assert {n: tuple(w.shape) for n, w in adapter.items()} == {"down": (256, 1024), "up": (1024, 256)}
    assert sum(w.numel() for w in adapter.values()) == 524_288, "the number of the official adapter for ResNet-50"
    for weight in adapter.values():
        bound = weight.shape[1] ** -0.5
        assert 0.99 * bound < weight.max() <= bound and -bound <= weight.min() < -0.99 * bound


@pytest.mark.parametrize("adapt, sides", [("image", 1), ("text", 1), ("both", 2)])
def test_fit_lowers_the_loss_and_learns_only_adapters(tower, train, adapt, sides):
    method = CLIPAdapter(tower, adapt=adapt, alpha=0.6, beta=0.6, epochs=20, lr=0.1, warmup_epochs=0).fit(train)
    assert method.history["loss"][-1] < method.history["loss"][0]
    assert method.n_learned == sides * 2 * 16 * 4
    assert {name.split(".")[0] for name in method.learned_parameters()} == set(method.ratios)
    assert all(p.grad is None for p in tower.model.parameters())


@pytest.mark.parametrize("adapt", ["image", "text", "both"])
def test_the_gradient_reaches_every_matrix(vit_backbone, train, adapt):
    method = CLIPAdapter(vit_backbone, adapt=adapt, alpha=0.5, beta=0.5, epochs=0).fit(train)
    weights = list(method.learned_parameters().values())
    start = [w.clone() for w in weights]
    features = TrainingFeatures(vit_backbone, train)
    method._train(features, 1)  # one epoch at the warm-up rate
    moved = [(w - s).abs().max() for w, s in zip(method.learned_parameters().values(), start, strict=True)]
    assert all(m > 0 for m in moved) and len(moved) == len(weights)


def test_the_ratio_is_the_best_on_validation(tower, train, val):
    alphas = [0.0, 0.3, 0.9]
    method = CLIPAdapter(tower, alpha=alphas, **QUICK).fit(train, val)
    single = [CLIPAdapter(tower, alpha=a, **QUICK).fit(train, val) for a in alphas]
    assert [(a, b) for a, b, _ in method.searched] == [(a, 0.0) for a in alphas]
    scores = [m.score(val) for m in single]
    assert [round(s, 9) for *_, s in method.searched] == [round(s, 9) for s in scores]
    best = single[scores.index(max(scores))]
    assert method.alpha == best.alpha and torch.equal(method.logits(val), best.logits(val))
    assert method.history == best.history


def test_both_searches_pairs_and_needs_validation(vit_backbone, train, val):
    method = CLIPAdapter(vit_backbone, adapt="both", alpha=(0.2, 0.6), beta=(0.1, 0.5), **QUICK)
    assert [(a, b) for a, b, _ in method.fit(train, val).searched] == [(0.2, 0.1), (0.2, 0.5), (0.6, 0.1), (0.6, 0.5)]
    with pytest.raises(ValueError, match=r"4 candidates: to choose, give fit\(train, val\)"):
        method.fit(train)
    only_image = CLIPAdapter(vit_backbone, alpha=0.2, beta=(0.1, 0.5), **QUICK).fit(train)
    assert (only_image.alpha, only_image.beta) == (0.2, 0.0), "beta is of the text adapter, which is not there"


@pytest.mark.parametrize("adapt", ["image", "both"])
def test_adapters_move_to_new_names(tower, train, test_split, adapt):
    method = CLIPAdapter(tower, adapt=adapt, **QUICK).fit(train)
    moved = method.for_classes(["yak", "zebra", "hot air balloon"])
    assert moved.logits(test_split).shape == (len(test_split), 3)
    torch.testing.assert_close(moved.adapted_images(test_split), method.adapted_images(test_split))
    torch.testing.assert_close(moved.logits(test_split)[:, 2], method.logits(test_split)[:, 2], atol=1e-4, rtol=0)
    torch.testing.assert_close(method.for_classes(method.class_names).logits(test_split), method.logits(test_split))


def test_the_official_recipe_is_coops(vit_backbone, splits, monkeypatch):
    seen = []
    monkeypatch.setattr("vlmcourse.training.fit", lambda parameters, loss, n, **s: seen.append(s) or {})
    for shots in (1, 4, 8):
        CLIPAdapter(vit_backbone, seed=2).fit(splits(per_class=shots))
    assert [s["epochs"] for s in seen] == [50, 100, 200]
    assert seen[0] == {
        "epochs": 50, "lr": 2e-3, "batch_size": 32, "momentum": 0.9, "weight_decay": 5e-4, "warmup_epochs": 1,
        "seed": 2, "progress": False,
    }  # fmt: skip


@pytest.mark.parametrize("batch_size", [1, 7, 300])
def test_odd_batches_and_seeds(tower, train, test_split, batch_size):
    one, same, other = (CLIPAdapter(tower, epochs=1, batch_size=batch_size, seed=s).fit(train) for s in (1, 1, 2))
    assert torch.equal(one.logits(test_split), same.logits(test_split))
    assert not torch.equal(one.logits(test_split), other.logits(test_split))


def test_bad_arguments_are_named(vit_backbone):
    for arguments, message in (
        ({"adapt": "all"}, "adapt='all' must be one of"),
        ({"alpha": 1.5}, "alpha=1.5 must be a number in 0..1"),
        ({"alpha": [0.1, -1]}, r"alpha=\[0.1, -1\]"),
        ({"beta": "big"}, "beta='big'"),
        ({"alpha": []}, r"alpha=\[\]"),
        ({"reduction": 0}, "reduction=0 must be a whole number from 1 to 16"),
        ({"reduction": 17}, "reduction=17"),
        ({"templates": ["no place"]}, "'no place'"),
    ):
        with pytest.raises(ValueError, match=message):
            CLIPAdapter(vit_backbone, **arguments)
