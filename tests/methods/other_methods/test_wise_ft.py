"""WiSE-FT: both ends, the path, the head-only form, what learns, batch norms, Fisher, the recipe, errors."""

import pytest
import torch

from vlmcourse.backbone.features import image_features
from vlmcourse.methods.baselines.zero_shot import ZeroShot
from vlmcourse.methods.other_methods.wise_ft import ALPHAS, WiSEFT, warmup_cosine
from vlmcourse.methods.weight_average import merge

SHORT = {"epochs": 4, "lr": 1e-3, "batch_size": 8, "warmup_steps": 0}
FORMS = ({"tune": "tower"}, {"tune": "blocks"}, {"freeze_encoder": True})


def forms(tower):
    return [form for form in FORMS if tower.is_vit or form.get("tune") != "blocks"]


def test_alpha_zero_is_zero_shot_and_alpha_one_the_fine_tuned_model(tower, train, test_split):
    zero_shot = ZeroShot(tower).fit(train).logits(test_split)
    for form in forms(tower):
        method = WiSEFT(tower, alpha=1, **form, **SHORT).fit(train)
        torch.testing.assert_close(method.at(0).logits(test_split), zero_shot, atol=1e-4, rtol=0)
        assert (method.logits(test_split) - zero_shot).abs().max() > 1e-2
        for alpha, end in ((0, method.zero_shot), (1, method.fine_tuned)):
            theta = method.at(alpha).theta
            assert theta.keys() == end.keys()
            assert all(torch.equal(theta[name], end[name]) for name in end if end[name].is_floating_point())


def test_the_path_is_straight_in_the_weights_and_one_model_is_used(vit_backbone, train, test_split):
    method = WiSEFT(vit_backbone, alpha=0.5, **SHORT).fit(train)
    for name, tensor in method.learned_parameters().items():
        torch.testing.assert_close(tensor, (method.zero_shot[name] + method.fine_tuned[name]) / 2)
    half = dict(method.tower.model.named_parameters())
    name = "visual.transformer.resblocks.1.mlp.c_fc.weight"
    assert torch.equal(half[name], merge(method.zero_shot, method.fine_tuned, 0.5)[name])
    x = method.tower.encode_image(test_split.images)
    expected = x @ method.theta["head.weight"].T + method.theta["head.bias"]
    torch.testing.assert_close(method.logits(test_split), expected, atol=1e-4, rtol=0)


def test_with_a_frozen_tower_weights_and_outputs_average_alike(tower, train, test_split):
    method = WiSEFT(tower, freeze_encoder=True, **SHORT).fit(train)
    start, end = method.at(0).logits(test_split), method.at(1).logits(test_split)
    torch.testing.assert_close(method.at(0.3).logits(test_split), 0.7 * start + 0.3 * end, atol=1e-4, rtol=0)
    assert set(method.learned_parameters()) == {"head.weight", "head.bias"}
    features = image_features(tower, test_split)
    torch.testing.assert_close(method.logits(features), method.logits(test_split), atol=1e-5, rtol=0)


def test_end_to_end_weights_and_outputs_average_differently(vit_backbone, train, test_split):
    method = WiSEFT(vit_backbone, **SHORT).fit(train)
    start, end = method.at(0).logits(test_split), method.at(1).logits(test_split)
    assert (method.logits(test_split) - (start + end) / 2).abs().max() > 1e-3


def test_what_learns(vit_backbone, resnet_backbone, train):
    before = {name: tensor.clone() for name, tensor in vit_backbone.model.state_dict().items()}
    whole, blocks = (WiSEFT(vit_backbone, tune=tune, **SHORT).fit(train) for tune in ("tower", "blocks"))
    tower = {n for n, _ in vit_backbone.model.named_parameters() if n.startswith("visual.")}
    front = {"visual.conv1.weight", "visual.class_embedding", "visual.positional_embedding"}
    assert set(whole.learned_parameters()) == tower | {"head.weight", "head.bias"}
    assert set(blocks.learned_parameters()) == tower - front | {"head.weight", "head.bias"}
    for method in (whole, blocks):
        assert all((method.fine_tuned[n] - method.zero_shot[n]).abs().max() > 0 for n in method.learned_parameters())
    assert all(torch.equal(t, before[n]) for n, t in vit_backbone.model.state_dict().items())
    assert all(p.grad is None and not p.requires_grad for p in vit_backbone.model.parameters())
    with pytest.raises(ValueError, match="needs a ViT"):
        WiSEFT(resnet_backbone, tune="blocks")


def test_batch_norm_statistics_move_and_are_averaged(resnet_backbone, train):
    name, counter = "visual.layer1.0.bn1.running_mean", "visual.layer1.0.bn1.num_batches_tracked"
    before = dict(resnet_backbone.model.named_buffers())[name].clone()
    moving = WiSEFT(resnet_backbone, **SHORT).fit(train)
    assert (moving.fine_tuned[name] - moving.zero_shot[name]).abs().max() > 1e-4
    torch.testing.assert_close(moving.theta[name], (moving.zero_shot[name] + moving.fine_tuned[name]) / 2)
    torch.testing.assert_close(dict(moving.tower.model.named_buffers())[name], moving.theta[name])
    assert moving.theta[counter].dtype == torch.long and moving.theta[counter] == 8  # 4 epochs of 2 steps
    assert torch.equal(dict(resnet_backbone.model.named_buffers())[name], before)
    assert not any(module.training for module in moving.tower.model.modules())
    frozen = WiSEFT(resnet_backbone, update_batch_norm=False, **SHORT).fit(train)
    assert torch.equal(frozen.fine_tuned[name], frozen.zero_shot[name])


def test_fitting_lowers_the_loss(tower, splits):
    train = splits(per_class=8, seed=1)
    for form in forms(tower):
        lr = 1e-1 if "freeze_encoder" in form else 1e-3
        method = WiSEFT(tower, **form, epochs=8, lr=lr, batch_size=16, warmup_steps=2).fit(train)
        assert method.history["loss"][-1] < method.history["loss"][0] - 0.1
        if tower.is_vit:  # a batch norm's running statistics need more steps than these
            assert method.at(1).score(train) > method.at(0).score(train)


def test_tokens_computed_once_give_what_the_whole_tower_gives(vit_backbone, train, test_split):
    whole = WiSEFT(vit_backbone, tune="tower", **SHORT).fit(train)
    blocks = WiSEFT(vit_backbone, tune="blocks", **SHORT).fit(train)
    for alpha in (0, 0.5, 1):
        method = blocks.at(alpha)
        expected = method.tower.encode_image(test_split.images) @ method.theta["head.weight"].T
        torch.testing.assert_close(method.logits(test_split), expected + method.theta["head.bias"], atol=1e-4, rtol=0)
    torch.testing.assert_close(whole.at(0).logits(test_split), blocks.at(0).logits(test_split), atol=1e-4, rtol=0)


def test_alpha_is_chosen_on_validation(vit_backbone, train, val, test_split):
    method = WiSEFT(vit_backbone, alpha=None, freeze_encoder=True, epochs=30, lr=0.1, batch_size=8, warmup_steps=0)
    method.fit(train, val)
    assert [alpha for alpha, _ in method.searched] == list(ALPHAS)
    best = max(accuracy for _, accuracy in method.searched)
    near = min((a for a, accuracy in method.searched if accuracy == best), key=lambda a: abs(a - 0.5))
    assert method.alpha == near and method.at(near).score(val) == best
    with pytest.raises(ValueError, match="alpha=None is chosen on validation"):
        WiSEFT(vit_backbone, alpha=None, **SHORT).fit(train)


def test_at_leaves_the_method_as_it_is(vit_backbone, train, test_split):
    method = WiSEFT(vit_backbone, **SHORT).fit(train)
    before = method.logits(test_split)
    few = method.for_classes(["dog", "tabby cat"])
    assert torch.equal(few.at(0.5).logits(test_split), before[:, [1, 0]])
    method.at(0.9)
    assert method.alpha == 0.5 and torch.equal(method.logits(test_split), before)
    with pytest.raises(ValueError, match="cannot move to classes.*'yak'"):
        method.for_classes(["yak"])


def test_the_fisher_option_weighs_by_squared_gradients(vit_backbone, train):
    method = WiSEFT(vit_backbone, fisher=True, fisher_images=5, **SHORT).fit(train)
    start, end = method.fishers
    assert start.keys() == end.keys() == set(method.learned_parameters())
    assert all((f >= 0).all() and f.max() > 0 for f in start.values())
    expected = merge(method.zero_shot, method.fine_tuned, 0.5, start, end)
    assert all(torch.equal(t, expected[n]) for n, t in method.learned_parameters().items())
    plain = WiSEFT(vit_backbone, **SHORT).fit(train)
    assert all(torch.equal(plain.fine_tuned[n], method.fine_tuned[n]) for n in plain.fine_tuned)
    name = "visual.proj"
    assert (plain.theta[name] - method.theta[name]).abs().max() > 1e-5


def test_the_fisher_of_the_bias_has_a_closed_form(vit_backbone, train):
    method = WiSEFT(vit_backbone, freeze_encoder=True, fisher=True, fisher_images=100, **SHORT).fit(train)
    p = ZeroShot(vit_backbone).fit(train).probabilities(train)
    one_hot = torch.nn.functional.one_hot(train.labels, 4)
    expected = (p - one_hot).square().mean(dim=0)
    torch.testing.assert_close(method.fishers[0]["head.bias"], expected, atol=1e-5, rtol=1e-3)


def test_the_recipe_is_the_papers(vit_backbone, train, monkeypatch):
    seen = {}

    def spy(parameters, loss_fn, n, **settings):
        seen.update(settings, n=n)
        return {}

    monkeypatch.setattr("vlmcourse.training.fit", spy)
    method = WiSEFT(vit_backbone, seed=3).fit(train)
    assert method.alpha == 0.5 and method.crop_scale == (0.9, 1.0) and method.views is None
    schedule = seen.pop("schedule")
    assert schedule(0, 1000) == pytest.approx(3e-5 / 500) and schedule(500, 1000) == 3e-5
    assert seen == {
        "n": 16, "epochs": 10, "batch_size": 512, "lr": 3e-5, "weight_decay": 0.1, "clip_norm": 1.0,
        "optimizer": "adamw", "drop_last": False, "seed": 3, "progress": False,
    }  # fmt: skip


def test_the_rate_rises_in_a_line_and_falls_in_a_cosine():
    rate = warmup_cosine(2.0, 4)
    assert [rate(step, 12) for step in range(5)] == [0.5, 1.0, 1.5, 2.0, 2.0]
    assert rate(8, 12) == pytest.approx(1.0) and 0 < rate(11, 12) < 0.1
    assert warmup_cosine(2.0, 0)(0, 10) == 2.0


def test_label_smoothing_is_the_officials(vit_backbone, train):
    """(1 - e) times the log-loss of the label, plus e times the mean log-loss of all classes."""
    method = WiSEFT(vit_backbone, freeze_encoder=True, label_smoothing=0.2, epochs=1, batch_size=16, lr=1e-9)
    loss = method.fit(train).history["loss"][0]
    logs = ZeroShot(vit_backbone).fit(train).logits(train).log_softmax(-1)
    expected = -0.8 * logs[torch.arange(16), train.labels].mean() - 0.2 * logs.mean()
    assert loss == pytest.approx(expected.item(), abs=1e-4)


@pytest.mark.parametrize("views", [1, 2, None])
@pytest.mark.parametrize("batch_size", [1, 3, 100])
def test_odd_batches_and_every_kind_of_view(vit_backbone, train, views, batch_size):
    for form in FORMS:
        method = WiSEFT(vit_backbone, views=views, epochs=1, batch_size=batch_size, **form).fit(train)
        assert len(method.history["loss"]) == 1
        assert all(torch.isfinite(t).all() for t in method.learned_parameters().values())


def test_half_precision_backbones_are_tuned_in_float32(vit_backbone, train, test_split):
    half = vit_backbone.to(dtype=torch.bfloat16)
    for form in FORMS:
        method = WiSEFT(half, **form, **SHORT).fit(train)
        assert all(t.dtype == torch.float32 for t in method.learned_parameters().values())
        assert torch.isfinite(method.logits(test_split)).all()
    assert half.model.visual.proj.dtype == torch.bfloat16


def test_seeds(vit_backbone, train, test_split):
    def run(seed):
        return WiSEFT(vit_backbone, seed=seed, **SHORT).fit(train).logits(test_split)

    torch.manual_seed(0)
    one = run(1)
    torch.manual_seed(1)
    assert torch.equal(one, run(1))
    assert (one - run(2)).abs().max() > 1e-4


def test_features_of_the_tower_before_are_refused(vit_backbone, train):
    method = WiSEFT(vit_backbone, **SHORT).fit(train)
    with pytest.raises(ValueError, match="features of the frozen tower"):
        method.logits(torch.zeros(2, 16))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"alpha": 1.5}, "alpha=1.5"),
        ({"tune": "head"}, "tune='head'"),
        ({"label_smoothing": 1.0}, "label_smoothing=1.0"),
        ({"warmup_steps": -1}, "warmup_steps=-1"),
        ({"fisher_floor": 0}, "fisher_floor=0"),
        ({"fisher_images": 0}, "fisher_images=0"),
        ({"templates": "a photo"}, "a photo"),
        ({"lr": 0}, "lr=0"),
        ({"views": 0}, "views=0"),
    ],
)
def test_bad_arguments_are_named(vit_backbone, train, arguments, message):
    with pytest.raises(ValueError, match=message):
        WiSEFT(vit_backbone, **arguments).fit(train)
