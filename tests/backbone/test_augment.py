"""Batched random resized crops: torchvision's result for the same boxes, the right distribution, own randomness."""

import pytest
import torch
import torchvision.transforms.functional as TF
from torchvision.transforms import InterpolationMode, RandomResizedCrop

from vlmcourse.backbone.augment import crop_and_resize, draw_boxes, random_resized_crops


@pytest.mark.parametrize("size", [24, 32, 50])
def test_whole_pixel_boxes_equal_torchvision(generator, size):
    images = torch.rand(4, 3, 40, 48, generator=generator)
    boxes = torch.tensor([[0, 0, 40, 48], [3, 5, 20, 30], [10, 0, 9, 7], [39, 47, 1, 1]])
    flips = torch.tensor([False, True, False, True])
    found = crop_and_resize(images, boxes, flips, size)
    for image, box, flip, result in zip(images, boxes.tolist(), flips, found):
        expected = TF.resized_crop(image, *box, [size, size], InterpolationMode.BICUBIC, antialias=True)
        torch.testing.assert_close(result, TF.hflip(expected) if flip else expected, rtol=0, atol=1e-5)


def test_the_whole_image_at_its_own_size_is_unchanged(images):
    boxes = torch.tensor([[0.0, 0.0, 32.0, 32.0]]).expand(5, -1)
    torch.testing.assert_close(crop_and_resize(images, boxes, None, 32), images / 255, rtol=0, atol=1e-5)


def test_boxes_are_drawn_as_torchvision_draws_them(generator):
    boxes, flips = draw_boxes(4000, generator, (60, 80), scale=(0.2, 0.9))
    top, left, h, w = boxes.unbind(1)
    assert (top >= 0).all() and (left >= 0).all() and (top + h <= 60.001).all() and (left + w <= 80.001).all()
    assert 0.47 < flips.float().mean() < 0.53
    ratio, area = w / h, w * h / 4800
    assert ratio.min() > 0.749 and ratio.max() < 1.334 and area.min() > 0.199 and area.max() < 0.901
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        image = torch.zeros(3, 60, 80)
        drawn = [RandomResizedCrop.get_params(image, (0.2, 0.9), (3 / 4, 4 / 3)) for _ in range(4000)]
    expected = torch.tensor(drawn, dtype=torch.float)
    torch.testing.assert_close(boxes.mean(0), expected.mean(0), rtol=0, atol=0.8)  # pixels
    torch.testing.assert_close(boxes.std(0), expected.std(0), rtol=0, atol=0.8)


def test_a_shape_that_no_draw_fits_falls_back_to_the_largest_box(generator):
    boxes, _ = draw_boxes(50, generator, (10, 100), scale=(0.9, 1.0))
    assert boxes[:, 2].eq(10).all() and (boxes[:, 3] - 40 / 3).abs().max() < 1e-4


def test_seeds_types_and_sizes(images):
    def crops(seed, source=images, **options):
        return random_resized_crops(source, torch.Generator().manual_seed(seed), **options)

    state = torch.random.get_rng_state()
    assert torch.equal(crops(1), crops(1)) and not torch.equal(crops(1), crops(2))
    assert torch.equal(torch.random.get_rng_state(), state)
    assert crops(0).shape == (5, 3, 32, 32) and crops(0, size=20).shape == (5, 3, 20, 20)
    assert crops(0).min() >= 0 and crops(0).max() <= 1
    float_crops = crops(0, images / 255)
    torch.testing.assert_close(float_crops.clamp(0, 1), crops(0), rtol=0, atol=1e-6)
    assert (crops(0, flip=False) - crops(0)).flatten(1).abs().sum(1).eq(0).sum() in range(1, 5)  # some are mirrored
    pixels = (images / 255).requires_grad_()
    crops(0, pixels).sum().backward()
    assert pixels.grad.abs().sum() > 0


def test_mistakes_are_named(images, generator):
    for scale in ((0, 1), (0.5, 0.2), (0.5, 1.5)):
        with pytest.raises(ValueError, match="two shares of the area"):
            random_resized_crops(images, generator, scale=scale)
    with pytest.raises(ValueError, match="expected width / height"):
        random_resized_crops(images, generator, ratio=(2, 1))
    with pytest.raises(ValueError, match=r"images have shape \(5, 3, 32, 32\) and torch.int64"):
        random_resized_crops(images.long(), generator)
