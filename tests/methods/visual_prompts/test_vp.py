"""VP: the three designs, golden values of the official code, degenerate prompts, both heads, the recipe, errors."""

import pytest
import torch
import torch.nn.functional as F

from vlmcourse.methods.baselines.zero_shot import ZeroShot
from vlmcourse.methods.visual_prompts.vp import DESIGNS, PAPER_TEMPLATE, VP, cosine_lr


def small(backbone, **arguments):
    return VP(backbone, **{"epochs": 2, "lr": 1.0, "batch_size": 8, "warmup_steps": 1} | arguments)


def filled(backbone, prompt_size, design="padding", **values):
    """A VP that is not fitted, its parts filled with one number each."""
    method = VP(backbone, prompt_size=prompt_size, design=design)
    method.parts = {name: torch.full_like(part, values.get(name, 0.0)) for name, part in method._start().items()}
    return method


@pytest.fixture
def tiny(make_backbone):
    return make_backbone("vit", vision={"image_size": 4, "patch_size": 2})


def test_the_frame_of_the_official_code(tiny):
    method = filled(tiny, 1, up=1.0, down=2.0, left=3.0, right=4.0)
    expected = torch.tensor([[1.0, 1, 1, 1], [3, 0, 0, 4], [3, 0, 0, 4], [2, 2, 2, 2]])
    assert torch.equal(method.delta(), expected.expand(3, 4, 4))
    assert sum(part.numel() for part in method.parts.values()) == 36


@pytest.mark.parametrize(("design", "numbers", "pixels"), [("padding", 69_840, 23_280), ("fixed_patch", 2_700, 900)])
def test_sizes_at_224_pixels(make_backbone, design, numbers, pixels):
    backbone = make_backbone("vit", vision={"image_size": 224, "patch_size": 32})
    method = VP(backbone, design=design)
    assert method.prompt_size == 30
    method.parts = method._start()
    assert sum(part.numel() for part in method.parts.values()) == numbers
    assert (method.delta()[0] != 0).sum() == pixels


def test_the_schedule_of_the_official_code():
    rates = [cosine_lr(t, 196_000, 40.0, 1000) for t in (0, 499, 999, 98_500)]
    assert rates == pytest.approx([0.04, 20, 40, 20])
    assert 0 < cosine_lr(195_999, 196_000, 40.0, 1000) < 1e-6
    assert cosine_lr(0, 10, 2.0, 0) == 2.0 and cosine_lr(4, 5, 2.0, 100) == pytest.approx(0.1)


def test_patches_and_their_places(vit_backbone):
    for design in ("fixed_patch", "random_patch"):
        method = filled(vit_backbone, 5, design, patch=1.0)
        assert torch.equal(method.delta().nonzero().amax(0), torch.tensor([2, 4, 4])) and method.delta().sum() == 75
        moved = method.delta((27, 3))
        assert moved[:, 27:, 3:8].sum() == 75 == moved.sum()
    draw = torch.Generator().manual_seed(0)
    places = torch.tensor([filled(vit_backbone, 30, "random_patch")._place(draw) for _ in range(100)])
    assert places.min() == 0 and places.max() == 2, "the last row and column are possible"
    assert filled(vit_backbone, 30, "fixed_patch")._place(draw) == (0, 0)


def test_only_the_border_changes_and_by_the_same_for_every_image(vit_backbone, train, images):
    method = small(vit_backbone, prompt_size=6).fit(train)
    pixels = vit_backbone.preprocess(images)
    prompted = pixels + method.delta()
    assert torch.equal(prompted[..., 6:-6, 6:-6], pixels[..., 6:-6, 6:-6])
    difference = prompted - pixels
    torch.testing.assert_close(difference, difference[:1].expand_as(difference), atol=1e-6, rtol=0)
    assert (filled(vit_backbone, 16, up=1.0, down=1.0).delta() == 1).all(), "p = S / 2 covers everything"


@pytest.mark.parametrize("design", DESIGNS)
def test_without_a_prompt_it_is_zero_shot(tower, train, test_split, design):
    method = small(tower, design=design, init_std=0.0, epochs=0).fit(train)
    zero_shot = ZeroShot(tower).fit(train)
    torch.testing.assert_close(method.logits(test_split), zero_shot.logits(test_split), atol=1e-4, rtol=0)
    paper = small(tower, design=design, init_std=0.0, epochs=0, templates=PAPER_TEMPLATE).fit(train)
    expected = ZeroShot(tower, templates=PAPER_TEMPLATE).fit(train).logits(test_split)
    torch.testing.assert_close(paper.logits(test_split), expected, atol=1e-4, rtol=0)


def test_the_gradient_is_the_sum_over_the_batch_under_the_mask(vit_backbone, train):
    method = small(vit_backbone, epochs=0, prompt_size=6).fit(train)
    parts = {name: part.requires_grad_() for name, part in method.parts.items()}
    pixels = vit_backbone.preprocess(train.images).requires_grad_()
    F.cross_entropy(method._scores(pixels + method.delta()), train.labels).backward()
    total = pixels.grad.sum(0)
    torch.testing.assert_close(parts["up"].grad, total[:, :6], atol=1e-6, rtol=1e-4)
    torch.testing.assert_close(parts["right"].grad, total[:, 6:-6, -6:], atol=1e-6, rtol=1e-4)
    assert all(part.grad.abs().max() > 0 for part in parts.values())
    assert all(p.grad is None for p in vit_backbone.model.parameters())


@pytest.mark.parametrize("design", DESIGNS)
def test_training_lowers_the_loss_and_moves_all_parts(tower, splits, design):
    lr, margin = (200.0, 0.1) if tower.is_vit else (5000.0, 0.005)  # random towers are flat, a ResNet's most of all
    size = tower.image_size // 2 if design == "padding" else tower.image_size - 1  # few places for a random patch
    options = {"design": design, "prompt_size": size, "init_std": 0.0, "lr": lr, "batch_size": 16}
    method = small(tower, epochs=12, **options).fit(splits(per_class=4, seed=1))
    assert method.history["loss"][-1] < method.history["loss"][0] - margin
    assert set(method.learned_parameters()) == ({"up", "down", "left", "right"} if design == "padding" else {"patch"})
    assert all(part.abs().sum() > 0 for part in method.learned_parameters().values() if part.numel())
    assert len(method.history["lr"]) == 12 and method.history["lr"][-1] < 0.1 * lr


def test_a_vision_model_is_read_through_the_label_map(vit_backbone, train, test_split):
    weight = torch.randn(3 * 32 * 32, 7, generator=torch.Generator().manual_seed(0)) / 50

    def classifier(pixels):
        return pixels.flatten(1) @ weight

    outputs = classifier(vit_backbone.preprocess(test_split.images))
    for label_map, read in ((None, [0, 1, 2, 3]), ([6, 2, 0, 5], [6, 2, 0, 5])):
        method = small(vit_backbone, classifier=classifier, label_map=label_map, init_std=0.0, epochs=0).fit(train)
        torch.testing.assert_close(method.logits(test_split), outputs[:, read], atol=1e-4, rtol=0)
    method = small(vit_backbone, classifier=classifier, epochs=6).fit(train)
    assert method.history["loss"][-1] < method.history["loss"][0]
    assert torch.equal(method.for_classes(["dog"]).logits(test_split)[:, 0], method.logits(test_split)[:, 1])
    with pytest.raises(ValueError, match="cannot move"):
        method.for_classes(["yak"])


def test_the_prompt_moves_to_other_class_names(vit_backbone, train, test_split):
    method = small(vit_backbone).fit(train)
    moved = method.for_classes(["yak", "dog"])
    torch.testing.assert_close(moved.logits(test_split)[:, 1], method.logits(test_split)[:, 1], atol=1e-4, rtol=0)
    assert moved.class_names == ("yak", "dog") and torch.equal(moved.delta(), method.delta())


def test_the_recipe_is_the_papers(vit_backbone, train, monkeypatch):
    seen = {}

    def spy(parameters, loss_fn, n, **settings):
        seen.update(settings, shapes=[tuple(p.shape) for p in parameters])
        return {}

    monkeypatch.setattr("vlmcourse.training.fit", spy)
    method = VP(vit_backbone, seed=3).fit(train)
    assert method.prompt_size == 4 and seen.pop("shapes") == [(3, 4, 32), (3, 4, 32), (3, 24, 4), (3, 24, 4)]
    schedule = seen.pop("schedule")
    assert schedule(999, 196_000) == 40.0 and schedule(0, 196_000) == 0.04
    assert seen == {
        "epochs": 1000, "lr": 40.0, "batch_size": 256, "momentum": 0.9, "weight_decay": 0.0, "drop_last": False,
        "seed": 3, "progress": False,
    }  # fmt: skip


def test_places_and_starts_come_from_the_seed(vit_backbone, train, test_split):
    def run(seed):
        return small(vit_backbone, design="random_patch", seed=seed).fit(train)

    torch.manual_seed(0)
    one = run(1)
    torch.manual_seed(1)
    assert torch.equal(one.logits(test_split), run(1).logits(test_split))
    assert torch.equal(one.logits(test_split), one.logits(test_split))
    assert (one.logits(test_split) - run(2).logits(test_split)).abs().max() > 1e-4


@pytest.mark.parametrize("batch_size", [1, 3, 100])
def test_odd_batches(tower, train, test_split, batch_size):
    method = small(tower, batch_size=batch_size, epochs=1).fit(train)
    whole = method.logits(test_split)
    one = torch.cat([method.logits(image) for image in test_split.images[:3]])
    torch.testing.assert_close(one, whole[:3], atol=1e-3, rtol=0)
    torch.testing.assert_close(method.logits(tower.preprocess(test_split.images)), whole, atol=1e-4, rtol=0)


def test_forward_stays_on_the_backbones_device(tower, fake_cuda):
    backbone = fake_cuda(tower)
    method = VP(backbone)
    method.class_names, method.templates = ("cat", "dog"), ("a {}.",)
    method._read_classes()
    method.parts = {name: part.requires_grad_() for name, part in method._start().items()}
    S = backbone.image_size
    scores = method._scores(torch.zeros(2, 3, S, S, device="cuda") + method.delta())
    assert scores.requires_grad and scores.device.type == "cuda"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"design": "frame"}, "design='frame'"),
        ({"prompt_size": 17}, "prompt_size=17 must be a whole number from 1 to 16"),
        ({"prompt_size": 33, "design": "fixed_patch"}, "prompt_size=33 must be a whole number from 1 to 32"),
        ({"prompt_size": 0}, "prompt_size=0"),
        ({"init_std": -1}, "init_std=-1"),
        ({"warmup_steps": 0.5}, "warmup_steps=0.5"),
        ({"classifier": 3}, "classifier=int"),
        ({"label_map": [0, 1]}, "label_map is for"),
        ({"classifier": len, "label_map": [0, 1]}, r"label_map=\[0, 1\] must have one output for each of the 4"),
        ({"templates": "a photo"}, "a photo"),
        ({"lr": 0}, "lr=0"),
    ],
)
def test_bad_arguments_are_named(vit_backbone, train, arguments, message):
    with pytest.raises(ValueError, match=message):
        VP(vit_backbone, **arguments).fit(train)
