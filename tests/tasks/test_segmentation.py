"""Splits with masks, and the task made of them."""

import pytest
import torch

from vlmcourse.tasks import get_task
from vlmcourse.tasks.segmentation import (
    IGNORE,
    NEW_ARTISTS,
    SIZES,
    STUFF,
    STYLE_SHIFTS,
    THINGS,
    MaskSplit,
    draw_scenes,
    filled,
    void_rim,
)


@pytest.fixture
def masks():
    labels = torch.tensor([[[0, 1], [2, IGNORE]], [[1, 1], [1, 1]], [[2, 2], [0, 0]]])
    images = torch.arange(3 * 3 * 4).reshape(3, 3, 2, 2).to(torch.uint8)
    return MaskSplit(images, labels, ("a", "b", "c"))


def test_a_split_with_masks(masks):
    assert len(masks) == 3 and masks.labels.dtype == torch.uint8 and masks.counts.tolist() == [3, 5, 3]
    image, mask = masks[1]
    assert image.shape == (3, 2, 2) and mask.shape == (2, 2)
    part = masks.subset([2, 0])
    assert isinstance(part, MaskSplit) and torch.equal(part.labels, masks.labels[[2, 0]])
    assert torch.equal(part.images, masks.images[[2, 0]]) and part.origin[1].tolist() == [2, 0]
    assert torch.equal(masks.subset(torch.tensor([True, False, True])).labels, masks.labels[[0, 2]])


def test_keeping_classes_ignores_the_others(masks):
    kept = masks.keep_classes([2, 0])
    assert kept.class_names == ("c", "a") and len(kept) == 3
    assert kept.labels[0].tolist() == [[1, IGNORE], [0, IGNORE]] and (kept.labels[1] == IGNORE).all()
    assert kept.fingerprint != masks.fingerprint and kept.origin[0] is masks
    with pytest.raises(ValueError, match="classes must be distinct"):
        masks.keep_classes([1, 1])


def test_wrong_masks():
    images, names = torch.zeros(2, 3, 4, 4, dtype=torch.uint8), ("a", "b")
    for labels, message in ((torch.zeros(2).long(), "shape"), (torch.full((2, 4, 4), 2), "2 is neither in 0..1")):
        with pytest.raises(ValueError, match=message):
            MaskSplit(images, labels, names)
    with pytest.raises(TypeError, match="integers"):
        MaskSplit(images, torch.zeros(2, 4, 4), names)
    with pytest.raises(ValueError, match="count=None"):
        MaskSplit(images, lambda: torch.zeros(2, 4, 4).long(), names)
    lazy = MaskSplit(images, lambda: torch.full((2, 4, 4), 7), names, count=2)
    with pytest.raises(ValueError, match="7 is neither"):
        assert lazy.labels is None


def test_holes_and_gaps_are_filled():
    ring = torch.zeros(1, 12, 12, dtype=torch.bool)
    ring[0, 2:10, 2:10] = True
    ring[0, 4:8, 4:8] = False
    assert filled(ring).sum() == 64
    ring[0, 2:4, 5] = False  # a gap one pixel wide
    assert filled(ring)[0, 5, 5]
    ring[0, 2:4, 4:8] = False  # a wide one
    assert not filled(ring)[0, 5, 5] and filled(ring)[0, 2, 2]
    cup = torch.zeros(1, 9, 9, dtype=torch.bool)
    cup[0, 5:, 1] = cup[0, 5:, 7] = cup[0, 5, 1:8] = True  # open at the lower edge of the image
    assert not filled(cup)[0, 8, 4]


def test_rims_belong_to_nobody():
    labels = torch.zeros(1, 6, 6, dtype=torch.uint8)
    labels[0, :, 3:] = 1
    rim = void_rim(labels)
    assert rim[0, 0].tolist() == [0, 0, IGNORE, IGNORE, 1, 1]
    assert torch.equal(void_rim(torch.full((1, 4, 4), 5, dtype=torch.uint8)), torch.full((1, 4, 4), 5).to(torch.uint8))


def test_scenes_are_drawn_by_their_key():
    pools = [[10 * c, 10 * c + 1] for c in range(5)]
    sprites, classes = draw_scenes(pools, 40, "x")
    assert (draw_scenes(pools, 40, "x")[0] == sprites).all() and (draw_scenes(pools, 40, "y")[0] != sprites).any()
    assert ((sprites // 10 == classes) | (sprites == -1)).all()
    number = (sprites >= 0).sum(1)
    assert set(number) == {2, 3}
    assert all(len(set(row[:n])) == n for row, n in zip(classes, number, strict=True))


def test_the_task():
    whole, things = get_task("segmentation"), get_task("segmentation_things")
    assert whole.class_names == (*THINGS, *STUFF) and things.class_names == THINGS
    assert whole.kind == things.kind == "segmentation" and {p: len(s) for p, s in whole.splits.items()} == SIZES
    assert list(whole.domains) == [*STYLE_SHIFTS, NEW_ARTISTS]
    assert callable(whole.test._labels), "nothing is composed before somebody looks"
    assert whole.fingerprint != things.fingerprint and "16 classes" in whole.card and "landscape" in whole.card
    for refused in (lambda: whole.few_shot(1, 0), whole.base_to_new):
        with pytest.raises(ValueError, match="single-label"):
            refused()


def test_parts_share_no_drawing():
    splits = get_task("segmentation").splits
    sprites = {part: set(s._load.__self__.sprites.flatten().tolist()) - {-1} for part, s in splits.items()}
    assert not (sprites["train"] & sprites["test"] or sprites["val"] & (sprites["train"] | sprites["test"]))


def test_masks_lie_on_what_they_name():
    whole, things = get_task("segmentation").val, get_task("segmentation_things").val
    labels = whole.labels
    assert torch.equal(whole.images, things.images) and (whole.counts > 0).all()
    assert torch.equal(things.labels, torch.where(labels < len(THINGS), labels, IGNORE))
    assert 0.02 < (labels == IGNORE).float().mean() < 0.25
    grounds = [set(mask[(mask >= len(THINGS)) & (mask != IGNORE)].tolist()) for mask in labels]
    assert all(len(ground) == 1 for ground in grounds), "one ground per scene"
    plain = labels == whole.class_names.index("plain background")
    image, ground = whole.images.float(), plain.flatten(1).any(1).nonzero()[:, 0]
    inside = [(image[i][:, plain[i]].std(1).mean(), image[i].flatten(1).std(1).mean()) for i in ground.tolist()]
    assert sum(a < 0.5 * b for a, b in inside) > 0.9 * len(inside), "a plain ground has hardly any contrast"
