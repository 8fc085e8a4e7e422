"""Zero-shot recognition of several labels: the pooled feature, regions, the hand-written pair, errors."""

import pytest
import torch

from vlmcourse.backbone.features import image_features
from vlmcourse.methods.baselines.zero_shot_multi_label import ZeroShotMultiLabel
from vlmcourse.methods.class_text import class_features

NAMES = ("tabby cat", "dog", "hot air balloon", "red_fox")


@pytest.fixture(scope="module")
def train(multi_label):
    return multi_label(24, seed=1, name="train")


@pytest.fixture(scope="module")
def test_split(multi_label):
    return multi_label(16, seed=2, name="test")


def test_pooled_and_by_regions(vit_backbone, train, test_split):
    pooled = ZeroShotMultiLabel(vit_backbone, pooled=True).fit(train)
    text = class_features(vit_backbone, NAMES, train.templates)
    expected = vit_backbone.logit_scale * image_features(vit_backbone, test_split) @ text.T
    torch.testing.assert_close(pooled.scores(test_split), expected, atol=1e-3, rtol=0)
    regions = ZeroShotMultiLabel(vit_backbone).fit(train)
    assert (regions.scores(test_split) - expected).abs().max() > 1e-2
    moved = regions.for_classes(NAMES[:2])
    torch.testing.assert_close(moved.scores(test_split), regions.scores(test_split)[:, :2], atol=1e-3, rtol=0)
    with pytest.raises(ValueError, match="gives no probabilities"):
        regions.probabilities(test_split)
    with pytest.raises(ValueError, match="spatial_scale=-1"):
        ZeroShotMultiLabel(vit_backbone, spatial_scale=-1)


def test_the_pair_is_a_difference_at_one_place(tower, train, test_split):
    method = ZeroShotMultiLabel(tower, templates="a photo of a {}.", negative="there is no {}.", pooled=True).fit(train)
    v = method.inputs(test_split)[:, 0]
    absent = class_features(tower, NAMES, ("there is no {}.",))
    expected = tower.logit_scale * v @ (method.text - absent).T
    torch.testing.assert_close(method.scores(test_split), expected, atol=1e-3, rtol=0)
    torch.testing.assert_close(method.probabilities(test_split), expected.sigmoid(), atol=1e-3, rtol=0)
    twins = ZeroShotMultiLabel(tower, templates="a {}.", negative="a {}.").fit(train)
    assert (twins.probabilities(test_split) - 0.5).abs().max() < 1e-4
