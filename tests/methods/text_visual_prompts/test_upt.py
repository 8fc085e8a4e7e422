"""UPT: the block by hand, what mixes and what does not, who learns, degenerate settings, recipe, transfer, errors."""

import pytest
import torch
import torch.nn.functional as F

from vlmcourse.methods.context import ClassPrompts, random_context
from vlmcourse.methods.prompt_attention import seeded
from vlmcourse.methods.text_visual_prompts.upt import UPT, UnifiedTransformer
from vlmcourse.methods.vision_prompts import image_tokens
from vlmcourse.methods.visual_prompt_tuning import VisualPromptTuning


def small(backbone, **arguments):
    return UPT(backbone, **{"n_ctx": 3, "epochs": 2, "lr": 0.02, "batch_size": 8} | arguments)


def test_the_number_of_parameters_is_the_releases(vit_backbone):
    net = seeded(lambda: UnifiedTransformer(512, 768), 0, vit_backbone)
    assert sum(p.numel() for p in net.parameters()) + 8 * 512 == 1_976_064


@pytest.mark.parametrize("block", ["release", "paper"])
def test_the_block_is_the_written_equation(vit_backbone, block):
    net = seeded(lambda: UnifiedTransformer(32, 48, block=block), 5, vit_backbone)
    with torch.no_grad():
        for p in net.parameters():
            p.add_(0.1 * torch.randn(p.shape, generator=torch.Generator().manual_seed(p.numel())))
    u = random_context(vit_backbone, 6, seed=1)
    q, k, v = (u @ net.attention.into.weight.T + net.attention.into.bias).chunk(3, dim=-1)
    attended = (q @ k.T / 32**0.5).softmax(-1) @ v @ net.attention.out.weight.T + net.attention.out.bias

    def ln(x, layer):
        centred = x - x.mean(-1, keepdim=True)
        return centred / (x.var(-1, unbiased=False, keepdim=True) + 1e-5).sqrt() * layer.weight + layer.bias

    def ffn(x):
        hidden = (x @ net.linear_1.weight.T + net.linear_1.bias).clamp(min=0)
        return hidden @ net.linear_2.weight.T + net.linear_2.bias

    if block == "release":
        z = ln(u + attended, net.ln_1)
        expected = z + ffn(ln(z, net.ln_2))
    else:
        normed = ln(attended + ln(u, net.ln_1), net.ln_2)
        expected = ffn(normed) + normed
    torch.testing.assert_close(net(u), expected, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("release_compat", [False, True])
def test_modalities_mix_unless_it_is_the_release(vit_backbone, train, release_compat):
    method = small(vit_backbone, release_compat=release_compat, epochs=0).fit(train)
    method.uni_ctx.requires_grad_()
    for i, own in enumerate((slice(None, 3), slice(3, None))):
        part = method.modal_prompts()[i]
        (grad,) = torch.autograd.grad(part.pow(3).sum(), method.uni_ctx)
        other = grad.clone()
        other[own] = 0
        assert (grad[own].abs().amax(-1) > 0).all()
        assert (other == 0).all() if release_compat else (other.abs().amax(-1) > 0).sum() == 3
    weights = method.attention()
    assert weights.shape == (6, 6) and torch.equal(weights, torch.eye(6)) is release_compat
    torch.testing.assert_close(weights.sum(-1), torch.ones(6))


@pytest.mark.parametrize("depth", [1, 3])
def test_logits_are_both_towers_with_the_prompts_of_the_transformer(vit_backbone, train, images, depth):
    method = small(vit_backbone, depth=depth).fit(train)
    written = method.transformer(method.uni_ctx)
    assert len(written) == 3 * (1 + depth)
    visual = F.linear(written[3:], method.transformer.to_vision.weight, method.transformer.to_vision.bias)
    visual = visual.reshape(depth, 3, 48).detach()
    deep = {i: visual[i] for i in range(1, depth)}
    features = vit_backbone.encode_image_prompted(images, visual[0], deep, "after_cls", before_ln_pre=True)
    text = ClassPrompts(vit_backbone, train.class_names, 3).encode(written[:3])
    torch.testing.assert_close(method.logits(images), vit_backbone.logit_scale * features @ text.T, atol=1e-4, rtol=0)


def test_given_its_visual_prompts_vpt_has_the_same_image_features(vit_backbone, train, images):
    method = small(vit_backbone).fit(train)
    vpt = VisualPromptTuning(vit_backbone, n_ctx_vision=3, before_ln_pre=True, epochs=0).fit(train)
    tokens = image_tokens(vit_backbone, images)
    assert torch.equal(vpt.image_features(tokens, method.visual_prompts()), method.image_features(tokens))


def test_training_lowers_the_loss_moves_everything_and_leaves_the_towers(vit_backbone, splits):
    before = {name: tensor.clone() for name, tensor in vit_backbone.model.state_dict().items()}
    start = small(vit_backbone, epochs=0).fit(splits()).learned_parameters()
    method = small(vit_backbone, epochs=8, batch_size=16).fit(splits(per_class=4, seed=1))
    assert method.history["loss"][-1] < method.history["loss"][0] - 0.05
    learned = method.learned_parameters()
    assert all(not torch.equal(learned[name], start[name]) for name in start)
    assert learned["uni_ctx"].shape == (6, 32) and learned["to_vision.weight"].shape == (48, 32)
    assert all(torch.equal(tensor, before[name]) for name, tensor in vit_backbone.model.state_dict().items())
    assert all(p.grad is None for p in vit_backbone.model.parameters())


def test_dropout_is_for_training_and_the_release_draws_it_twice(vit_backbone, train):
    for release_compat in (False, True):
        method = small(vit_backbone, release_compat=release_compat, epochs=0, dropout=0.5).fit(train)
        torch.testing.assert_close(method.modal_prompts(), method.modal_prompts(), atol=0, rtol=0)
        method.training = True
        passes, draw = [], method.draw.get_state()
        for _ in range(1 + release_compat):
            passes.append(method.transformer(method.uni_ctx, method.draw))
        method.draw.set_state(draw)
        text, visual = method.modal_prompts()
        assert torch.equal(text, passes[0][:3])
        assert torch.equal(visual[0], method.transformer.to_vision(passes[-1][3:]))


def test_the_recipe(vit_backbone, splits, monkeypatch):
    seen = {}

    def spy(parameters, loss_fn, n, **settings):
        seen.update(settings, first=parameters[0].detach().clone())
        return {}

    monkeypatch.setattr("vlmcourse.training.fit", spy)
    UPT(vit_backbone, seed=2).fit(splits(per_class=1))
    expected = {"epochs": 200, "batch_size": 32, "lr": 2e-3, "momentum": 0.9, "weight_decay": 5e-4, "warmup_epochs": 1}
    assert expected.items() <= seen.items()
    assert torch.equal(seen["first"], random_context(vit_backbone, 8, seed=2))


def test_seeds_batches_and_other_classes(vit_backbone, train, test_split):
    method = small(vit_backbone).fit(train)
    logits = method.logits(test_split)
    assert torch.equal(small(vit_backbone).fit(train).logits(test_split), logits)
    assert (small(vit_backbone, seed=1).fit(train).logits(test_split) - logits).abs().max() > 1e-4
    one = torch.cat([method.logits(image) for image in test_split.images[:3]])
    torch.testing.assert_close(one, logits[:3], atol=1e-3, rtol=0)
    moved = method.for_classes(["yak", "dog"])
    torch.testing.assert_close(moved.logits(test_split)[:, 1], logits[:, 1], atol=1e-3, rtol=0)
    assert method.text.shape == (4, 16) and moved.text.shape == (2, 16)


@pytest.mark.parametrize(("batch_size", "views"), [(1, 1), (5, 2), (100, None)])
def test_odd_batches_and_every_kind_of_view(vit_backbone, train, batch_size, views):
    method = small(vit_backbone, batch_size=batch_size, views=views, epochs=1).fit(train)
    assert torch.isfinite(method.uni_ctx).all()


def test_half_precision(vit_backbone, train, test_split):
    method = small(vit_backbone.to(dtype=torch.bfloat16), epochs=1).fit(train)
    assert all(tensor.dtype == torch.float32 for tensor in method.learned_parameters().values())
    assert torch.isfinite(method.logits(test_split)).all()


def test_everything_stays_on_the_backbones_device(vit_backbone, fake_cuda):
    method = small(fake_cuda(vit_backbone), release_compat=True)
    method.class_names = ("cat", "hot air balloon")
    method._start()
    method.uni_ctx.requires_grad_()
    method.training, method.draw = True, torch.Generator()
    tokens, labels = torch.randn(3, 17, 48, device="cuda"), torch.zeros(3, device="cuda").long()
    loss = method._loss(tokens, labels, torch.arange(3))
    assert loss.requires_grad and loss.device.type == "cuda"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"n_ctx": 0}, "n_ctx=0"),
        ({"n_ctx": 40}, "n_ctx=40"),
        ({"block": "pre"}, "block='pre'"),
        ({"depth": 4}, "depth=4"),
        ({"dropout": -0.1}, "dropout=-0.1"),
        ({"init": "normal"}, "init='normal' is not for UPT"),
        ({"n_ctx_vision": 3}, "n_ctx_vision=3 is not for UPT"),
    ],
)
def test_bad_arguments_are_named(vit_backbone, train, arguments, message):
    with pytest.raises(ValueError, match=message):
        small(vit_backbone, **arguments).fit(train)


def test_a_resnet_is_refused(resnet_backbone):
    with pytest.raises(ValueError, match="UPT needs a ViT"):
        UPT(resnet_backbone)
