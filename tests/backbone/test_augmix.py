"""AugMix: the mixture's bounds, each op against Pillow's, equal numbers give equal pictures."""

import numpy as np
import pytest
import torch
from PIL import Image, ImageOps

from vlmcourse.backbone.augmix import NUMBERS, OPS, apply_ops, augmix, warp

SIDE = 32


@pytest.fixture
def pixels(images):
    return images.float() / 255  # (5, 3, 32, 32)


def pillow(pixels):
    return Image.fromarray((255 * pixels).round().byte().permute(1, 2, 0).numpy())


def back(image):
    return torch.from_numpy(np.array(image)).permute(2, 0, 1).float() / 255


def one_op(pixels, name, level=1.0, sign=1.0):
    n = len(pixels)
    kind = torch.full((n,), OPS.index(name))
    return apply_ops(pixels, kind, torch.full((n,), level), torch.full((n,), sign))


@pytest.mark.parametrize(
    ("name", "level", "expected"),
    [
        ("autocontrast", 1.0, ImageOps.autocontrast),
        ("equalize", 1.0, ImageOps.equalize),
        ("posterize", 1.0, lambda i: ImageOps.posterize(i, 4)),
        ("solarize", 1.0, lambda i: ImageOps.solarize(i, 256 - 25)),
        ("solarize", 0.5, lambda i: ImageOps.solarize(i, 256 - 12)),
    ],
)
def test_tone_ops_equal_pillows(pixels, name, level, expected):
    contrast = pixels * 0.5 + 0.2 + 0.3 * (name == "solarize")  # otherwise autocontrast has nothing to do
    quantised = (255 * contrast).round() / 255
    for got, image in zip(one_op(quantised, name, level), quantised, strict=True):
        assert (got - back(expected(pillow(image)))).abs().max() < 1.6 / 255


@pytest.mark.parametrize(
    ("name", "level", "sign", "coefficients"),
    [
        ("translate_x", 1.0, 1.0, (1, 0, 1, 0, 1, 0)),  # int(32 / 30) = 1 pixel
        ("translate_y", 1.0, -1.0, (1, 0, 0, 0, 1, -1)),
        ("shear_x", 1.0, 1.0, (1, 0.03, 0, 0, 1, 0)),
        ("shear_y", 0.5, -1.0, (1, 0, 0, -0.015, 1, 0)),
    ],
)
def test_moves_equal_pillows_inside(pixels, name, level, sign, coefficients):
    size, mode = (SIDE, SIDE), Image.Transform.AFFINE
    for got, image in zip(one_op(pixels, name, level, sign), pixels, strict=True):
        moved = pillow(image).transform(size, mode, coefficients, resample=Image.Resampling.BILINEAR)
        assert (got - back(moved))[:, 2:-2, 2:-2].abs().max() < 1.6 / 255


@pytest.mark.parametrize("sign", [1.0, -1.0])
def test_rotation_equals_pillows_inside(pixels, sign):
    for got, image in zip(one_op(pixels, "rotate", 0.7, sign), pixels, strict=True):  # int(2.1) = 2 degrees
        moved = pillow(image).rotate(2 * sign, resample=Image.Resampling.BILINEAR)
        assert (got - back(moved))[:, 3:-3, 3:-3].abs().max() < 1.6 / 255


def test_warp_with_the_identity_changes_nothing_and_outside_is_black(pixels):
    matrix = torch.eye(2, 3).expand(5, 2, 3).clone()
    torch.testing.assert_close(warp(pixels, matrix), pixels, atol=1e-5, rtol=0)
    matrix[:, 0, 2] = SIDE
    assert not warp(pixels, matrix).any()


def test_pictures_do_not_depend_on_their_neighbours(pixels, generator):
    u = torch.rand(5, NUMBERS, generator=generator)
    mixed = augmix(pixels, u)
    assert mixed.shape == pixels.shape and -1e-6 <= mixed.min() and mixed.max() <= 1 + 1e-6
    assert (mixed - pixels).abs().amax((1, 2, 3)).median() > 1e-2
    for i in range(5):
        torch.testing.assert_close(augmix(pixels[i : i + 1], u[i : i + 1])[0], mixed[i], atol=1e-6, rtol=0)


def test_weight_one_on_the_original_leaves_it(pixels, generator):
    u = torch.rand(5, NUMBERS, generator=generator)
    u[:, 0] = 1.0
    torch.testing.assert_close(augmix(pixels, u), pixels)
    u[:, 0], u[:, 4::10] = 0.0, 0.0  # all weight on the chains, each of one op ...
    u[:, 5:8] = u[:, 15:18] = u[:, 25:28] = 0.999  # ... and that is a translation
    u[:, 8:11] = u[:, 18:21] = u[:, 28:31] = 0.0  # by int(0.1 * 32 / 30) = 0 pixels
    torch.testing.assert_close(augmix(pixels, u), pixels, atol=1e-5, rtol=0)


def test_wrong_shapes_are_named(pixels):
    with pytest.raises(ValueError, match=rf"\(N, {NUMBERS}\)"):
        augmix(pixels, torch.rand(5, 3))
