"""The image tower: prompts at every place and depth, patch tokens, dense features."""

import pytest
import torch
from open_clip.transformer import VisionTransformer
from torch import nn

from vlmcourse.backbone.vision import plain_attention, resize_positions


@pytest.fixture
def pixels(vit_backbone, images):
    return vit_backbone.preprocess(images)


def test_no_prompts_equal_the_frozen_tower_bit_for_bit(vit_backbone, pixels):
    frozen = vit_backbone.encode_image(pixels)
    assert torch.equal(vit_backbone.encode_image_prompted(pixels), frozen)
    empty = torch.zeros(0, 48, requires_grad=True)
    for where in ("end", "after_cls"):
        for before in (False, True):
            same = vit_backbone.encode_image_prompted(pixels, empty, {1: empty}, where, before)
            assert same.requires_grad  # the gradient mode does not change the numbers
            assert torch.equal(same, frozen)
    with torch.no_grad():
        assert torch.equal(vit_backbone.encode_image(pixels), frozen)


def test_the_fast_path_switch_is_put_back(vit_backbone, pixels):
    assert torch.backends.mha.get_fastpath_enabled()
    with plain_attention():
        vit_backbone.encode_image(pixels)
        assert not torch.backends.mha.get_fastpath_enabled()  # the inner user left, the outer is still there
        expected = vit_backbone.model.encode_image(pixels, normalize=True)
    assert torch.backends.mha.get_fastpath_enabled()
    assert torch.equal(vit_backbone.encode_image(pixels), expected)
    with pytest.raises(ValueError):
        vit_backbone.encode_image_prompted(pixels, torch.zeros(2, 47))
    assert torch.backends.mha.get_fastpath_enabled()


def by_hand(visual, pixels, shallow, deep, before):
    """The same by open_clip's own `_embeds` and blocks, prompts at the end, replaced at each layer in `deep`."""
    m, batch = len(shallow), len(pixels)
    with plain_attention():
        x = visual._embeds(pixels)
        normed = visual.ln_pre(shallow) if before else shallow
        x = torch.cat([x, normed.expand(batch, -1, -1)], dim=1)
        for i, block in enumerate(visual.transformer.resblocks):
            if i in deep:
                x = torch.cat([x[:, :-m], deep[i].expand(batch, -1, -1)], dim=1)
            x = block(x)
    return visual.ln_post(x[:, 0]) @ visual.proj


@pytest.mark.parametrize("before", [False, True])
def test_shallow_and_deep_prompts(vit_backbone, pixels, generator, before):
    shallow = torch.randn(3, 48, generator=generator)
    deep = {1: torch.randn(3, 48, generator=generator), 2: torch.randn(5, 3, 48, generator=generator)}
    expected = by_hand(vit_backbone.model.visual, pixels, shallow, deep, before)

    def encode(where, deep=deep):
        return vit_backbone.encode_image_prompted(pixels, shallow, deep, where, before, normalise=False)

    torch.testing.assert_close(encode("end"), expected, rtol=0, atol=1e-6)
    torch.testing.assert_close(encode("after_cls"), expected, rtol=0, atol=1e-5)  # the place does not matter
    seen = []
    encode("end", {1: lambda tokens: seen.append(tokens.shape) or deep[1]})
    assert seen == [(5, 17, 48)]  # CLS and patches, without prompts


def test_ln_pre_matters_and_images_may_have_their_own_prompts(vit_backbone, pixels, generator):
    shallow = 0.02 * torch.randn(5, 3, 48, generator=generator)
    after = vit_backbone.encode_image_prompted(pixels, shallow)
    before = vit_backbone.encode_image_prompted(pixels, shallow, before_ln_pre=True)
    assert (after - before).abs().max() > 1e-3
    one = vit_backbone.encode_image_prompted(pixels[3:4], shallow[3])
    torch.testing.assert_close(one[0], after[3], rtol=0, atol=1e-6)


def test_appended_and_dropped_at_one_layer(vit_backbone, pixels, generator):
    prompts = torch.randn(2, 48, generator=generator)
    dropped = vit_backbone.encode_image_prompted(pixels, deep={0: prompts, 1: prompts[:0]})
    kept = vit_backbone.encode_image_prompted(pixels, deep={0: prompts})
    assert (dropped - kept).abs().max() > 1e-4
    torch.testing.assert_close(kept, vit_backbone.encode_image_prompted(pixels, prompts), rtol=0, atol=0)


def test_gradients_reach_prompts_and_pixels_only(vit_backbone, pixels):
    shallow, deep = torch.zeros(2, 48, requires_grad=True), torch.zeros(2, 48, requires_grad=True)
    pixels.requires_grad_()
    vit_backbone.encode_image_prompted(pixels, shallow, {2: deep}).sum().backward()
    assert all(t.grad.abs().sum() > 0 for t in (shallow, deep, pixels))
    assert all(p.grad is None for p in vit_backbone.model.parameters())
    again = pixels.detach().requires_grad_()
    vit_backbone.encode_image(again).sum().backward()
    assert again.grad.abs().sum() > 0


def test_average_pooling_leaves_the_prompts_out(make_backbone, images, generator):
    backbone = make_backbone("vit", vision={"pool_type": "avg"})
    pixels, prompts = backbone.preprocess(images), torch.randn(3, 48, generator=generator)
    seen = []
    handle = backbone.model.visual.ln_post.register_forward_hook(lambda m, args, out: seen.append(out.shape))
    backbone.encode_image_prompted(pixels, prompts)
    handle.remove()
    assert seen == [(5, 17, 48)]


def test_any_module_may_stand_in_for_conv1(make_backbone, images):
    backbone = make_backbone("vit")
    expected = backbone.encode_image(images)
    backbone.model.visual.conv1 = nn.Sequential(nn.Identity(), backbone.model.visual.conv1)
    assert torch.equal(backbone.encode_image(images), expected)
    assert backbone.dense_features(images).shape == (5, 16, 4, 4)


def test_prompt_mistakes_are_named(vit_backbone, resnet_backbone, pixels):
    prompts = torch.zeros(2, 48)
    with pytest.raises(ValueError, match=r"image prompts have shape \(4, 2, 48\), expected \(M, 48\) or \(5, M, 48\)"):
        vit_backbone.encode_image_prompted(pixels, torch.zeros(4, 2, 48))
    with pytest.raises(ValueError, match="where='start', expected 'end' or 'after_cls'"):
        vit_backbone.encode_image_prompted(pixels, prompts, where="start")
    with pytest.raises(ValueError, match=r"deep has layers \[3, 'x'\], expected integers from 0 to 2"):
        vit_backbone.encode_image_prompted(pixels, deep={3: prompts, "x": prompts})
    with pytest.raises(ValueError, match="overwrite the shallow prompts"):
        vit_backbone.encode_image_prompted(pixels, prompts, {0: prompts})
    with pytest.raises(ValueError, match="prompts in the image tower needs a ViT image tower, but 'tiny-resnet' has"):
        resnet_backbone.encode_image_prompted(torch.zeros(1, 3, 64, 64), prompts)
    with pytest.raises(ValueError, match="VPT needs a ViT"):
        resnet_backbone.require_vit("VPT")
    with pytest.raises(ValueError, match="needs a ViT"):
        resnet_backbone.patch_tokens(torch.zeros(1, 3, 64, 64))
    vit_backbone.require_vit("VPT")


def test_patch_tokens_are_open_clips(make_backbone, vit_backbone, pixels):
    other = make_backbone("vit", vision={"output_tokens": True})
    other.model.load_state_dict(vit_backbone.model.state_dict())
    expected = other.model.visual(pixels)[1]
    torch.testing.assert_close(vit_backbone.patch_tokens(pixels), expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize("path", ["value", "value+residual", "full"])
def test_dense_features_of_a_vit(vit_backbone, images, path):
    dense = vit_backbone.dense_features(images, path, batch_size=2)
    assert dense.shape == (5, 16, 4, 4)
    torch.testing.assert_close(dense.norm(dim=1), torch.ones(5, 4, 4))
    larger = vit_backbone.dense_features(torch.zeros(2, 3, 48, 64), path)  # positions are resized
    assert larger.shape == (2, 16, 6, 8)
    wide = vit_backbone.dense_features(torch.zeros(1, 3, 16, 64), path)  # as many patches, another grid
    assert wide.shape == (1, 16, 2, 8)


def test_positions_are_resized_only_for_another_grid(vit_backbone):
    position = vit_backbone.model.visual.positional_embedding
    assert resize_positions(position, (4, 4)) is position
    wide = resize_positions(position, (2, 8))
    assert torch.equal(wide[0], position[0]) and (wide[1:] - position[1:]).abs().max() > 0.01
    constant = resize_positions(torch.ones(17, 48), (6, 5))
    torch.testing.assert_close(constant, torch.ones(31, 48))


def test_full_path_is_the_ordinary_tower(vit_backbone, pixels):
    visual = vit_backbone.model.visual
    expected = (vit_backbone.patch_tokens(pixels) @ visual.proj).transpose(1, 2).unflatten(2, (4, 4))
    found = vit_backbone.dense_features(pixels, "full", normalise=False)
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-6)


def test_value_path_is_the_last_block_if_every_token_attends_to_itself(make_backbone, images):
    """Huge equal queries and keys that differ by token make softmax a unit matrix; then both paths must agree."""
    backbone = make_backbone("vit", vision={"head_width": 48})  # one head, Dv = 48 >= 17 tokens
    last = backbone.model.visual.transformer.resblocks[-1]
    with torch.no_grad():  # q = k = 30 y: each normalised token is most similar to itself
        last.attn.in_proj_weight[:96] = 30 * torch.eye(48).repeat(2, 1)
        last.attn.in_proj_bias[:96] = 0
        last.ln_1.weight.fill_(1)
        last.ln_1.bias.zero_()
    pixels = backbone.preprocess(images)
    full = backbone.dense_features(pixels, "full", normalise=False)
    found = backbone.dense_features(pixels, "value+residual", normalise=False)
    torch.testing.assert_close(found, full, rtol=0, atol=1e-5)
    assert (backbone.dense_features(pixels, "value", normalise=False) - full).abs().max() > 0.1


def test_dense_features_of_a_resnet(resnet_backbone, generator):
    pixels, visual = torch.randn(2, 3, 64, 64, generator=generator), resnet_backbone.model.visual
    value = resnet_backbone.dense_features(pixels, normalise=False)
    assert value.shape == (2, 16, 2, 2)
    seen = []
    handle = visual.layer4.register_forward_hook(lambda m, args, out: seen.append(out))
    visual(pixels)
    handle.remove()
    pool, feature_map = visual.attnpool, seen[0]  # (2, 256, 2, 2)
    value_map = nn.functional.conv2d(feature_map, pool.v_proj.weight[..., None, None], pool.v_proj.bias)
    expected = nn.functional.conv2d(value_map, pool.c_proj.weight[..., None, None], pool.c_proj.bias)
    torch.testing.assert_close(value, expected, rtol=0, atol=1e-5)
    assert resnet_backbone.dense_features(torch.zeros(1, 3, 96, 128), "full").shape == (1, 16, 3, 4)
    with pytest.raises(ValueError, match="attention pool of a ResNet has no residual"):
        resnet_backbone.dense_features(pixels, "value+residual")
    with pytest.raises(ValueError, match="path='values', expected one of"):
        resnet_backbone.dense_features(pixels, "values")


def test_full_path_of_a_resnet_pools_with_every_position_as_query(make_backbone, generator):
    """With one position, the mean token differs from it by the positional embedding only; make those equal."""
    backbone = make_backbone("resnet", vision={"image_size": 32})
    position = backbone.model.visual.attnpool.positional_embedding
    with torch.no_grad():
        position[1] = position[0]
    pixels = torch.randn(2, 3, 32, 32, generator=generator)
    dense = backbone.dense_features(pixels, "full", normalise=False)
    torch.testing.assert_close(dense[:, :, 0, 0], backbone.model.visual(pixels), rtol=0, atol=1e-5)


def test_towers_are_open_clips_own(vit_backbone):
    assert type(vit_backbone.model.visual) is VisionTransformer
