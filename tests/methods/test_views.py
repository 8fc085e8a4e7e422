"""Views of test images: view 0 is the test view, the others follow from pixels and seed alone."""

import pytest
import torch
from PIL import Image

from vlmcourse.backbone.features import image_features
from vlmcourse.methods.views import view_features, view_pixels


def test_view_zero_is_the_test_view(tower, test_split):
    views = view_features(tower, test_split, 3)
    assert views.shape == (len(test_split), 3, tower.embed_dim)
    torch.testing.assert_close(views[:, 0], image_features(tower, test_split), atol=1e-5, rtol=0)
    torch.testing.assert_close(views.norm(dim=-1), torch.ones(len(test_split), 3))


@pytest.mark.parametrize("augmix", [False, True])
def test_views_depend_on_pixels_and_seed_only(vit_backbone, test_split, augmix):
    images = test_split.images
    together = view_features(vit_backbone, images, 5, augmix=augmix, seed=1)
    order = torch.randperm(len(images), generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(
        view_features(vit_backbone, images[order], 5, batch_size=7, augmix=augmix, seed=1), together[order],
        atol=1e-5, rtol=0,
    )  # fmt: skip
    alone = view_pixels(vit_backbone, images[3], 5, augmix=augmix, seed=1)
    assert torch.equal(alone, view_pixels(vit_backbone, images[3], 5, augmix=augmix, seed=1))
    other = view_pixels(vit_backbone, images[3], 5, augmix=augmix, seed=2)
    assert torch.equal(alone[0], other[0]) and (alone[1:] - other[1:]).abs().amax((1, 2, 3)).min() > 1e-3


def test_crops_are_cut_from_the_original_image(vit_backbone):
    """Not from the test view, which has lost the sides of a wide image."""
    wide = torch.zeros(3, 32, 320, dtype=torch.uint8)
    wide[:, :, :100] = 255
    views = view_pixels(vit_backbone, wide, 40)
    assert not views[0].any() and views[1:].amax((1, 2, 3)).max() > 0.9
    picture = Image.fromarray(wide.permute(1, 2, 0).numpy())
    assert torch.equal(view_pixels(vit_backbone, picture, 40), views)


def test_one_view_and_wrong_images(vit_backbone, images):
    assert view_features(vit_backbone, images, 1).shape == (5, 1, 16)
    with pytest.raises(ValueError, match="preprocessed already"):
        view_features(vit_backbone, torch.rand(2, 3, 32, 32), 3)
