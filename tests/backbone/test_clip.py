"""Backbone as a whole: images in, logits out, precision, fingerprint, errors, other devices."""

import copy

import open_clip
import pytest
import torch
from PIL import Image

from vlmcourse.backbone.clip import Backbone


@pytest.fixture(params=["vit_backbone", "resnet_backbone"])
def backbone(request):
    return request.getfixturevalue(request.param)


def test_attributes(vit_backbone, resnet_backbone):
    v, r = vit_backbone, resnet_backbone
    assert (v.image_size, v.embed_dim, v.text_width, v.vision_width, v.context_length) == (32, 16, 32, 48, 32)
    assert (r.image_size, r.embed_dim, r.text_width, r.vision_width) == (64, 16, 32, None)
    assert v.is_vit and not r.is_vit
    assert (v.device, v.dtype, v.model.training) == (torch.device("cpu"), torch.float32, False)
    assert v.logit_scale.shape == () and not v.logit_scale.requires_grad
    assert v.logit_scale.item() == pytest.approx(1 / 0.07, rel=1e-5)
    assert not any(p.requires_grad for p in v.model.parameters())
    assert repr(v) == "Backbone('tiny-vit', image_size=32, embed_dim=16, torch.float32, cpu)"


def test_logits_equal_open_clips_forward(backbone, generator):
    pixels = torch.randn(3, 3, backbone.image_size, backbone.image_size, generator=generator)
    ids = backbone.tokenize(["a cat", "a dog on a mat", "an owl"])
    image, text, scale = backbone.model(pixels, ids)
    logits = backbone.logit_scale * backbone.encode_image(pixels) @ backbone.encode_text(ids).T
    torch.testing.assert_close(logits, scale * image @ text.T, rtol=0, atol=1e-5)


@pytest.mark.parametrize("mode", ["RGB", "L", "RGBA"])
def test_pictures_are_prepared_as_open_clip_does(vit_backbone, generator, mode):
    pixels = torch.randint(0, 256, (50, 40, 3), generator=generator, dtype=torch.uint8)
    picture = Image.fromarray(pixels.numpy()).convert(mode)
    expected = open_clip.image_transform(32, is_train=False)(picture)[None]
    assert torch.equal(vit_backbone.preprocess(picture), expected)
    assert torch.equal(vit_backbone.preprocess([picture, picture])[1:], expected)
    if mode == "RGB":  # tensors are resized by another implementation of the same filter, which rounds elsewhere
        tensor = vit_backbone.preprocess(pixels.permute(2, 0, 1))
        assert ((tensor - expected) * vit_backbone.std * 255).abs().mean() < 0.3  # grey levels


def test_a_picture_of_the_right_size_is_not_resampled(vit_backbone, images):
    expected = (images.float() / 255 - vit_backbone.mean) / vit_backbone.std
    assert torch.equal(vit_backbone.preprocess(images), expected)
    assert torch.equal(vit_backbone.preprocess(images[0]), expected[:1])
    pictures = [Image.fromarray(i.permute(1, 2, 0).numpy()) for i in images]
    assert torch.equal(vit_backbone.preprocess(pictures), expected)
    assert torch.equal(vit_backbone.encode_image(pictures), vit_backbone.encode_image(images))


def test_squash_and_unknown_resize_modes(make_clip, vit_backbone, images):
    model = make_clip("vit")
    model.visual.preprocess_cfg = {"size": 32, "resize_mode": "squash", "mean": (0, 0, 0), "std": (1, 1, 1)}
    squashed = Backbone(model, vit_backbone.tokenizer).preprocess(images[:, :, :, :8])
    assert squashed.shape == (5, 3, 32, 32) and 0 <= squashed.min() and squashed.max() <= 1
    model.visual.preprocess_cfg = {"resize_mode": "longest"}
    with pytest.raises(ValueError, match="resize_mode='longest' is not supported"):
        Backbone(model, vit_backbone.tokenizer)


@pytest.mark.parametrize("batch_size", [1, 2, 3, 5, 7])
def test_odd_batch_sizes(backbone, images, batch_size):
    whole = backbone.encode_image(images)
    torch.testing.assert_close(backbone.encode_image(images, batch_size=batch_size), whole, rtol=0, atol=1e-6)
    torch.testing.assert_close(whole.norm(dim=-1), torch.ones(5))
    raw = backbone.encode_image(images, normalise=False)
    torch.testing.assert_close(raw / raw.norm(dim=-1, keepdim=True), whole)


def test_wrong_images_are_named(vit_backbone, images):
    cases = [
        (ValueError, "they count as preprocessed and must be", torch.zeros(2, 3, 40, 40)),
        (ValueError, r"shape \(3, 32, 32\), expected \(B, 3, H, W\)", torch.zeros(3, 32, 32)),
        (ValueError, r"shape \(5, 1, 32, 32\)", images[:, :1]),
        (ValueError, "B >= 1", images[:0]),
        (TypeError, "dtype torch.int64, expected uint8", images.long()),
        (TypeError, "images are ndarray", images.numpy()),
        (TypeError, "images are list", []),
        (TypeError, "images are str", "cat.png"),
    ]
    for error, message, wrong in cases:
        with pytest.raises(error, match=message):
            vit_backbone.encode_image(wrong)
    with pytest.raises(ValueError, match="batch_size=0"):
        vit_backbone.encode_image(images, batch_size=0)


def test_unsupported_models_are_refused(make_clip, vit_backbone):
    with pytest.raises(TypeError, match="expected an open_clip.CLIP"):
        Backbone(torch.nn.Linear(2, 2), None)
    with pytest.raises(ValueError, match="causal, pooled at its end token"):
        Backbone(make_clip("vit", text={"pool_type": "last"}), None)
    with pytest.raises(ValueError, match="causal"):
        Backbone(make_clip("vit", text={"no_causal_mask": True}), None)
    with pytest.raises(ValueError, match="CustomResidualAttentionBlock"):
        Backbone(make_clip("vit", vision={"qk_norm": True}), None)
    with pytest.raises(ValueError, match="no attentional pooling"):
        Backbone(make_clip("vit", vision={"attentional_pool": True, "attn_pooler_heads": 2}), None)


def test_to_makes_a_copy_in_another_precision(vit_backbone, images):
    half = vit_backbone.to(dtype=torch.bfloat16)
    assert half.dtype == half.encode_image(images).dtype == half.encode_text(["a cat"]).dtype == torch.bfloat16
    assert vit_backbone.dtype == torch.float32 == vit_backbone.model.visual.proj.dtype
    assert vit_backbone.to(dtype=torch.float32) is vit_backbone
    assert torch.equal(half.logit_scale, vit_backbone.logit_scale)
    difference = half.encode_image(images).float() - vit_backbone.encode_image(images)
    assert difference.abs().max() < 0.05
    double = vit_backbone.to(dtype=torch.float64)
    torch.testing.assert_close(
        double.encode_image(images).float(), vit_backbone.encode_image(images), rtol=0, atol=1e-5
    )


def test_fingerprint_differs_when_anything_differs(make_backbone, vit_backbone, resnet_backbone):
    changed = make_backbone("vit")
    assert changed.fingerprint == vit_backbone.fingerprint and len(changed.fingerprint) == 16
    with torch.no_grad():
        changed.model.visual.proj[0, 0] += 1e-3  # noticed although the fingerprint was computed before
    other_transform = copy.copy(vit_backbone)
    other_transform.transform, other_transform._fingerprint = copy.copy(vit_backbone.transform), None
    object.__setattr__(other_transform.transform, "mean", (0.5, 0.5, 0.5))
    other_tokenizer = copy.copy(vit_backbone)
    other_tokenizer.tokenizer = open_clip.SimpleTokenizer(context_length=32, clean="canonicalize")
    other_tokenizer._fingerprint = None
    backbones = [
        vit_backbone,
        resnet_backbone,
        changed,
        other_transform,
        other_tokenizer,
        vit_backbone.to(dtype=torch.bfloat16),
        make_backbone("vit", seed=1),
        make_backbone("vit", quick_gelu=True),  # the same weights, another activation
        make_backbone("vit", vision={"head_width": 24}),  # the same weights, other heads
    ]
    assert len({b.fingerprint for b in backbones}) == len(backbones)


def test_every_forward_pass_stays_on_its_device(backbone, fake_cuda):
    b, size = fake_cuda(backbone), backbone.image_size
    pixels = torch.zeros(2, 3, size, size)
    picture = torch.zeros(2, 3, size + 9, size, dtype=torch.uint8)
    features = [b.encode_image(pixels), b.encode_image(picture), b.encode_text(["a cat", "a dog"])]
    prefix, suffix = torch.zeros(4, 32, device="cuda", requires_grad=True), torch.zeros(2, 5, 32, device="cuda")
    eot = torch.tensor([6, 7])
    features += [b.encode_text_embeddings(suffix, eot - 4), b.encode_text_shared_prefix(prefix, suffix, eot)]
    if b.is_vit:
        prompts = torch.zeros(3, 48, device="cuda")
        features += [b.encode_image_prompted(pixels, prompts, {1: prompts}), b.patch_tokens(pixels)]
    features += [b.dense_features(pixels), b.dense_features(pixels, "full"), b.logit_scale * features[0]]
    assert {f.device.type for f in features} == {"cuda"}
    with pytest.raises(RuntimeError, match="device"):
        b.encode_text_embeddings(torch.zeros(2, 5, 32), eot - 4)  # embeddings on the CPU: mixed devices are seen
