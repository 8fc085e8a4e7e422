"""What dense methods share: sizes, kinds of input, the reference, masks for others."""

import pytest
import torch
import torch.nn.functional as F

from vlmcourse.methods.dense import WholeImage, as_grid, enlarge, local_encoder
from vlmcourse.methods.other_methods.maskclip import MaskCLIP
from vlmcourse.tasks.segmentation import IGNORE, MaskSplit


def test_grids_are_read_row_by_row(tower):
    images = torch.rand(2, 3, tower.image_size, tower.image_size)
    dense = tower.dense_features(images, "value", normalise=False)
    assert torch.equal(as_grid(local_encoder("value")(tower, images)), dense)


def test_a_larger_side_gives_a_finer_grid(tower):
    images = torch.rand(2, 3, tower.image_size, tower.image_size)
    usual, finer = (local_encoder("value", side)(tower, images) for side in (None, 2 * tower.image_size))
    assert finer.shape == (2, 4 * usual.shape[1], 16)


def test_every_kind_of_input_and_size(tower, mask_splits):
    split = mask_splits(5, size=tower.image_size)
    method = MaskCLIP(tower).fit(split)
    masks, maps = method.segment(split), method.score_maps(split)
    assert masks.shape == split.labels.shape and masks.dtype == torch.int64 and maps.shape[:2] == (5, 4)
    torch.testing.assert_close(method.logits(split), enlarge(maps, masks.shape[1:]))
    assert torch.equal(masks, method.logits(split).argmax(1)) and torch.equal(masks, method.predict(split))
    torch.testing.assert_close(method.probabilities(split).sum(1), torch.ones(masks.shape))
    features = method.encoder(tower, split.images)
    for x in (split.images, tower.preprocess(split.images), 3 * features):
        torch.testing.assert_close(method.score_maps(x), maps, atol=1e-5, rtol=1e-4)
    assert method.segment(split.images[0]).shape == (1, *masks.shape[1:])
    assert method.segment(split.images[:1], size=(10, 7)).shape == (1, 10, 7)
    half = MaskCLIP(tower.to(dtype=torch.bfloat16)).fit(split)
    assert half.score_maps(split).dtype == torch.float32


def test_chunks_change_nothing(vit_backbone, mask_splits, monkeypatch):
    split = mask_splits(7)
    method = MaskCLIP(vit_backbone).fit(split)
    whole = method.segment(split)
    monkeypatch.setattr("vlmcourse.methods.dense.CHUNK", 3)
    assert torch.equal(method.segment(split), whole) and torch.equal(method.segment(split.images), whole)


def test_score_is_pixel_accuracy_without_ignored_pixels(vit_backbone, mask_splits):
    split = mask_splits(6)
    method = MaskCLIP(vit_backbone).fit(split)
    counts = split.labels != IGNORE
    expected = (method.segment(split)[counts] == split.labels[counts]).double().mean().item()
    assert method.score(split) == pytest.approx(expected) and not counts.all()
    with pytest.raises(ValueError, match="own classes"):
        method.score(split.keep_classes([0, 1]))


def test_the_reference_gives_every_pixel_the_images_class(vit_backbone, mask_splits):
    split = mask_splits(4)
    method = WholeImage(vit_backbone).fit(split)
    masks = method.segment(split)
    best = (F.normalize(vit_backbone.encode_image(split.images), dim=-1) @ method.text.T).argmax(-1)
    assert torch.equal(masks, best[:, None, None].expand_as(masks))


def test_masks_for_others(vit_backbone, mask_splits):
    split = mask_splits(4)
    method = MaskCLIP(vit_backbone).fit(split)
    taught = method.as_supervision(split)
    assert isinstance(taught, MaskSplit) and torch.equal(taught.images, split.images)
    assert torch.equal(taught.labels.long(), method.segment(split)) and taught.class_names == split.class_names
