"""PLOT++: equal to PLOT on the prompted views, who learns when, recipe, batches, transfer, errors."""

import pytest
import torch
import torch.nn.functional as F

from vlmcourse.methods.context import words_context
from vlmcourse.methods.text_prompts.plot import PLOT
from vlmcourse.methods.text_prompts.plot_pp import PHRASES, PLOTPlusPlus
from vlmcourse.methods.vision_prompts import image_tokens, normal_prompts


def small(backbone, **arguments):
    options = {"n_prompts": 2, "n_vision_prompts": 3, "epochs": 2, "lr": 0.05, "batch_size": 8}
    return PLOTPlusPlus(backbone, **options | arguments)


def prompted_views(backbone, method, images):
    """(B, V, E) by the backbone's own prompted pass, one set after the other, not normalised."""
    sets = [
        backbone.encode_image_prompted(images, prompts, before_ln_pre=True, normalise=False)
        for prompts in method.learned_parameters()["ctx_vision"]
    ]
    return torch.stack(sets, dim=1)


@pytest.mark.parametrize("stages", [("vision", "joint"), ("vision",), ("joint",)])
def test_logits_are_plots_on_the_prompted_views(vit_backbone, train, images, stages):
    method = small(vit_backbone, stages=stages).fit(train)
    views = prompted_views(vit_backbone, method, images)
    pooled = stages == ("vision",)
    plot = PLOT(vit_backbone, n_prompts=2, n_ctx=4, pooled_term=pooled, epochs=0).fit(train)
    plot.ctx = method.learned_parameters()["ctx"]
    plot._freeze()
    local_features = torch.cat([views.mean(1, keepdim=True), views], dim=1) if pooled else views
    torch.testing.assert_close(method.logits(images), plot.logits(F.normalize(local_features, dim=-1)))


def test_stage_one_learns_only_the_visual_prompts_and_stage_two_both(vit_backbone, train):
    start = [words_context(vit_backbone, words) for words in PHRASES[:2]]
    vision_start = normal_prompts(vit_backbone, 3, 2, seed=1)
    first = small(vit_backbone, stages=("vision",)).fit(train)
    assert torch.equal(first.ctx, torch.stack(start)) and not torch.equal(first.ctx_vision, vision_start)
    assert set(first.history) == {"vision_loss", "vision_lr"}
    both = small(vit_backbone).fit(train)
    assert not torch.equal(both.ctx, first.ctx) and not torch.equal(both.ctx_vision, first.ctx_vision)
    assert set(both.history) == {"vision_loss", "vision_lr", "loss", "lr"}
    assert both.history["vision_loss"] == first.history["vision_loss"], "stage two starts where stage one ended"
    none = small(vit_backbone, epochs=0).fit(train)
    assert torch.equal(none.ctx, torch.stack(start)) and torch.equal(none.ctx_vision, vision_start)
    assert {name: tuple(t.shape) for name, t in both.learned_parameters().items()} == {
        "ctx": (2, 4, 32),
        "ctx_vision": (3, 2, 48),
    }


def test_epochs_of_the_stages(vit_backbone, train):
    history = small(vit_backbone, epochs=3, vision_epochs=5).fit(train).history
    assert (len(history["vision_loss"]), len(history["loss"])) == (5, 3)
    assert len(small(vit_backbone, vision_epochs=0).fit(train).history.get("vision_loss", [])) == 0


def test_the_recipe_is_the_papers(vit_backbone, splits, monkeypatch):
    seen = []

    def spy(parameters, loss_fn, n, **settings):
        seen.append(settings | {"shapes": [tuple(p.shape) for p in parameters]})
        return {}

    monkeypatch.setattr("vlmcourse.training.fit", spy)
    PLOTPlusPlus(vit_backbone).fit(splits(per_class=1))
    assert [s["shapes"] for s in seen] == [[(4, 2, 48)], [(4, 4, 32), (4, 2, 48)]]
    for settings in seen:
        assert (settings["epochs"], settings["batch_size"], settings["lr"]) == (50, 32, 2e-3)


def test_fitting_lowers_both_losses_and_leaves_the_towers(vit_backbone, splits):
    before = {name: tensor.clone() for name, tensor in vit_backbone.model.state_dict().items()}
    method = small(vit_backbone, epochs=6, lr=0.05, batch_size=16).fit(splits(per_class=4, seed=1))
    for name in ("vision_loss", "loss"):
        assert method.history[name][-1] < method.history[name][0] - 0.01
    assert all(torch.equal(tensor, before[name]) for name, tensor in vit_backbone.model.state_dict().items())
    assert all(p.grad is None for p in vit_backbone.model.parameters())


@pytest.mark.parametrize(("batch_size", "views"), [(1, 1), (5, 2), (100, None)])
def test_odd_batches_and_every_kind_of_view(vit_backbone, train, batch_size, views):
    method = small(vit_backbone, batch_size=batch_size, views=views, epochs=1).fit(train)
    assert torch.isfinite(method.ctx).all() and torch.isfinite(method.ctx_vision).all()


def test_inputs_batches_seeds_and_other_classes(vit_backbone, train, test_split):
    method = small(vit_backbone).fit(train)
    logits = method.logits(test_split)
    torch.testing.assert_close(method.logits(test_split.images), logits, atol=1e-3, rtol=0)
    torch.testing.assert_close(method.logits(image_tokens(vit_backbone, test_split.images)), logits, atol=1e-3, rtol=0)
    one = torch.cat([method.logits(image) for image in test_split.images[:5]])
    torch.testing.assert_close(one, logits[:5], atol=1e-3, rtol=0)
    assert torch.equal(small(vit_backbone).fit(train).logits(test_split), logits)
    assert (small(vit_backbone, seed=1).fit(train).logits(test_split) - logits).abs().max() > 1e-4
    moved = method.for_classes(["yak", "dog"])
    torch.testing.assert_close(moved.logits(test_split)[:, 1], logits[:, 1], atol=1e-3, rtol=0)
    plans, _ = method.transport(test_split.images[:2])
    assert plans.shape == (2, 4, 3, 2)
    torch.testing.assert_close(plans.sum(-2), torch.full((2, 4, 2), 1 / 2))


def test_half_precision(vit_backbone, train, test_split):
    half = vit_backbone.to(dtype=torch.bfloat16)
    method = small(half, epochs=1).fit(train)
    assert method.ctx.dtype == method.ctx_vision.dtype == torch.float32
    assert method.logits(test_split).dtype == torch.float32


def test_noise_as_the_start_of_the_text(vit_backbone, train):
    method = small(vit_backbone, ctx_init=None, n_ctx=5, epochs=0).fit(train)
    assert method.ctx.shape == (2, 5, 32) and method.ctx.std().item() == pytest.approx(0.02, rel=0.2)


def test_everything_stays_on_the_backbones_device(vit_backbone, fake_cuda):
    backbone = fake_cuda(vit_backbone)
    method = small(backbone, tolerance=None)
    method.class_names = ("cat", "hot air balloon")
    method.prompts, method.ctx = method._prompts(method.class_names), method._initial_context().requires_grad_()
    method.ctx_vision = normal_prompts(backbone, 3, 2, seed=0).requires_grad_()
    tokens, labels = torch.randn(3, 17, 48, device="cuda"), torch.zeros(3, device="cuda").long()
    for method.pooled_term in (True, False):
        loss = method._loss(tokens, labels)
        assert loss.requires_grad and loss.device.type == "cuda"
    method._freeze()
    assert method._logits(tokens).device.type == "cuda"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"n_vision_prompts": 0}, "n_vision_prompts=0"),
        ({"n_ctx_vision": 1.5}, "n_ctx_vision=1.5"),
        ({"n_prompts": 5}, "must be a list of n_prompts=5 different starts"),
        ({"stages": ("joint", "vision")}, "stages="),
        ({"stages": ()}, "stages="),
        ({"path": "value"}, "path='value' is not for PLOT"),
        ({"pooled_term": True}, "pooled_term=True is not for PLOT"),
        ({"eps": 0}, "eps=0"),
    ],
)
def test_bad_arguments_are_named(vit_backbone, arguments, message):
    with pytest.raises(ValueError, match=message):
        small(vit_backbone, **arguments)
