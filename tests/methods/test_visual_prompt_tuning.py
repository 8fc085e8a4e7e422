"""VPT: equal to the backbone's prompted pass, degenerate settings, who learns, dropout, recipe, transfer, errors."""

import pytest
import torch
import torch.nn.functional as F

from vlmcourse.methods.class_text import class_features
from vlmcourse.methods.vision_prompts import image_tokens, normal_prompts, uniform_prompts
from vlmcourse.methods.visual_prompt_tuning import VisualPromptTuning


def small(backbone, **arguments):
    return VisualPromptTuning(backbone, **{"epochs": 2, "lr": 0.05, "batch_size": 8} | arguments)


@pytest.mark.parametrize("before_ln_pre", [False, True])
@pytest.mark.parametrize("depth", [1, 2, None])
def test_logits_are_the_backbones_own_prompted_pass(vit_backbone, train, images, depth, before_ln_pre):
    method = small(vit_backbone, depth=depth, before_ln_pre=before_ln_pre).fit(train)
    prompts = method.learned_parameters()["ctx_vision"]
    assert prompts.shape == (3 if depth is None else depth, 5, 48)
    deep = {i: prompts[i] for i in range(1, len(prompts))}
    features = vit_backbone.encode_image_prompted(images, prompts[0], deep, before_ln_pre=before_ln_pre)
    text = class_features(vit_backbone, train.class_names, train.templates)
    expected = vit_backbone.logit_scale * features @ text.T
    torch.testing.assert_close(method.logits(images), expected, atol=1e-4, rtol=1e-4)


def test_without_prompts_it_is_zero_shot_bit_for_bit(vit_backbone, train, images):
    method = small(vit_backbone, n_ctx_vision=0, depth=None).fit(train)
    text = class_features(vit_backbone, train.class_names, train.templates)
    assert torch.equal(method.logits(images), vit_backbone.logit_scale * vit_backbone.encode_image(images) @ text.T)
    assert method.n_learned == 0 and method.history == {}


def test_the_order_of_the_prompts_within_a_layer_is_free(vit_backbone, train, images):
    method = small(vit_backbone, depth=2).fit(train)
    tokens, prompts = image_tokens(vit_backbone, images), method.learned_parameters()["ctx_vision"]
    mixed = prompts[:, torch.tensor([3, 0, 4, 1, 2])]
    torch.testing.assert_close(
        method.image_features(tokens, mixed), method.image_features(tokens, prompts), atol=1e-6, rtol=0
    )
    assert (method.image_features(tokens, prompts[[1, 0]]) - method.image_features(tokens, prompts)).abs().max() > 1e-3


@pytest.mark.parametrize(("init", "source"), [("uniform", uniform_prompts), ("normal", normal_prompts)])
def test_the_start(vit_backbone, train, init, source):
    method = small(vit_backbone, init=init, depth=3, epochs=0, seed=4).fit(train)
    assert torch.equal(method.learned_parameters()["ctx_vision"], source(vit_backbone, 3, 5, seed=4))


def test_training_moves_every_layers_prompts_lowers_the_loss_and_leaves_the_tower(vit_backbone, splits):
    before = {name: tensor.clone() for name, tensor in vit_backbone.model.state_dict().items()}
    method = small(vit_backbone, depth=None, epochs=8, batch_size=16).fit(splits(per_class=4, seed=1))
    assert method.history["loss"][-1] < method.history["loss"][0] - 0.05
    start = uniform_prompts(vit_backbone, 3, 5, seed=0)
    assert ((method.ctx_vision - start).abs().amax(-1) > 1e-6).all()
    assert all(torch.equal(tensor, before[name]) for name, tensor in vit_backbone.model.state_dict().items())
    assert all(p.grad is None for p in vit_backbone.model.parameters())


def test_the_recipe(vit_backbone, splits, monkeypatch):
    seen = {}

    def spy(parameters, loss_fn, n, **settings):
        seen.update(settings, shapes=[tuple(p.shape) for p in parameters])
        return {}

    monkeypatch.setattr("vlmcourse.training.fit", spy)
    VisualPromptTuning(vit_backbone).fit(splits(per_class=1))
    assert seen["shapes"] == [(1, 5, 48)]
    expected = {"epochs": 100, "batch_size": 32, "lr": 2.5e-3, "momentum": 0.9, "weight_decay": 5e-4}
    assert expected.items() <= seen.items() and seen["warmup_epochs"] == 1


def test_prompts_are_dropped_in_training_only(vit_backbone, train, test_split):
    plain, noisy = (small(vit_backbone, dropout=p, epochs=1).fit(train) for p in (0.0, 0.5))
    assert noisy.history["loss"] != plain.history["loss"]
    assert torch.equal(noisy.logits(test_split), noisy.logits(test_split))
    assert torch.equal(noisy.visual_prompts(), noisy.learned_parameters()["ctx_vision"])


def test_prompts_of_each_image_by_a_descendant(vit_backbone, train, images):
    """What a method with a prompt generator overrides."""

    class PerImage(VisualPromptTuning):
        def visual_prompts(self):
            return self.ctx_vision[:, None] + self.shift[:, None, None]  # (J, b, M, Dv)

    method = PerImage(vit_backbone, depth=2, epochs=0).fit(train)
    method.shift = torch.linspace(-1, 1, len(images))
    tokens = image_tokens(vit_backbone, images)
    features = method.image_features(tokens)
    for b in range(len(images)):
        one = method.image_features(tokens[b : b + 1], method.ctx_vision + method.shift[b])[0]
        torch.testing.assert_close(features[b], one, atol=1e-6, rtol=0)


@pytest.mark.parametrize(("batch_size", "views"), [(1, 1), (5, 2), (100, None)])
def test_odd_batches_and_every_kind_of_view(vit_backbone, train, batch_size, views):
    method = small(vit_backbone, batch_size=batch_size, views=views, epochs=1).fit(train)
    assert torch.isfinite(method.ctx_vision).all()


def test_inputs_batches_seeds_and_other_classes(vit_backbone, train, test_split, monkeypatch):
    method = small(vit_backbone).fit(train)
    logits = method.logits(test_split)
    monkeypatch.setattr("vlmcourse.methods.visual_prompt_tuning.TEST_BATCH", 3)
    torch.testing.assert_close(method.logits(test_split), logits, atol=1e-3, rtol=0)
    one = torch.cat([method.logits(image) for image in test_split.images[:3]])
    torch.testing.assert_close(one, logits[:3], atol=1e-3, rtol=0)
    assert (small(vit_backbone, seed=1).fit(train).logits(test_split) - logits).abs().max() > 1e-4
    moved = method.for_classes(["yak", "dog"])
    torch.testing.assert_close(moved.logits(test_split)[:, 1], logits[:, 1], atol=1e-3, rtol=0)
    hand = class_features(vit_backbone, ["yak", "dog"], ["a {}."])
    assert torch.equal(method.for_classes(["yak", "dog"], ["a {}."]).text, hand)


def test_half_precision(vit_backbone, train, test_split):
    half = vit_backbone.to(dtype=torch.bfloat16)
    method = small(half, epochs=1).fit(train)
    assert method.ctx_vision.dtype == torch.float32 and method.logits(test_split).dtype == torch.float32


def test_everything_stays_on_the_backbones_device(vit_backbone, fake_cuda):
    method = small(fake_cuda(vit_backbone), depth=2, dropout=0.5)
    method.class_names, method.templates = ("cat", "dog"), ("a {}.",)
    method._start()
    method.ctx_vision.requires_grad_()
    method.training, method.draw = True, torch.Generator()
    tokens, labels = torch.randn(3, 17, 48, device="cuda"), torch.zeros(3, device="cuda").long()
    loss = method._loss(tokens, labels, torch.arange(3))
    assert loss.requires_grad and loss.device.type == "cuda"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"n_ctx_vision": -1}, "n_ctx_vision=-1"),
        ({"n_ctx_vision": 1.5}, "n_ctx_vision=1.5"),
        ({"depth": 0}, "depth=0 must be a whole number from 1 to the tower's 3 layers"),
        ({"depth": 4}, "depth=4"),
        ({"init": "zero"}, "init='zero'"),
        ({"dropout": 1.0}, "dropout=1.0"),
    ],
)
def test_bad_arguments_are_named(vit_backbone, arguments, message):
    with pytest.raises(ValueError, match=message):
        small(vit_backbone, **arguments)


def test_a_resnet_is_refused(resnet_backbone):
    with pytest.raises(ValueError, match="VisualPromptTuning needs a ViT"):
        VisualPromptTuning(resnet_backbone)


def test_features_are_refused_with_the_shape_that_is_needed(vit_backbone, train):
    method = small(vit_backbone, epochs=0).fit(train)
    assert F.normalize(method.image_features(image_tokens(vit_backbone, train.images[:1]))).shape == (1, 16)
    with pytest.raises((ValueError, RuntimeError)):
        method.logits(torch.zeros(3, 16))
