"""Zero-shot classification: the formula, templates, other classes."""

import pytest
import torch

from vlmcourse.backbone.features import image_features
from vlmcourse.methods.baselines.zero_shot import ZeroShot
from vlmcourse.methods.class_text import class_features


def test_logits_are_the_scaled_cosine(tower, train, test_split):
    method = ZeroShot(tower, templates="a photo of a {}.").fit(train)
    text = tower.encode_text([f"a photo of a {name.replace('_', ' ')}." for name in train.class_names])
    expected = tower.logit_scale * torch.nn.functional.cosine_similarity(
        image_features(tower, test_split)[:, None], text[None], dim=-1
    )
    torch.testing.assert_close(method.logits(test_split), expected, atol=1e-5, rtol=0)
    assert method.history == {} and method.n_learned == 0


def test_templates_come_from_the_split_unless_given(vit_backbone, train):
    own = ZeroShot(vit_backbone).fit(train)
    assert torch.equal(own.text, class_features(vit_backbone, train.class_names, train.templates))
    given = ZeroShot(vit_backbone, templates=["{}"]).fit(train)
    assert given.templates == ("{}",) and not torch.equal(own.text, given.text)


def test_other_classes_are_other_names(vit_backbone, train, test_split):
    method = ZeroShot(vit_backbone).fit(train)
    moved = method.for_classes(["yak", "dog"])
    assert moved.logits(test_split).shape == (len(test_split), 2) and method.logits(test_split).shape[1] == 4
    torch.testing.assert_close(moved.logits(test_split)[:, 1], method.logits(test_split)[:, 1], atol=1e-5, rtol=0)
    with_templates = method.for_classes(["yak"], templates=["{}"])
    torch.testing.assert_close(with_templates.text, vit_backbone.encode_text(["yak"]))
    for bad in ([], "yak", [1]):
        with pytest.raises(ValueError, match="class_names="):
            method.for_classes(bad)


def test_bad_templates_are_refused_at_once(vit_backbone):
    with pytest.raises(ValueError, match="'no place'"):
        ZeroShot(vit_backbone, templates=["no place"])
