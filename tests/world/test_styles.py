"""Style shifts: the registry, what every style keeps, and what each one does."""

import dataclasses
import itertools

import numpy as np
import pytest
import torch

from vlmcourse.world.colours import luma
from vlmcourse.world.compose import TASK, compose
from vlmcourse.world.draws import CHUNK
from vlmcourse.world.styles import STYLES, apply_style, compose_in_style, get_style, style_sprites

IMAGE = [name for name, style in STYLES.items() if style.kind in ("image", "scene")]
SPRITE = [name for name, style in STYLES.items() if style.kind == "sprite"]


def artwork(b: int, k: int = 1, seed: int = 0) -> torch.Tensor:
    """Sprites (b, k, 64, 64, 4): two-coloured triangles with a light window."""
    draw = np.random.default_rng(seed)
    y, x = np.mgrid[:64, :64]
    inside = (x > 6) & (y < 58) & (y > x * 0.8)
    window = (abs(x - 20) < 5) & (abs(y - 44) < 5)
    out = np.zeros((b, k, 64, 64, 4), dtype=np.uint8)
    out[..., :3] = draw.integers(0, 140, (b, k, 1, 1, 3))
    out[..., window, :3] = 240
    out[..., 3] = inside * 255
    return torch.from_numpy(out)


@pytest.fixture(scope="module")
def scenes():
    return compose(artwork(9), 1, settings=dataclasses.replace(TASK, shadow=0))


def test_registry():
    wanted = {
        "grey", "inverted", "low_contrast", "blur", "noise", "pixelated", "line_art", "silhouette", "poster",
        "rotation", "clutter", "occlusion", "sketch", "shadow", "negative_space", "blocks",
    }  # fmt: skip
    assert wanted <= set(STYLES)
    for name, style in STYLES.items():
        assert style.name == name and style.description and style.kind in ("image", "scene", "sprite")
        assert len(style.levels) == 5 and len(set(style.levels)) == 5
        assert get_style(name) == (style, style.severity) and 1 <= style.severity <= 5
    with pytest.raises(dataclasses.FrozenInstanceError):
        STYLES["grey"].kind = "sprite"


def test_unknown_style_and_severity(scenes):
    with pytest.raises(ValueError, match="'silhouete'.*silhouette"):
        get_style("silhouete")
    with pytest.raises(ValueError, match="grey"):
        apply_style("gray", scenes.images)
    for severity in (0, 6, 2.5, True):
        with pytest.raises(ValueError, match="severity"):
            apply_style("grey", scenes.images, severity)


@pytest.mark.parametrize("name, severity", list(itertools.product(IMAGE, (1, 3, 5))))
def test_image_styles(scenes, name, severity):
    out = apply_style(name, scenes.images, severity, seed=2, masks=scenes.masks)
    assert out.shape == scenes.images.shape and out.dtype == torch.uint8
    assert torch.equal(out, apply_style(name, scenes.images, severity, seed=2, masks=scenes.masks))
    changed = (out.int() - scenes.images.int()).abs().flatten(1).float().mean(1)
    assert (changed > 0.1).all()
    short = apply_style(name, scenes.images[:2], severity, seed=2, masks=scenes.masks[:2])
    assert (short.int() - out[:2].int()).abs().float().mean() < 0.5


@pytest.mark.parametrize("name", IMAGE)
def test_image_styles_of_other_shapes_and_without_masks(name):
    images = torch.randint(0, 256, (3, 3, 28, 21), generator=torch.Generator().manual_seed(0)).to(torch.uint8)
    for severity in (1, 5):
        assert apply_style(name, images, severity).shape == images.shape
    assert apply_style(name, images[:0], 3).shape == (0, 3, 28, 21)


@pytest.mark.parametrize("name", [name for name in IMAGE if name not in ("inverted", "clutter")])
def test_severity_grows(scenes, name):
    """The distance from the original grows from mild to severe (inversion changes its nature instead)."""
    gaps = []
    for severity in range(1, 6):
        out = apply_style(name, scenes.images, severity, seed=4, masks=scenes.masks)
        gaps.append(float((out.float() - scenes.images.float()).square().mean()))
    assert gaps[4] > gaps[0] * 1.3 and all(b > a * 0.9 for a, b in itertools.pairwise(gaps)), gaps


@pytest.mark.parametrize("name, severity", list(itertools.product(SPRITE, (1, 3, 5))))
def test_sprite_styles(name, severity):
    sprites = artwork(4, 2)
    sprites[1, 1] = 0
    out = style_sprites(name, sprites, severity, seed=3)
    assert out.shape == sprites.shape and out.dtype == torch.uint8
    assert torch.equal(out, style_sprites(name, sprites, severity, seed=3))
    assert not out[1, 1, ..., 3].any()  # absent stays absent
    there = out[..., 3].flatten(2).amax(2) > 128
    assert there.flatten().tolist() == [True, True, True, False] + [True] * 4
    if STYLES[name].ink:
        assert not out[..., :3].any()
    assert style_sprites(name, sprites[0, 0], severity).shape == (64, 64, 4)


@pytest.mark.parametrize("name", STYLES)
def test_compose_in_style(name):
    sprites = artwork(6, 2)
    mono = torch.zeros(6, 2, dtype=torch.bool)
    scenes = compose_in_style(name, sprites, 1, 3, 48, mono=mono)
    plain = compose(sprites, 1, 48, mono=mono)
    assert scenes.images.shape == (6, 3, 48, 48) and scenes.present.all()
    assert scenes.kind == plain.kind
    assert not torch.equal(scenes.images, plain.images)
    if STYLES[name].kind != "sprite":
        assert torch.equal(scenes.masks, plain.masks) and torch.equal(scenes.boxes, plain.boxes)


def test_grey_is_grey_and_negative_is_negative(scenes):
    grey = apply_style("grey", scenes.images, 2).int()
    assert (grey.amax(1) - grey.amin(1)).max() <= 1
    negative = apply_style("inverted", scenes.images, 4).int()
    assert (negative + scenes.images - 255).abs().max() <= 1


def test_poster_and_pixels(scenes):
    assert len(apply_style("poster", scenes.images, 5).unique()) == 2
    squares = apply_style("pixelated", scenes.images, 5).unflatten(3, (8, 8)).unflatten(2, (8, 8))
    assert (squares == squares[:, :, :, :1, :, :1]).all()


def test_low_contrast_and_blur_take_detail(scenes):
    for name in ("low_contrast", "blur"):
        detail = [apply_style(name, scenes.images, s).float().diff(dim=-1).abs().mean() for s in range(1, 6)]
        assert all(b < a for a, b in itertools.pairwise(detail))


def test_blocks_of_a_flat_image_stay_flat():
    flat = torch.full((1, 3, 40, 40), 128, dtype=torch.uint8)
    assert len(apply_style("blocks", flat, 1)[0, 0].unique()) == 1


def test_scene_styles_know_the_object(scenes):
    inside = (scenes.masks > 0)[:, None]
    cluttered = apply_style("clutter", scenes.images, 3, masks=scenes.masks)
    gap = (cluttered.int() - scenes.images.int()).abs().float()
    assert (gap * inside).sum() / inside.sum() < 2 < (gap * ~inside).sum() / (~inside).sum()
    hidden = apply_style("occlusion", scenes.images, 4, masks=scenes.masks)
    share = ((hidden != scenes.images).any(1) & inside[:, 0]).sum((1, 2)) / inside[:, 0].sum((1, 2))
    assert ((share > 0.5) & (share < 0.7)).all()


def test_silhouette_keeps_the_shape_only():
    sprites = artwork(3)
    assert torch.equal(style_sprites("silhouette", sprites, 5)[..., 3], sprites[..., 3])
    mild = style_sprites("silhouette", sprites, 1)[..., 3].float()
    assert (mild[..., 44, 20] < mild[..., 50, 10]).all()  # the light window stays lighter than the dark body


def test_line_art_leaves_the_inside_empty():
    lines = style_sprites("line_art", artwork(2), 5)[..., 3]
    assert lines[..., 50, 26].max() == 0 and lines[..., 44, 20].max() == 0  # body and window
    assert lines[..., 57, 26].min() > 100  # lower edge
    assert style_sprites("line_art", artwork(2), 1)[..., 44, 15, 3].min() > 40  # edge of the window


def test_ink_styles_of_monochrome_sprites_stay_visible():
    sprites = artwork(CHUNK)
    scenes = compose_in_style("silhouette", sprites, 0, 5, settings=dataclasses.replace(TASK, shadow=0))
    tone, inside = luma(scenes.images.float() / 255, 1), scenes.masks > 0
    means = [(tone * part).sum((1, 2)) / part.sum((1, 2)) for part in (inside, ~inside)]
    assert (means[0] - means[1]).abs().min() > 0.1


def test_wrong_arguments(scenes):
    with pytest.raises(ValueError, match="compose_in_style"):
        apply_style("silhouette", scenes.images)
    with pytest.raises(ValueError, match="apply_style"):
        style_sprites("grey", artwork(1))
    with pytest.raises(ValueError, match="images"):
        apply_style("grey", scenes.images.float())
    with pytest.raises(ValueError, match="masks"):
        apply_style("clutter", scenes.images, masks=scenes.masks[:2])
    with pytest.raises(ValueError, match="sprites"):
        style_sprites("rotation", scenes.images)
    with pytest.raises(ValueError, match="seed"):
        apply_style("noise", scenes.images, seed=-1)
