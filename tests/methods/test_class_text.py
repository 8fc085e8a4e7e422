"""Prompt ensembling: one template is encode_text, several are the normalised mean, errors name the template."""

import pytest
import torch
import torch.nn.functional as F

from vlmcourse.methods.class_text import check_templates, class_features, template_features

NAMES = ("cat", "red_fox", "hot air balloon")


def test_one_template_is_encode_text(vit_backbone):
    expected = vit_backbone.encode_text(["a photo of a cat.", "a photo of a red fox.", "a photo of a hot air balloon."])
    torch.testing.assert_close(class_features(vit_backbone, NAMES, "a photo of a {}."), expected)


def test_several_templates_are_the_normalised_mean_of_normalised_features(vit_backbone):
    templates = ("a photo of a {}.", "an icon of a {}.", "{}")
    expected = []
    for name in ("cat", "red fox", "hot air balloon"):
        rows = vit_backbone.encode_text([t.format(name) for t in templates], normalise=False)
        expected.append(F.normalize(F.normalize(rows, dim=-1).mean(0), dim=0))
    torch.testing.assert_close(class_features(vit_backbone, NAMES, templates), torch.stack(expected), atol=1e-6, rtol=0)
    repeated = class_features(vit_backbone, NAMES, templates * 2)
    torch.testing.assert_close(repeated, torch.stack(expected), atol=1e-6, rtol=0)


def test_template_features_are_one_row_per_class_and_template(vit_backbone):
    rows = template_features(vit_backbone, NAMES, ("a photo of a {}.", "an icon of a {}."))
    assert rows.shape == (3, 2, vit_backbone.embed_dim)
    torch.testing.assert_close(rows[1, 1], vit_backbone.encode_text(["an icon of a red fox."])[0])
    raw = template_features(vit_backbone, NAMES, ("a photo of a {}.", "an icon of a {}."), normalise=False)
    torch.testing.assert_close(F.normalize(raw, dim=-1), rows)
    assert (raw.norm(dim=-1) - 1).abs().min() > 1e-3


def test_braces_in_a_name_are_text(vit_backbone):
    expected = vit_backbone.encode_text(["a {0} b."])
    torch.testing.assert_close(class_features(vit_backbone, ["{0}"], "a {} b."), expected)


@pytest.mark.parametrize("bad", [[], "no place", ["a {} and {}"], ["a {}", 3]])
def test_bad_templates_are_named(bad):
    with pytest.raises(ValueError, match="template"):
        check_templates(bad)
