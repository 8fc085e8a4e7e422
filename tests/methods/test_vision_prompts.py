"""Prompts in the image tower: equal to the backbone's own pass; sets, per image, deep; gradients, errors."""

import math

import pytest
import torch

from vlmcourse.backbone.features import image_features
from vlmcourse.methods.augment import TrainingFeatures
from vlmcourse.methods.vision_prompts import TOKENS, encode_prompted, image_tokens, normal_prompts, uniform_prompts


def draw(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def test_without_prompts_it_is_the_frozen_tower_bit_for_bit(vit_backbone, images):
    tokens = image_tokens(vit_backbone, images)
    assert tokens.shape == (5, 17, 48)
    assert torch.equal(encode_prompted(vit_backbone, tokens), vit_backbone.encode_image(images))
    assert torch.equal(encode_prompted(vit_backbone, tokens, draw(0, 48)), vit_backbone.encode_image(images))


@pytest.mark.parametrize("before_ln_pre", [True, False])
@pytest.mark.parametrize("where", ["end", "after_cls"])
def test_one_set_equals_the_backbones_prompted_pass(vit_backbone, images, where, before_ln_pre):
    shallow, deep, options = draw(3, 48), {2: draw(2, 48, seed=1)}, {"where": where, "before_ln_pre": before_ln_pre}
    ours = encode_prompted(vit_backbone, image_tokens(vit_backbone, images), shallow, deep, **options)
    theirs = vit_backbone.encode_image_prompted(images, shallow, deep, **options)
    torch.testing.assert_close(ours, theirs, atol=1e-6, rtol=0)


def test_sets_and_prompts_per_image(vit_backbone, images):
    tokens = image_tokens(vit_backbone, images)
    sets, own = draw(2, 3, 1, 4, 48), draw(5, 2, 48, seed=1)
    features = encode_prompted(vit_backbone, tokens, sets)
    assert features.shape == (2, 3, 5, 16)
    for i, j in ((0, 0), (1, 2)):
        one = encode_prompted(vit_backbone, tokens, sets[i, j, 0])
        torch.testing.assert_close(features[i, j], one, atol=1e-6, rtol=0)
    each = encode_prompted(vit_backbone, tokens, own)
    for b in range(5):
        one = encode_prompted(vit_backbone, tokens[b : b + 1], own[b])[0]
        torch.testing.assert_close(each[b], one, atol=1e-6, rtol=0)
    both = encode_prompted(vit_backbone, tokens, own[None].expand(3, -1, -1, -1), deep={1: draw(3, 1, 2, 48)})
    assert both.shape == (3, 5, 16)


def test_prompts_may_be_functions_of_the_tokens_of_their_layer(vit_backbone, images):
    tokens, shallow, seen = image_tokens(vit_backbone, images), draw(2, 48), []

    def own(x):  # what the layer reads, without the prompts of before
        seen.append(x)
        return 2 * x[:, 3:6]

    features = encode_prompted(vit_backbone, tokens, shallow, {1: own})
    assert [x.shape for x in seen] == [tokens.shape]
    expected = encode_prompted(vit_backbone, tokens, shallow, {1: 2 * seen[0][:, 3:6]})
    torch.testing.assert_close(features, expected)
    assert (features - encode_prompted(vit_backbone, tokens, shallow)).abs().max() > 1e-3


def test_gradients_reach_every_prompt_and_nothing_else(vit_backbone, images):
    tokens = image_tokens(vit_backbone, images)
    shallow, deep = draw(2, 1, 3, 48).requires_grad_(), draw(2, 1, 3, 48, seed=1).requires_grad_()
    features = encode_prompted(vit_backbone, tokens, shallow, {1: deep})  # (2, 5, E)
    (features * draw(2, 5, 16, seed=2)).sum().backward()
    assert not tokens.requires_grad and all(p.grad is None for p in vit_backbone.model.parameters())
    for prompts in (shallow, deep):
        assert (prompts.grad.abs().amax(-1) > 0).all()


def test_tokens_are_cached_like_features_and_training_draws_views(vit_backbone, train):
    tokens = image_features(vit_backbone, train, encoder=TOKENS, normalise=False)
    torch.testing.assert_close(tokens, image_tokens(vit_backbone, train.images))
    drawn = TrainingFeatures(vit_backbone, train, encoder=TOKENS)
    assert torch.equal(drawn(torch.tensor([2, 0])), tokens[[2, 0]]), "tokens are no directions: not normalised"
    for views in (2, None):
        crops = TrainingFeatures(vit_backbone, train, views=views, encoder=TOKENS)(torch.arange(3))
        assert crops.shape == (3, 17, 48) and (crops - tokens[:3]).abs().max() > 1e-3


def test_float_images_single_images_and_batches(vit_backbone, images):
    whole = image_tokens(vit_backbone, images)
    torch.testing.assert_close(image_tokens(vit_backbone, vit_backbone.preprocess(images)), whole)
    torch.testing.assert_close(image_tokens(vit_backbone, images, batch_size=2), whole, atol=1e-6, rtol=0)
    torch.testing.assert_close(image_tokens(vit_backbone, images[3]), whole[3:4], atol=1e-6, rtol=0)


def test_starts_are_drawn_from_the_seed(vit_backbone):
    normal, uniform = normal_prompts(vit_backbone, 4, 50, seed=1), uniform_prompts(vit_backbone, 4, 50, seed=1)
    assert normal.shape == uniform.shape == (4, 50, 48)
    assert normal.std().item() == pytest.approx(0.02, rel=0.05)
    bound = math.sqrt(6 / (3 * 8 * 8 + 48))
    assert uniform.abs().max() <= bound and uniform.std().item() == pytest.approx(bound / math.sqrt(3), rel=0.05)
    assert torch.equal(normal, normal_prompts(vit_backbone, 4, 50, seed=1))
    assert not torch.equal(uniform, uniform_prompts(vit_backbone, 4, 50, seed=2))


def test_half_precision_keeps_full_precision_prompts_and_features(vit_backbone, images):
    half = vit_backbone.to(dtype=torch.bfloat16)
    prompts = normal_prompts(half, 2, seed=0)
    assert prompts.dtype == torch.float32
    tokens = image_tokens(half, images)
    features = encode_prompted(half, tokens, prompts)
    assert features.dtype == torch.float32
    assert torch.equal(encode_prompted(half, tokens.float(), prompts), features)
    full = encode_prompted(vit_backbone, image_tokens(vit_backbone, images), prompts)
    torch.testing.assert_close(features, full, atol=0.1, rtol=0)


def test_everything_stays_on_the_backbones_device(vit_backbone, fake_cuda):
    backbone = fake_cuda(vit_backbone)
    tokens = image_tokens(backbone, torch.zeros(2, 3, 32, 32, device="cuda"))
    prompts = normal_prompts(backbone, 3, 1, 2, seed=0)
    assert encode_prompted(backbone, tokens, prompts).device.type == "cuda"


def test_errors(vit_backbone, resnet_backbone, images):
    tokens = image_tokens(vit_backbone, images)
    for wrong in (draw(2, 47), draw(3, 2, 48), draw(48)):
        with pytest.raises(ValueError, match="image prompts"):
            encode_prompted(vit_backbone, tokens, wrong)
    for call in (
        lambda: image_tokens(resnet_backbone, images),
        lambda: encode_prompted(resnet_backbone, tokens),
        lambda: normal_prompts(resnet_backbone, 2, seed=0),
        lambda: uniform_prompts(resnet_backbone, 2, seed=0),
    ):
        with pytest.raises(ValueError, match="needs a ViT"):
            call()
