"""Training views: what one, several and fresh views are, and that their draws are reproducible."""

import pytest
import torch

from vlmcourse.backbone.features import image_features
from vlmcourse.methods.augment import TrainingFeatures, raw_views


def test_one_view_is_the_test_view(tower, train):
    features = TrainingFeatures(tower, train, views=1)
    indices = torch.tensor([3, 0, 7])
    torch.testing.assert_close(features(indices), image_features(tower, train)[indices])
    assert torch.equal(features.labels, train.labels)


def test_several_views_are_drawn_one_per_image(tower, train):
    views = raw_views(tower, train, 3, (0.3, 1.0), seed=5)
    assert views.shape == (3, len(train), tower.embed_dim)
    unit = torch.nn.functional.normalize(views, dim=-1)
    features = TrainingFeatures(tower, train, views=3, crop_scale=(0.3, 1.0), seed=5)
    indices, seen = torch.arange(len(train)), set()
    for _ in range(6):
        match = (features(indices)[None] - unit).abs().amax(-1) < 1e-6  # (3, N)
        assert match.any(0).all()
        seen |= {tuple(match[:, i].tolist()) for i in range(len(train))}
    assert len(seen) == 3


def test_fresh_views_differ_from_step_to_step_and_follow_the_seed(tower, train):
    indices = torch.arange(5)
    one, two = (TrainingFeatures(tower, train, views=None, seed=1) for _ in range(2))
    first, second = one(indices), one(indices)
    assert first.shape == (5, tower.embed_dim) and (first - second).abs().max() > 1e-4
    assert torch.equal(first, two(indices))
    torch.testing.assert_close(first.norm(dim=-1), torch.ones(5))


def test_no_views_is_the_raw_test_view(tower, train):
    raw = raw_views(tower, train, 0, (0.5, 1.0), seed=0)
    assert raw.shape == (1, len(train), tower.embed_dim)
    assert torch.equal(raw[0], image_features(tower, train, normalise=False))


@pytest.mark.parametrize("views", [0, -1, 1.5, "all"])
def test_bad_views_are_named(vit_backbone, train, views):
    with pytest.raises(ValueError, match="views="):
        TrainingFeatures(vit_backbone, train, views=views)


@pytest.mark.parametrize("scale", [(0, 1), (0.5, 2), (0.9, 0.1), (0.5,)])
def test_bad_crop_scales_are_named(vit_backbone, train, scale):
    with pytest.raises(ValueError, match="crop_scale="):
        TrainingFeatures(vit_backbone, train, crop_scale=scale)


@pytest.mark.parametrize("views", [3, None])
def test_without_flips_no_crop_is_mirrored(vit_backbone, train, views):
    """Whole-image crops differ from the test view by a mirror image at most."""
    options = {"views": views, "crop_scale": (1.0, 1.0), "seed": 0}
    indices, plain = torch.arange(len(train)), TrainingFeatures(vit_backbone, train)
    still, flipped = (TrainingFeatures(vit_backbone, train, flip=flip, **options) for flip in (False, True))
    plain, still, flipped = plain(indices), still(indices), flipped(indices)
    same = (flipped - still).abs().amax(dim=1) < 1e-4
    assert 0 < same.sum() < len(train)
    torch.testing.assert_close(still, plain, atol=1e-3, rtol=0)
