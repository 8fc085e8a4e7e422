"""Scenes: reproducible, visible objects, masks and boxes that agree with the pixels."""

import dataclasses
import time

import numpy as np
import pytest
import torch

from vlmcourse.world.backgrounds import KINDS
from vlmcourse.world.colours import COLOURS, YIQ, ink, jitter_matrix, luma
from vlmcourse.world.compose import PLAIN, PRETRAIN, SEVERAL, TASK, SceneSettings, compose, cover, soften
from vlmcourse.world.draws import CHUNK
from vlmcourse.world.placement import extents

PRESETS = {"PRETRAIN": PRETRAIN, "TASK": TASK, "PLAIN": PLAIN, "SEVERAL": SEVERAL}


def discs(b: int, k: int, seed: int = 0) -> torch.Tensor:
    """Sprites (b, k, 64, 64, 4): discs and rings in random colours with soft edges."""
    draw = np.random.default_rng(seed)
    y, x = (np.mgrid[:64, :64] - 31.5) / 31.5
    outer = draw.uniform(0.6, 0.95, (b, k, 1, 1))
    radius = np.hypot(x, y)
    alpha = np.clip((outer - radius) * 20, 0, 1) * np.where(
        draw.random((b, k, 1, 1)) < 0.5, np.clip(radius * 9 - 3, 0, 1), 1
    )
    colour = np.broadcast_to(draw.integers(0, 256, (b, k, 1, 1, 3)), (b, k, 64, 64, 3))
    return torch.from_numpy(np.concatenate([colour, alpha[..., None] * 255], -1).astype(np.uint8))


def same(a, b) -> bool:
    """Equal scenes, up to one grey level."""
    images = (a.images.int() - b.images.int()).abs().max() <= 1
    return bool(images) and (a.masks != b.masks).float().mean() < 1e-4 and a.background == b.background


@pytest.mark.parametrize("settings", PRESETS.values(), ids=PRESETS)
@pytest.mark.parametrize("b, k, size", [(1, 1, 64), (7, 3, 64), (65, 1, 32), (5, 2, 96)])
def test_shapes(settings, b, k, size):
    scenes = compose(discs(b, k), 3, size, settings, mono=np.arange(b * k).reshape(b, k) % 2 == 0)
    assert scenes.images.shape == (b, 3, size, size) and scenes.images.dtype == torch.uint8
    assert scenes.masks.shape == (b, size, size) and scenes.masks.max() <= k
    assert scenes.boxes.shape == (b, k, 4) and scenes.boxes.dtype == torch.float32
    assert scenes.present.shape == (b, k) and scenes.present.float().mean() > 0.9
    assert len(scenes) == b == len(scenes.background) == len(scenes.kind) == len(scenes.colours)
    assert set(scenes.kind) <= set(KINDS) and all(set(names) <= set(COLOURS) for names in scenes.colours)
    assert all(names[0] in phrase for names, phrase in zip(scenes.colours, scenes.background, strict=True))


def test_same_seed_same_scenes_and_global_generator_untouched():
    sprites = discs(10, 2)
    state = torch.get_rng_state()
    first, again, other = (compose(sprites, seed, settings=PRETRAIN) for seed in (5, 5, 6))
    assert torch.equal(state, torch.get_rng_state())
    assert torch.equal(first.images, again.images) and torch.equal(first.masks, again.masks)
    assert torch.equal(first.boxes, again.boxes) and first.background == again.background
    assert not same(first, other)


def test_scenes_do_not_depend_on_how_a_batch_is_split():
    sprites = discs(CHUNK + 20, 2)
    mono = torch.arange(2 * len(sprites)).reshape(-1, 2) % 3 == 0
    whole = compose(sprites, 1, settings=PRETRAIN, mono=mono)
    short = compose(sprites[:5], 1, settings=PRETRAIN, mono=mono[:5])
    rest = compose(sprites[CHUNK:], 1, settings=PRETRAIN, mono=mono[CHUNK:], first=CHUNK)
    cut = dataclasses.replace(whole, images=whole.images[:5], masks=whole.masks[:5], background=whole.background[:5])
    assert same(cut, short)
    cut = dataclasses.replace(
        whole, images=whole.images[CHUNK:], masks=whole.masks[CHUNK:], background=whole.background[CHUNK:]
    )
    assert same(cut, rest)


@pytest.mark.parametrize("settings", PRESETS.values(), ids=PRESETS)
def test_boxes_and_presence_agree_with_masks(settings):
    scenes = compose(discs(40, 4), 2, settings=settings)
    for mask, boxes, present in zip(scenes.masks, scenes.boxes, scenes.present, strict=True):
        for k in range(4):
            rows, columns = (mask == k + 1).nonzero(as_tuple=True)
            assert present[k] == (len(rows) > 0)
            if present[k]:
                wanted = [columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]
                assert boxes[k].tolist() == [float(v) for v in wanted]
            else:
                assert not boxes[k].any()


def test_masks_show_the_objects():
    sprites = torch.zeros(30, 2, 64, 64, 4, dtype=torch.uint8)
    sprites[:, 0, 10:54, 10:54] = torch.tensor([255, 0, 0, 255], dtype=torch.uint8)
    sprites[:, 1, 10:54, 10:54] = torch.tensor([0, 0, 255, 255], dtype=torch.uint8)
    scenes = compose(sprites, 0, settings=dataclasses.replace(PLAIN, shift=1.0, rotation=30))
    red, blue = (scenes.images[:, c].int() - scenes.images[:, 1].int() > 128 for c in (0, 2))
    assert torch.equal(red & ~blue, scenes.masks == 1) or ((red & ~blue) != (scenes.masks == 1)).float().mean() < 0.01
    assert ((blue & ~red) != (scenes.masks == 2)).float().mean() < 0.01


def test_absent_objects():
    sprites = discs(50, 3)
    absent = torch.from_numpy(np.random.default_rng(1).random((50, 3)) < 0.5)
    sprites[absent] = 0
    scenes = compose(sprites, 4)
    assert torch.equal(scenes.present, ~absent)
    for words, gone in ((scenes.sizes(), absent), (scenes.positions(), absent)):
        assert [[word is None for word in row] for row in words] == gone.tolist()
    empty = compose(torch.zeros(3, 2, 64, 64, 4, dtype=torch.uint8), 0, settings=PRETRAIN)
    assert not empty.present.any() and not empty.masks.any() and not empty.boxes.any()


def test_absent_slots_leave_the_others_where_one_object_would_be():
    sprites = torch.cat([torch.zeros(8, 1, 64, 64, 4, dtype=torch.uint8), discs(8, 1)], 1)
    scenes = compose(sprites, 0, settings=PLAIN)
    assert scenes.positions() == [[None, "centre"]] * 8 and scenes.sizes() == [[None, "large"]] * 8


def test_plain_is_centred_upright_and_true():
    sprites = torch.zeros(1, 1, 64, 64, 4, dtype=torch.uint8)
    sprites[0, 0, 20:40, 4:44] = torch.tensor(
        [10, 120, 240, 255], dtype=torch.uint8
    )  # off centre, twice as wide as high
    scenes = compose(sprites, 0, 100, PLAIN)
    assert (scenes.boxes[0, 0] - torch.tensor([7.0, 28.5, 93.0, 71.5])).abs().max() <= 1.5
    assert scenes.images[0, :, 50, 50].tolist() == [10, 120, 240]
    assert (scenes.images[0, :, 2, 2] >= 249).all() and scenes.background == ["white"]


@pytest.mark.parametrize("n", [1, 2, 3, 4, 5, 9])
def test_objects_stay_inside_and_mostly_apart(n):
    settings = dataclasses.replace(SEVERAL, shadow=0)
    scenes = compose(discs(24, n), 1, 96, settings)
    assert scenes.present.all()
    area = (scenes.boxes[..., 2] - scenes.boxes[..., 0]) * (scenes.boxes[..., 3] - scenes.boxes[..., 1])
    shape = (scenes.boxes[..., 2] - scenes.boxes[..., 0]) / (scenes.boxes[..., 3] - scenes.boxes[..., 1])
    assert area.min() > 60
    assert ((shape > 0.75) & (shape < 1.33)).float().mean() > 0.9  # discs are neither cut off nor covered


def test_positions_and_sizes():
    scenes = compose(discs(2, 1), 0, 60, PLAIN)
    scenes.boxes = torch.tensor([[[0.0, 0, 10, 10]], [[0.0, 20, 60, 40]]])
    assert scenes.positions() == [["top left"], ["centre"]] and scenes.sizes() == [["small"], ["large"]]


@pytest.mark.parametrize("kind", KINDS)
def test_ink_is_visible_on_every_background(kind):
    sprites = discs(CHUNK * 2, 1)
    mono = torch.ones(len(sprites), 1, dtype=torch.bool)
    settings = dataclasses.replace(TASK, kinds=((kind, 1.0),), shadow=0)
    for coloured in (True, False):
        scenes = compose(sprites, 2, settings=dataclasses.replace(settings, coloured_ink=coloured), mono=mono)
        tone, inside = luma(scenes.images.float() / 255, 1), scenes.masks > 0
        near = soften(soften(inside.float(), 3), 3) > 0.02  # the object and its surroundings
        outside = near & ~inside & (soften(inside.float()) == 0)
        means = [(tone * part).sum((1, 2)) / part.sum((1, 2)) for part in (inside, outside)]
        gap = (means[0] - means[1]).abs()
        assert gap.min() > 0.15 and gap.mean() > 0.35


def test_coloured_objects_are_visible():
    scenes = compose(discs(256, 1), 3, settings=dataclasses.replace(TASK, shadow=0))
    image, inside = scenes.images.float() / 255, (scenes.masks > 0)[:, None]
    means = [(image * part).sum((2, 3)) / part.sum((2, 3)) for part in (inside, ~inside)]
    gap = (means[0] - means[1]).abs().amax(1)
    assert gap.quantile(0.02) > 0.12 and gap.mean() > 0.35


def test_no_halo():
    """Straight alpha would bleed the colour of empty pixels into soft edges."""
    sprites = torch.zeros(1, 1, 64, 64, 4, dtype=torch.uint8)  # empty pixels are black
    sprites[0, 0, 12:52, 12:52] = 255
    images = compose(sprites, 0, 48, dataclasses.replace(PLAIN, rotation=45, scale=((0.3, 0.3),))).images
    assert images.min() > 240  # white on white


def test_occlusion_hides_what_it_says():
    whole = compose(discs(120, 1), 7, settings=TASK)
    hidden = compose(discs(120, 1), 7, settings=dataclasses.replace(TASK, occlusion=1.0))
    share = 1 - (hidden.masks > 0).sum((1, 2)) / (whole.masks > 0).sum((1, 2))
    assert share.min() > 0.05 and share.max() < 0.4
    some = compose(discs(120, 1), 7, settings=dataclasses.replace(TASK, occlusion=0.3))
    changed = (some.images != whole.images).flatten(1).any(1).float().mean()
    assert 0.15 < changed < 0.45


def test_occlusion_of_one_object_spares_the_others():
    sprites = discs(60, 3)
    settings = dataclasses.replace(SEVERAL, occlusion=1.0, hidden=(0.3, 0.35))
    whole, hidden = (compose(sprites, 7, settings=s) for s in (dataclasses.replace(settings, occlusion=0.0), settings))
    before, after = (torch.stack([(s.masks == k).sum((1, 2)) for k in (1, 2, 3)], 1) for s in (whole, hidden))
    assert ((before != after).sum(1) == 1).all()


def test_cover_hits_the_wanted_share_exactly():
    masks = compose(discs(30, 1), 1).masks > 0
    masks[0] = False
    u = torch.rand(30, 3, generator=torch.Generator().manual_seed(0))
    for share in (0.1, 0.35, 0.75):
        shape = cover(masks, torch.full((30,), share), u) > 0.5
        assert not shape[0].any()
        got = (shape & masks).sum((1, 2))[1:] / masks.sum((1, 2))[1:]
        assert (got - share).abs().max() < 0.02


def test_fixed_objects_are_neither_turned_nor_flipped():
    sprites = torch.zeros(40, 1, 64, 64, 4, dtype=torch.uint8)
    sprites[:, 0, 4:60, 4:24] = 255  # a bar with a foot to the right
    sprites[:, 0, 44:60, 4:60] = 255
    settings = dataclasses.replace(PLAIN, flip=0.5, rotation=90, colours=("black",))
    free = compose(sprites, 0, settings=settings)
    fixed = compose(sprites, 0, settings=settings, fixed=np.ones((40, 1)))
    assert len(fixed.masks.flatten(1).unique(dim=0)) == 1
    assert len(free.masks.flatten(1).unique(dim=0)) == 40


def test_kinds_and_colours_of_backgrounds():
    empty = torch.zeros(200, 1, 64, 64, 4, dtype=torch.uint8)
    scenes = compose(empty, 0, settings=dataclasses.replace(TASK, kinds=(("plain", 3.0), ("stripes", 1.0)), tint=0))
    assert 0.65 < np.mean([kind == "plain" for kind in scenes.kind]) < 0.85
    for image, kind, names, phrase in zip(scenes.images, scenes.kind, scenes.colours, scenes.background, strict=True):
        if kind == "plain":
            assert phrase == names[0]
            assert (image[:, 9, 9].int() - torch.tensor(COLOURS[names[0]])).abs().max() <= 1
        else:
            assert phrase == f"{names[0]} and {names[1]} striped"
            assert image.flatten(1).unique(dim=1).shape[1] > 1
    assert len({names[0] for names in scenes.colours}) >= 10
    only = compose(empty, 0, settings=dataclasses.replace(TASK, colours=("blue",)))
    assert {name for names in only.colours for name in names} == {"blue"}


def test_colour_matrices():
    zero, one = torch.zeros(1), torch.ones(1)
    same = jitter_matrix(zero, one, one, zero)
    assert torch.allclose(same, torch.eye(3, 4)[None], atol=1e-5)
    grey = jitter_matrix(zero, zero, one, zero)[0, :, :3] @ torch.tensor([0.8, 0.3, 0.1])
    assert torch.allclose(grey, (YIQ[0] @ torch.tensor([0.8, 0.3, 0.1])).expand(3), atol=2e-3)
    draw = torch.rand(500, 3, generator=torch.Generator().manual_seed(0))
    inks = ink(*draw.unbind(1))
    assert inks.min() >= -1e-5 and inks.max() <= 1 + 1e-5
    assert torch.allclose(luma(inks), draw[:, 1], atol=1e-5)


def test_extents():
    alpha = torch.zeros(2, 64, 64)
    alpha[0, 16:32, 8:56] = 1
    centre, half, present = extents(alpha)
    assert present.tolist() == [True, False]
    assert centre[0].tolist() == [0.0, -0.25] and half[0].tolist() == [0.75, 0.25]


@pytest.mark.parametrize(
    "change, message",
    [
        ({"sprites": torch.zeros(2, 64, 64, 4, dtype=torch.uint8)}, "sprites"),
        ({"sprites": torch.zeros(2, 1, 64, 64, 4)}, "uint8"),
        ({"sprites": torch.zeros(0, 1, 64, 64, 4, dtype=torch.uint8)}, "B >= 1"),
        ({"sprites": torch.zeros(1, 10, 64, 64, 4, dtype=torch.uint8)}, "K in"),
        ({"seed": -1}, "seed"),
        ({"size": 0}, "size"),
        ({"size": 64.0}, "size"),
        ({"mono": [True]}, "mono"),
        ({"fixed": np.zeros((2, 2))}, "fixed"),
        ({"first": 3}, "first"),
    ],
)
def test_wrong_arguments(change, message):
    with pytest.raises(ValueError, match=message):
        compose(**{"sprites": discs(2, 1), "seed": 0, **change})


def test_seed_must_be_an_integer():
    with pytest.raises(TypeError, match="seed"):
        compose(discs(1, 1), 0.5)


@pytest.mark.parametrize(
    "change",
    [
        {"flip": 1.5},
        {"noise": -0.1},
        {"rotation": -1},
        {"scale": ()},
        {"scale": ((0.5, 0.4),)},
        {"hidden": (0.0, 0.3)},
        {"kinds": ()},
        {"kinds": (("plaid", 1.0),)},
        {"kinds": (("plain", 0.0),)},
        {"colours": ("mauve",)},
    ],
)
def test_wrong_settings(change):
    with pytest.raises(ValueError, match=next(iter(change))):
        SceneSettings(**change)


def test_speed():
    sprites = discs(CHUNK * 4, 1)
    compose(sprites[:CHUNK], 0, settings=PRETRAIN)
    start = time.perf_counter()
    compose(sprites, 0, settings=PRETRAIN)
    assert len(sprites) / (time.perf_counter() - start) > 100  # about 1,500 on one idle core
