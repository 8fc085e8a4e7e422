"""A twin with its own LayerNorms: everything else is shared, features start equal, gradients reach only the copies."""

import pytest
import torch

from vlmcourse.backbone.features import image_features
from vlmcourse.methods.tuned_tower import PIXELS, block_norms, image_tower, with_own_parameters
from vlmcourse.methods.vision_prompts import TOKENS, encode_prompted


@pytest.fixture
def twin(vit_backbone):
    return with_own_parameters(vit_backbone, block_norms(vit_backbone))


def test_block_norms_are_four_tensors_per_block(vit_backbone, resnet_backbone):
    names = block_norms(vit_backbone)
    assert len(names) == 2 * 2 * 3 and names[0] == "visual.transformer.resblocks.0.ln_1.weight"
    assert not any("ln_p" in name or name.startswith("transformer") for name in names)
    assert block_norms(resnet_backbone) == []


def test_the_twin_shares_all_but_its_own(vit_backbone, twin):
    new, own = twin
    theirs, ours = dict(vit_backbone.model.named_parameters()), dict(new.model.named_parameters())
    assert set(own) == set(block_norms(vit_backbone))
    for name in theirs:
        assert (ours[name] is theirs[name]) == (name not in own)
        assert ours[name].requires_grad == (name in own)
    assert all(torch.equal(own[name], theirs[name]) for name in own)
    before = vit_backbone.fingerprint
    assert new.fingerprint == before
    with torch.no_grad():
        own["visual.transformer.resblocks.1.ln_2.bias"] += 1
    assert new.fingerprint != before and vit_backbone.fingerprint == before


def test_unknown_names_are_named(vit_backbone):
    with pytest.raises(ValueError, match=r"names=\['visual.ln_3'\]"):
        with_own_parameters(vit_backbone, ["visual.ln_3"])


def test_features_start_at_the_frozen_ones_and_follow_the_copies(vit_backbone, twin, train):
    new, own = twin
    tokens = image_features(vit_backbone, train, encoder=TOKENS, normalise=False)[[3, 0, 7]]
    out = encode_prompted(new, tokens)
    torch.testing.assert_close(out.detach(), image_features(vit_backbone, train)[[3, 0, 7]], atol=1e-5, rtol=0)
    weights = torch.randn(out.shape, generator=torch.Generator().manual_seed(0))
    (out * weights).sum().backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in own.values())
    assert all(p.grad is None for p in vit_backbone.model.parameters())
    with torch.no_grad():
        own["visual.transformer.resblocks.0.ln_1.bias"] += 0.5
        moved = new.encode_image(train.images)[[3, 0, 7]]
    torch.testing.assert_close(encode_prompted(new, tokens).detach(), moved, atol=1e-5, rtol=0)
    assert (moved - out.detach()).abs().max() > 1e-3


def test_the_image_tower_by_name(vit_backbone, resnet_backbone):
    names, buffers = image_tower(vit_backbone)
    assert set(names) == {n for n, _ in vit_backbone.model.named_parameters() if n.startswith("visual.")}
    assert buffers == []
    front = {"visual.conv1.weight", "visual.class_embedding", "visual.positional_embedding"}
    assert set(names) - set(image_tower(vit_backbone, blocks_only=True)[0]) == front
    assert "visual.bn1.running_mean" in image_tower(resnet_backbone)[1]
    with pytest.raises(ValueError, match="needs a ViT"):
        image_tower(resnet_backbone, blocks_only=True)


def test_own_buffers_are_copies(resnet_backbone):
    name = "visual.bn1.running_mean"
    twin, own = with_own_parameters(resnet_backbone, [], [name])
    theirs, ours = dict(resnet_backbone.model.named_buffers()), dict(twin.model.named_buffers())
    assert ours[name] is own[name] and not own[name].requires_grad and torch.equal(own[name], theirs[name])
    assert all((ours[n] is theirs[n]) == (n != name) for n in theirs)
    with pytest.raises(ValueError, match=r"buffers=\['visual.bn1.weight'\] are not buffers"):
        with_own_parameters(resnet_backbone, [], ["visual.bn1.weight"])


def test_pixels_are_what_the_tower_reads(vit_backbone, train):
    pixels = PIXELS(vit_backbone, train.images)
    torch.testing.assert_close(pixels, vit_backbone.preprocess(train.images))
    assert torch.equal(PIXELS(vit_backbone, pixels), pixels), "preprocessed images stay as they are"
