"""Tip-Adapter and Tip-Adapter-F: the formula, the invariants, the search on validation, training, errors."""

import math

import pytest
import torch
import torch.nn.functional as F

from vlmcourse.backbone.features import image_features
from vlmcourse.methods.adapters.tip_adapter import TipAdapter, TipAdapterF
from vlmcourse.methods.baselines.zero_shot import ZeroShot


def test_logits_are_the_formula(tower, train, test_split):
    method = TipAdapter(tower, alpha=2.0, beta=3.0, augment_epochs=4).fit(train)
    views = image_features(tower, train, views=4, crop_scale=(0.5, 1.0), normalise=False)
    keys, f = F.normalize(views.mean(0), dim=-1), image_features(tower, test_split)
    vote = torch.exp(-3.0 * (1 - f @ keys.T)) @ F.one_hot(train.labels, 4).float()
    expected = tower.logit_scale * f @ ZeroShot(tower).fit(train).text.T + 2.0 * vote
    torch.testing.assert_close(method.logits(test_split), expected, atol=1e-4, rtol=0)
    torch.testing.assert_close(method.affinity(test_split), f @ keys.T)
    assert method.n_learned == 0 and method.history == {}


@pytest.mark.parametrize("cls", [TipAdapter, TipAdapterF])
def test_alpha_zero_is_zero_shot_bit_for_bit(tower, train, test_split, cls):
    method, zero_shot = cls(tower, alpha=0.0).fit(train), ZeroShot(tower).fit(train)
    assert torch.equal(method.logits(test_split), zero_shot.logits(test_split))


def test_logits_are_linear_in_alpha(vit_backbone, train, test_split):
    a, b, c = (TipAdapter(vit_backbone, alpha=alpha).fit(train).logits(test_split) for alpha in (0.0, 1.0, 2.5))
    torch.testing.assert_close(c - a, 2.5 * (b - a), atol=1e-4, rtol=1e-4)


def test_beta_zero_adds_the_shots_to_every_class(vit_backbone, train, test_split):
    method, zero_shot = TipAdapter(vit_backbone, alpha=1.5, beta=0.0).fit(train), ZeroShot(vit_backbone).fit(train)
    expected = zero_shot.logits(test_split) + 1.5 * 4
    torch.testing.assert_close(method.logits(test_split), expected, atol=1e-4, rtol=0)
    assert torch.equal(method.predict(test_split), zero_shot.predict(test_split))


def test_training_images_at_huge_beta_vote_for_their_own_label(tower, train):
    method = TipAdapter(tower, augment_epochs=0, alpha=1e3, beta=1e7).fit(train)
    assert torch.equal(method.predict(train), train.labels)


def test_the_order_of_the_cache_does_not_matter(vit_backbone, train, test_split):
    order = torch.randperm(len(train), generator=torch.Generator().manual_seed(0))
    one = TipAdapter(vit_backbone, augment_epochs=0).fit(train)
    two = TipAdapter(vit_backbone, augment_epochs=0).fit(train.subset(order))
    torch.testing.assert_close(one.logits(test_split), two.logits(test_split), atol=1e-5, rtol=0)


def test_the_scale_is_the_backbones_or_the_official_constant(vit_backbone, train, test_split):
    own, official = (TipAdapter(vit_backbone, alpha=0.0, logit_scale=s).fit(train) for s in (None, 100.0))
    ratio = 100.0 / vit_backbone.logit_scale
    torch.testing.assert_close(official.logits(test_split), ratio * own.logits(test_split), atol=1e-3, rtol=1e-4)
    scaled = TipAdapter(vit_backbone, alpha=2.0).fit(train)
    as_official = TipAdapter(vit_backbone, alpha=2.0 * ratio.item(), logit_scale=100.0).fit(train)
    assert torch.equal(scaled.predict(test_split), as_official.predict(test_split)), "only alpha / s decides"


def test_alpha_and_beta_are_the_best_of_the_grid_on_validation(tower, train, val):
    method = TipAdapter(tower, search_scale=(20, 30), search_step=(10, 8)).fit(train, val)
    result = method.search_result
    assert result.accuracy.shape == (10, 8) and (method.beta, method.alpha) == (result.beta, result.alpha)
    assert method.score(val) == result.accuracy.max()
    for i, j in ((0, 0), (3, 7), (9, 2)):
        fixed = TipAdapter(tower, alpha=result.alphas[j], beta=result.betas[i], search=False).fit(train, val)
        assert fixed.score(val) == result.accuracy[i, j] and fixed.search_result is None


def test_search_with_zero_is_never_below_zero_shot_on_validation(vit_backbone, train, val):
    method = TipAdapter(vit_backbone, search_zero=True).fit(train, val)
    assert method.search_result.alphas[0] == 0.0
    assert method.score(val) >= ZeroShot(vit_backbone).fit(train).score(val)


def test_a_second_fit_starts_from_the_given_alpha_and_beta(vit_backbone, train, val):
    method = TipAdapter(vit_backbone).fit(train, val)
    assert (method.alpha, method.beta) != (1.17, 1.0)
    assert (method.fit(train).alpha, method.beta) == (1.17, 1.0)


def test_f_before_training_is_tip_adapter(tower, train, val, test_split):
    tip, tip_f = TipAdapter(tower).fit(train, val), TipAdapterF(tower, epochs=0).fit(train, val)
    assert torch.equal(tip.logits(test_split), tip_f.logits(test_split))


@pytest.mark.parametrize("views", [1, 4, None])
def test_f_lowers_the_loss_by_changing_only_the_keys(tower, splits, views):
    train = splits(per_class=6, seed=4)
    start = TipAdapter(tower).fit(train)
    method = TipAdapterF(tower, views=views, epochs=15, lr=0.01).fit(train)
    assert method.history["loss"][-1] < method.history["loss"][0]
    assert torch.equal(method.values, start.values) and torch.equal(method.text, start.text)
    assert list(method.learned_parameters()) == ["keys"] and method.n_learned == 24 * tower.embed_dim
    norms = method.keys.norm(dim=-1)
    assert (norms - 1).abs().max() > 1e-3, "keys are not normalised again"


def test_f_follows_the_official_recipe(vit_backbone, train, monkeypatch):
    seen = {}
    monkeypatch.setattr("vlmcourse.training.fit", lambda parameters, loss, n, **s: seen.update(s) or {})
    TipAdapterF(vit_backbone, seed=2).fit(train)
    assert seen == {
        "epochs": 20, "lr": 1e-3, "eps": 1e-4, "weight_decay": 0.01, "batch_size": 256, "optimizer": "adamw",
        "schedule": "cosine_per_step", "drop_last": False, "seed": 2, "progress": False, "on_epoch": None,
    }  # fmt: skip


def test_f_cosine_is_stepped_per_iteration(vit_backbone, train):
    history = TipAdapterF(vit_backbone, epochs=3, batch_size=5).fit(train).history
    steps = 3 * 4  # 16 images in batches of 5, the last one kept
    assert history["lr"] == pytest.approx([5e-4 * (1 + math.cos(math.pi * t / steps)) for t in (3, 7, 11)])


def test_f_can_keep_the_best_epoch_on_validation(vit_backbone, train, val):
    settings = {"epochs": 6, "lr": 0.3, "search": False}
    best = TipAdapterF(vit_backbone, keep_best=True, **settings).fit(train, val)
    last = TipAdapterF(vit_backbone, **settings).fit(train, val)
    assert best.score(val) == max(best.history["val_accuracy"]) >= last.score(val)
    with pytest.raises(ValueError, match="keep_best=True needs a validation split"):
        TipAdapterF(vit_backbone, keep_best=True).fit(train)


def test_seeds_change_the_crops_and_nothing_else_is_random(vit_backbone, train, test_split):
    for cls in (TipAdapter, TipAdapterF):
        one, same, other = (cls(vit_backbone, seed=s).fit(train).logits(test_split) for s in (1, 1, 2))
        assert torch.equal(one, same) and not torch.equal(one, other)


@pytest.mark.parametrize("batch_size", [1, 7, 300])
def test_odd_batches(tower, train, batch_size):
    method = TipAdapterF(tower, epochs=2, batch_size=batch_size).fit(train)
    assert torch.isfinite(method.keys).all()


def test_a_cache_cannot_move_and_bad_arguments_are_named(vit_backbone, train):
    for cls in (TipAdapter, TipAdapterF):
        with pytest.raises(ValueError, match="cannot move to classes it was not fitted on, such as 'yak'"):
            cls(vit_backbone).fit(train).for_classes(["dog", "yak"])
    for arguments, message in (
        ({"augment_epochs": -1}, "augment_epochs=-1"),
        ({"augment_epochs": 1.5}, "augment_epochs=1.5"),
        ({"logit_scale": 0}, "logit_scale=0"),
        ({"search_scale": (7,)}, r"search_scale=\(7,\)"),
        ({"search_step": (0, 20)}, r"search_step=\(0, 20\)"),
        ({"templates": ["no place"]}, "'no place'"),
    ):
        with pytest.raises(ValueError, match=message):
            TipAdapter(vit_backbone, **arguments)
    for arguments, message in (({"views": 0}, "views=0"), ({"epochs": -1}, "epochs=-1"), ({"lr": 0}, "lr=0")):
        with pytest.raises(ValueError, match=message):
            TipAdapterF(vit_backbone, **arguments).fit(train)
