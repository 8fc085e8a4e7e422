"""Figures and the explorer of the notebook on setups, on a toy task and a tiny CLIP, without a browser."""

import matplotlib.pyplot as plt
import pytest
import torch
import torch.nn.functional as F

from vlmcourse.backbone.features import image_features
from vlmcourse.evaluation.metrics import ece
from vlmcourse.show import setups
from vlmcourse.tasks import Split, Task

NAMES = ("cat", "dog", "fox")


def make_split(name, per_class, seed):
    labels = torch.arange(len(NAMES)).repeat_interleave(per_class)
    noise = torch.randint(0, 60, (len(labels), 3, 32, 32), generator=torch.Generator().manual_seed(seed))
    return Split((60 * labels[:, None, None, None] + noise).to(torch.uint8), labels, NAMES, ("a {}.",), name)


@pytest.fixture(autouse=True)
def surroundings(tmp_path, monkeypatch):
    monkeypatch.setenv("VLMCOURSE_CACHE", str(tmp_path))
    plt.switch_backend("agg")
    yield
    plt.close("all")


@pytest.fixture
def task():
    sizes = {"train": 5, "val": 4, "test": 6}
    parts = (make_split(f"toy/{part}", n, seed) for seed, (part, n) in enumerate(sizes.items()))
    return Task("toy", "Toy", *parts, "CC0")


def class_means(x, y, x_val, y_val, num_classes):
    means = torch.stack([x[y == c].mean(0) for c in range(num_classes)])
    return lambda z: z @ F.normalize(means, dim=-1).T


def test_rows_of_the_whole_split_are_the_features_of_the_draw(vit_backbone, task):
    train = task.few_shot(2, 3).train
    expected = image_features(vit_backbone, train, cache=False)
    assert torch.allclose(setups.whole_split_features(vit_backbone, train), expected, atol=1e-5)
    new = task.base_to_new()[1].test
    rows = setups.whole_split_features(vit_backbone, task.test)[task.test.labels == 2]
    assert torch.equal(setups.whole_split_features(vit_backbone, new), rows)


def test_many_draws_encode_the_split_once(vit_backbone, task, monkeypatch):
    calls = []
    monkeypatch.setattr(setups, "image_features", lambda b, s: calls.append(s) or torch.zeros(len(s), 16))
    for seed in range(4):
        setups.whole_split_features(vit_backbone, task.few_shot(2, seed).train)
    assert all(split is task.train for split in calls)


def test_setups_figure_hides_what_is_not_given(task):
    figure = setups.setups_figure(task, classes=(0, 2), per_class=3, shots=1)
    axes = figure.axes
    assert len(axes) == 4 * 6
    titles = [[axis.get_title() for axis in axes[6 * r : 6 * r + 6]] for r in range(4)]
    assert titles[0] == ["cat"] * 3 + ["fox"] * 3
    assert titles[1] == ["cat", "", "", "fox", "", ""]
    assert titles[2] == ["?"] * 6 and titles[3] == ["?"] + [""] * 5


@pytest.mark.parametrize("shots", [1, 4])
def test_few_shot_figure_shows_every_drawn_image(task, shots):
    train = task.few_shot(shots, 1).train
    figure = setups.few_shot_figure(train, {"zero-shot": 0.5, "linear probe": 0.75}, columns=4)
    shown = [axis for axis in figure.axes if axis.get_images()]
    assert len(shown) == 3 * shots
    assert {axis.get_title() for axis in shown} - {""} == set(NAMES)
    assert {text.get_text() for text in figure.axes[-1].texts} == {"50.0", "75.0"}


def test_reliability_figure_names_the_error(generator):
    probabilities = torch.rand(50, 4, generator=generator).softmax(1)
    labels = torch.randint(0, 4, (50,), generator=generator)
    figure = setups.reliability_figure({"one": (probabilities, labels), "two": (probabilities, labels)}, bins=10)
    assert f"{100 * ece(probabilities, labels, 10):.1f}" in figure.axes[1].get_title()
    assert figure.axes[0].get_xlabel()


def test_purity_counts_the_confident_first():
    p = torch.tensor([[0.9, 0.1], [0.6, 0.4], [0.3, 0.7], [0.2, 0.8]])
    labels = torch.tensor([0, 1, 0, 1])  # confidence .9 right, .8 right, .7 wrong, .6 wrong
    assert setups.purity(p, labels, (0.25, 0.5, 0.75, 1.0)) == pytest.approx([1, 1, 2 / 3, 0.5])


def test_explorer_follows_its_controls(vit_backbone, task, monkeypatch):
    monkeypatch.setattr(setups, "get_task", lambda name: task)
    box = setups.explorer(vit_backbone, ["toy"], class_means, shots=(1, 2, 4, 8))
    first, picture = dict(box.scores), box.picture.value
    assert set(first) == {"zero-shot", "linear probe"} and "3 labelled" in box.message.value
    box.controls["shots"].value = 4
    assert "12 labelled" in box.message.value and box.picture.value != picture
    assert box.scores["zero-shot"] == first["zero-shot"]
    expected = setups.probe_accuracy(vit_backbone, task, 4, 1, class_means)
    assert box.scores["linear probe"] == expected
    picture = box.picture.value
    box.controls["seed"].value = 2
    assert box.picture.value != picture
    box.controls["shots"].value = 8  # more than the five images of a class: a message, the picture stays
    assert "shots must be at most 5" in box.message.value
