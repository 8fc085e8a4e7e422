"""CALIP: the official numbers, its degenerate cases, the search on validation; CALIP-FS starts from it."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F

import vlmcourse.methods.other_methods.calip as calip
from vlmcourse.backbone.features import image_features
from vlmcourse.methods.baselines.zero_shot import ZeroShot
from vlmcourse.methods.class_text import class_features
from vlmcourse.methods.other_methods.calip import CALIP, CALIPFS

NAMES = ("tabby cat", "dog", "hot air balloon", "red_fox")


def waves(n, d, a, b):
    """The toy inputs of the reference values: U(S(n, d, a, b)), float64."""
    i, j = torch.arange(1, n + 1).double()[:, None], torch.arange(1, d + 1).double()
    return F.normalize(torch.sin(a * i * j + b * i), dim=-1)


class Toy(CALIP):
    """CALIP on given texts, without a backbone."""

    def __init__(self, text, temperature=0.5, scale=100.0):
        self.text, self.temperature, self.scale = text, temperature, scale
        self.beta2 = self.beta3 = 0.0


@pytest.fixture
def toy():
    pooled, positions = waves(2, 6, 0.41, 0.2), torch.stack([waves(4, 6, 0.31 + 0.07 * n, 0.3) for n in range(2)])
    return Toy(waves(3, 6, 0.53, 0.9)), torch.cat([pooled[:, None], positions], dim=1)


def test_the_terms_are_the_official_ones(toy):
    method, features = toy
    one, two, three = method._terms(features)
    torch.testing.assert_close(one, 100 * features[:, 0] @ method.text.T)
    expected = [[30.719456, 3.685420, 37.179643], [57.739517, -5.989074, 29.789814]]
    torch.testing.assert_close(two, torch.tensor(expected).double(), atol=1e-4, rtol=0)
    expected = [[48.808596, 10.685357, -54.644377], [46.495799, 6.901249, -46.905123]]
    torch.testing.assert_close(three, torch.tensor(expected).double(), atol=1e-4, rtol=0)


def test_the_terms_are_the_papers_formulas(toy):
    method, features = toy
    method.temperature = 2.0
    for b, terms in enumerate(method._terms(features).unbind(1)):
        f, X, T = features[b, 0], features[b, 1:], method.text
        A = X @ T.T / 2
        guided = torch.stack([sum(a * x for a, x in zip(A[:, c].softmax(0), X, strict=True)) for c in range(3)])
        mixed = torch.stack([sum(a * t for a, t in zip(row.softmax(0), T, strict=True)) for row in A])
        image = mixed.mean(0) + mixed.max(0).values
        torch.testing.assert_close(terms, 100 * torch.stack([f @ T.T, f @ guided.T, image @ T.T]))


def test_both_attentions_sum_to_one_along_their_axis(tower, train, test_split):
    over_positions, over_classes = CALIP(tower).fit(train).attention(test_split)
    P = 16 if tower.is_vit else 4
    assert over_positions.shape == over_classes.shape == (20, P, 4)
    torch.testing.assert_close(over_positions.sum(1), torch.ones(20, 4))
    torch.testing.assert_close(over_classes.sum(2), torch.ones(20, P))
    assert (over_positions - 1 / P).abs().max() > 1e-4 and (over_classes - 1 / 4).abs().max() > 1e-4


def test_without_betas_it_is_zero_shot(tower, train, test_split):
    zero_shot = ZeroShot(tower).fit(train).logits(test_split)
    torch.testing.assert_close(CALIP(tower, beta2=0, beta3=0).fit(train).logits(test_split), zero_shot)
    for betas in ({"beta2": 1.0, "beta3": 0}, {"beta2": 0, "beta3": 1.0}):
        assert (CALIP(tower, **betas).fit(train).logits(test_split) - zero_shot).abs().max() > 0.1


def test_one_class_blends_every_position_into_its_text(toy):
    method, features = toy
    method.text = method.text[:1]
    torch.testing.assert_close(method._terms(features)[2], torch.full((2, 1), 200.0).double())  # mean T + max T = 2 T


def test_one_position_adds_the_same_to_every_class(toy):
    method, features = toy
    two = method._terms(features[:, :2])[1]
    torch.testing.assert_close(two, two[:, :1].expand(-1, 3))
    expected = 100 * (features[:, 0] * features[:, 1]).sum(-1)
    torch.testing.assert_close(two[:, 0], expected)


def test_an_image_that_is_equal_everywhere_gives_even_attention(toy):
    method, features = toy
    two = method._terms(features[:, :2].repeat_interleave(torch.tensor([1, 5]), dim=1))[1]
    torch.testing.assert_close(two, method._terms(features[:, :2])[1])


def test_classes_may_be_permuted_and_positions_too(toy):
    method, features = toy
    terms, order = method._terms(features), [2, 0, 1]
    torch.testing.assert_close(method._terms(features[:, [0, 4, 2, 1, 3]]), terms)
    method.text = method.text[order]
    torch.testing.assert_close(method._terms(features), terms[:, :, order])


def test_a_small_temperature_looks_at_one_position(toy):
    method, features = toy
    method.temperature = 1e-4
    X, T = features[:, 1:], method.text
    best = X[torch.arange(2)[:, None], (X @ T.T).argmax(1)]  # (B, C, E)
    expected = 100 * (best @ features[:, 0, :, None]).squeeze(-1)
    torch.testing.assert_close(method._terms(features)[1], expected)


def test_local_features_are_the_backbones(tower, train, test_split):
    for path in ("full", "value"):
        method = CALIP(tower, path=path).fit(train)
        seen = method.inputs(test_split)
        torch.testing.assert_close(seen[:, 0], image_features(tower, test_split), atol=1e-6, rtol=0)
        dense = tower.dense_features(test_split.images, path).flatten(2).transpose(1, 2)
        torch.testing.assert_close(seen[:, 1:], dense, atol=1e-6, rtol=0)


def test_parts_and_single_images_agree_with_the_whole(vit_backbone, train, test_split, monkeypatch):
    method = CALIP(vit_backbone).fit(train)
    whole, terms = method.logits(test_split), method.terms(test_split)
    monkeypatch.setattr(calip, "ENTRIES", 700)
    torch.testing.assert_close(method.logits(test_split), whole)
    torch.testing.assert_close(method.terms(test_split), terms)
    torch.testing.assert_close(method.logits(test_split.images[7]), whole[7:8], atol=1e-4, rtol=0)


def test_the_search_is_the_best_of_the_grid_on_validation(vit_backbone, train, val):
    method = CALIP(vit_backbone, search_steps=7, search_scale=(30.0, 9.0)).fit(train, val)
    result = method.search_result
    assert result.accuracy.shape == (7, 7) and np.allclose(result.betas2, 0.001 + np.arange(7) * 29.999 / 7)
    for i, j in ((0, 0), (3, 5), (6, 1)):
        one = CALIP(vit_backbone, beta2=result.betas2[i], beta3=result.betas3[j]).fit(train)
        assert one.score(val) == pytest.approx(result.accuracy[i, j])
    assert method.score(val) == pytest.approx(result.accuracy.max())
    best = np.argwhere(result.accuracy == result.accuracy.max())[0]
    assert (method.beta2, method.beta3) == (result.betas2[best[0]], result.betas3[best[1]])
    assert len(np.unique(result.accuracy)) > 1


def test_without_validation_or_search_the_betas_are_the_given_ones(vit_backbone, train, val):
    for method in (CALIP(vit_backbone).fit(train), CALIP(vit_backbone, search=False).fit(train, val)):
        assert (method.beta2, method.beta3) == (1.12, 0.02) and method.search_result is None
    grid = CALIP(vit_backbone).grid
    assert [len(g) for g in grid] == [200, 200] and [g[0] for g in grid] == [0.001, 0.001]
    assert [g[-1] for g in grid] == pytest.approx([0.001 + 199 * 1.999 / 200, 0.001 + 199 * 0.099 / 200])
    with_zero = CALIP(vit_backbone, search_zero=True, search_steps=3).fit(train, val).search_result
    assert with_zero.betas2[0] == with_zero.betas3[0] == 0 and with_zero.accuracy.shape == (4, 4)
    assert with_zero.accuracy[0, 0] == pytest.approx(ZeroShot(vit_backbone).fit(train).score(val))


def test_templates_scale_and_other_classes(vit_backbone, train, test_split):
    method = CALIP(vit_backbone, templates="a drawing of a {}.", logit_scale=100.0).fit(train)
    assert torch.equal(method.text, class_features(vit_backbone, NAMES, "a drawing of a {}."))
    own = CALIP(vit_backbone, templates="a drawing of a {}.").fit(train)
    ratio = 100.0 / vit_backbone.logit_scale
    torch.testing.assert_close(method.logits(test_split), ratio * own.logits(test_split), atol=1e-3, rtol=1e-4)
    moved, fresh = method.for_classes(["dog", "yak"]), ("dog", "yak")
    assert torch.equal(moved.text, class_features(vit_backbone, fresh, "a drawing of a {}."))
    assert moved.logits(test_split).shape == (20, 2)


# ---- CALIP-FS ----


def test_before_the_first_step_fs_is_calip(tower, train, test_split):
    for options in ({}, {"post_maps": True}, {"maps": "text"}, {"maps": (), "post_maps": True}):
        fs = CALIPFS(tower, epochs=0, **options).fit(train)
        torch.testing.assert_close(fs.logits(test_split), CALIP(tower).fit(train).logits(test_split))


@pytest.mark.parametrize("options", [{}, {"maps": ("positions",)}, {"maps": (), "post_maps": True}])
def test_fitting_lowers_the_loss_and_moves_exactly_the_maps(tower, splits, options):
    train = splits(per_class=8, seed=1)
    fs = CALIPFS(tower, epochs=12, lr=0.01, beta2=5.0, beta3=1.0, **options).fit(train)
    assert fs.history["loss"][-1] < fs.history["loss"][0] - 0.03
    maps = options.get("maps", ("pooled", "positions", "text"))
    expected = [*maps, *(("guided", "blended") if options.get("post_maps") else ())]
    assert list(fs.learned_parameters()) == expected and fs.n_learned == len(expected) * 16**2
    assert all(shift.abs().max() > 1e-3 for shift in fs.learned_parameters().values())


def test_the_maps_act_where_they_say(vit_backbone, train, test_split):
    fs = CALIPFS(vit_backbone, epochs=3, lr=0.05, post_maps=True).fit(train)
    assert all(shift.abs().max() > 0.01 for shift in fs.shifts.values())
    f, X, T = fs.inputs(test_split)[:, 0], fs.inputs(test_split)[:, 1:], fs.text
    M = {name: torch.eye(16) + shift for name, shift in fs.shifts.items()}
    f, X, T = (
        F.normalize(x @ M[name], dim=-1) for name, x in zip(("pooled", "positions", "text"), (f, X, T), strict=True)
    )
    A = 2 * X @ T.T
    guided = A.softmax(1).transpose(1, 2) @ X @ M["guided"].T
    mixed = A.softmax(2) @ T
    image = (mixed.mean(1) + mixed.amax(1)) @ M["blended"]
    second = (guided @ f[:, :, None]).squeeze(-1)
    expected = vit_backbone.logit_scale * (f @ T.T + 1.12 * second + 0.02 * image @ T.T)
    torch.testing.assert_close(fs.logits(test_split), expected, atol=1e-3, rtol=1e-4)


def test_fs_moves_to_other_classes_and_searches_after_training(vit_backbone, train, val, test_split):
    fs = CALIPFS(vit_backbone, epochs=3, lr=0.01, search_steps=5).fit(train, val)
    assert fs.score(val) == pytest.approx(fs.search_result.accuracy.max())
    unsearched = CALIPFS(vit_backbone, epochs=3, lr=0.01).fit(train)
    assert torch.equal(fs.shifts["text"], unsearched.shifts["text"]), "the search has no part in training"
    moved = fs.for_classes(["dog", "yak"])
    assert moved.logits(test_split).shape == (20, 2)
    one, again = (m.terms(test_split)[:2, :, c] for m, c in ((moved, 0), (fs, 1)))
    torch.testing.assert_close(one, again, atol=1e-4, rtol=0)


@pytest.mark.parametrize("batch_size", [1, 3, 100])
@pytest.mark.parametrize("views", [1, 3, None])
def test_odd_batches_and_every_kind_of_view(vit_backbone, train, batch_size, views):
    fs = CALIPFS(vit_backbone, epochs=1, batch_size=batch_size, views=views).fit(train)
    assert len(fs.history["loss"]) == 1 and torch.isfinite(fs.shifts["text"]).all()


def test_terms_stay_on_the_backbones_device(vit_backbone, fake_cuda):
    backbone = fake_cuda(vit_backbone)
    method = CALIP(backbone)
    method.text = class_features(backbone, NAMES, "a {}")
    assert method._terms(torch.randn(3, 17, 16, device="cuda")).device.type == "cuda"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"temperature": 0}, "temperature=0"),
        ({"path": "all"}, "path='all'"),
        ({"logit_scale": -1.0}, "logit_scale=-1.0"),
        ({"search_scale": (2.0,)}, "search_scale"),
        ({"search_scale": (2.0, 0.0)}, "search_scale"),
        ({"search_steps": 0}, "search_steps=0"),
        ({"templates": "no slot"}, "no slot"),
    ],
)
def test_bad_arguments_are_named(vit_backbone, arguments, message):
    for cls in (CALIP, CALIPFS):
        with pytest.raises(ValueError, match=message):
            cls(vit_backbone, **arguments)


def test_more_bad_arguments(vit_backbone, resnet_backbone):
    with pytest.raises(ValueError, match="maps=.'image',. must be some of"):
        CALIPFS(vit_backbone, maps="image")
    with pytest.raises(ValueError, match="post_maps"):
        CALIPFS(vit_backbone, maps=())
    with pytest.raises(ValueError, match="path='value.residual'"):
        CALIP(resnet_backbone, path="value+residual")
    with pytest.raises(RuntimeError, match="fit"):
        CALIP(vit_backbone).attention(torch.zeros(1, 3, 32, 32, dtype=torch.uint8))
