"""The figures and the explorer of "Zero-shot in five minutes", without a browser, on a CLIP with random weights."""

import matplotlib.pyplot as plt
import numpy as np
import pytest
import torch

from vlmcourse.methods.baselines.zero_shot import ZeroShot
from vlmcourse.show import playground as play
from vlmcourse.world.sprites import load_sprites


@pytest.fixture(scope="module")
def sprites():
    return load_sprites()


@pytest.fixture(autouse=True)
def close_figures():
    yield
    plt.close("all")


def test_scene_follows_its_arguments(sprites):
    one = play.scene(sprites, ["cat"], seed=3, background="blue")
    assert one.images.shape == (1, 3, 64, 64) and one.background == ["blue"]
    assert torch.equal(one.images, play.scene(sprites, ["cat"], seed=3, background="blue").images)
    two = play.scene(sprites, ["cat", "rocket"], background="landscape")
    assert two.kind == ["landscape"] and two.present.tolist() == [[True, True]]
    changed = play.scene(sprites, ["cat"], seed=3, background="blue", style="inverted", severity=5)
    assert not torch.equal(one.images, changed.images)


def test_scene_says_what_is_wrong(sprites):
    for arguments, message in (
        ({"names": ["no such thing"]}, "not a concept"),
        ({"names": []}, "1 to 5 concepts"),
        ({"names": ["cat"], "background": "plaid"}, "background"),
        ({"names": ["cat"], "cut": "novel"}, "no drawing"),
    ):
        with pytest.raises(ValueError, match=message):
            play.scene(sprites, **arguments)


def test_ask_is_zero_shot(sprites, vit_backbone):
    image = play.scene(sprites, ["cat"]).images[0]
    names = ["cat", "dog", "rocket"]
    cosine, probability = play.ask(vit_backbone, image, names, "a picture of a {}")
    model = ZeroShot(vit_backbone, templates="a picture of a {}")
    model.class_names, model.templates, model._fitted = tuple(names), ("a picture of a {}",), True
    expected = model.for_classes(names).logits(image[None])[0]
    torch.testing.assert_close(vit_backbone.logit_scale * cosine, expected)
    assert probability.sum().item() == pytest.approx(1)
    with pytest.raises(ValueError, match="at least one candidate"):
        play.ask(vit_backbone, image, [])


def test_figures_show_what_they_are_given(sprites):
    image = play.scene(sprites, ["cat"]).images[0]
    figure = play.ask_figure(image, ["cat", "dog"], torch.tensor([0.3, 0.1]), torch.tensor([0.9, 0.1]), "a cat")
    bars = figure.axes[1].patches
    assert [round(b.get_width(), 2) for b in bars] == [0.1, 0.9]  # longest on top
    figure = play.matching_figure(image.expand(3, -1, -1, -1), ["a", "b", "c"], np.eye(3), "cosine")
    assert [t.get_text() for t in figure.axes[0].get_xticklabels()] == ["a", "b", "c"]
    history = [{"step": s, "contrast": 2.0, "naming": 3.0} | ({"held_out_top1": 0.5} if s else {}) for s in (0, 500)]
    left, right = play.training_figure(history).axes
    assert len(left.lines) == 2 and right.lines[0].get_ydata()[-1] == 50
    assert play.png(figure).startswith(b"\x89PNG") and not plt.fignum_exists(figure.number)


def test_outlined_fades_the_background_only():
    images, masks = torch.zeros(1, 3, 4, 4, dtype=torch.uint8), torch.zeros(1, 4, 4, dtype=torch.uint8)
    masks[0, 0, 0] = 1
    out = play.outlined(images, masks)
    assert out[0, :, 3, 3].tolist() == [178] * 3 and out[0, :, 0, 0].tolist() != [178] * 3


def test_a_training_drawing_is_nearest_to_itself(sprites):
    ids = sprites.select(cut="train")[[0, 5000, 12000]]
    similarity, nearest = play.nearest_training(sprites, ids)
    assert similarity == pytest.approx(1, abs=1e-5)
    assert (sprites.concept[nearest] == sprites.concept[ids]).all()


def test_nearest_training_drawings_show_the_same_concept(sprites):
    ids = np.concatenate([sprites.select(cut="held_out")[:20], sprites.select(cut="novel")[:1]])
    similarity, nearest = play.nearest_training(sprites, ids)
    assert (sprites.cut[nearest[:20]] == "train").all()
    assert (sprites.concept[nearest[:20]] == sprites.concept[ids[:20]]).all()
    assert (similarity[:20] < 0.995).all() and (similarity[20], nearest[20]) == (-1, -1)  # a novel concept has none


def test_playground_reacts_to_every_control(sprites, vit_backbone):
    box = play.playground(vit_backbone, sprites)
    seen = {bytes(box.picture.value)}
    for name, value in (
        ("first", "dog"), ("second", "rocket"), ("background", "red"), ("style", "inverted"), ("severity", 5),
        ("seed", 4), ("names", "dog, rocket"), ("template", "an icon of a {}"),
    ):  # fmt: skip
        box.controls[name].value = value
        assert bytes(box.picture.value) not in seen, name
        seen.add(bytes(box.picture.value))
    assert box.message.value == "dog and rocket on a red background"


def test_playground_survives_half_typed_input(sprites, vit_backbone):
    box = play.playground(vit_backbone, sprites)
    before = box.picture.value
    for name, value in (("template", "no place for the name"), ("names", " , ")):
        box.controls[name].value = value
        assert box.picture.value == before and box.message.value
    box.controls["template"].value, box.controls["names"].value = "a {}", "cat"
    assert box.picture.value != before
