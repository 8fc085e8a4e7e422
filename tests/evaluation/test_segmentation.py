"""mIoU and its relatives: hand-counted values, torchmetrics, and the protocol."""

import pytest
import torch
import torchmetrics

from vlmcourse.evaluation.protocols import PROTOCOLS
from vlmcourse.evaluation.segmentation import (
    class_accuracy,
    confusion,
    draw_images,
    iou,
    mean_iou,
    pixel_accuracy,
    segmentation,
)
from vlmcourse.tasks import Task, get_task
from vlmcourse.tasks.segmentation import IGNORE, MaskSplit


def test_values_of_the_literature():
    matrix = confusion(torch.tensor([[0, 0, 1], [1, 2, 2]]), torch.tensor([[0, 1, 1], [1, 2, IGNORE]]), 3)
    torch.testing.assert_close(iou(matrix), torch.tensor([1 / 2, 2 / 3, 1.0]).double())
    assert mean_iou(matrix) == pytest.approx(0.72222, abs=1e-5)
    assert class_accuracy(matrix) == pytest.approx(0.88889, abs=1e-5) and pixel_accuracy(matrix) == pytest.approx(0.8)


def test_rows_are_true_classes():
    matrix = confusion(torch.tensor([1, 1, 0]), torch.tensor([0, 0, 0]), 2)
    assert matrix.tolist() == [[1, 2], [0, 0]]


@pytest.mark.parametrize("seed", range(3))
def test_torchmetrics_agrees(seed):
    draw = torch.Generator().manual_seed(seed)
    labels = torch.randint(0, 6, (4, 9, 7), generator=draw)
    predicted = torch.where(torch.rand(labels.shape, generator=draw) < 0.6, labels, (labels + 1) % 6)
    labels[torch.rand(labels.shape, generator=draw) < 0.2] = IGNORE
    matrix, options = confusion(predicted, labels, 6), {"num_classes": 6, "ignore_index": IGNORE}
    theirs = torchmetrics.JaccardIndex(task="multiclass", average="macro", **options)(predicted, labels)
    assert mean_iou(matrix) == pytest.approx(theirs.item(), abs=1e-6)
    accuracy = torchmetrics.Accuracy(task="multiclass", average="micro", **options)(predicted, labels)
    assert pixel_accuracy(matrix) == pytest.approx(accuracy.item(), abs=1e-6)
    means = torchmetrics.Accuracy(task="multiclass", average="macro", **options)(predicted, labels)
    assert class_accuracy(matrix) == pytest.approx(means.item(), abs=1e-6)


def test_one_matrix_over_the_set_is_not_the_mean_over_images():
    predicted, labels = torch.tensor([[0, 0, 0, 1], [0, 0, 0, 0]]), torch.tensor([[0, 0, 1, 1], [0, 0, 0, 0]])
    of_images = [mean_iou(confusion(p, y, 2)) for p, y in zip(predicted, labels, strict=True)]
    assert mean_iou(confusion(predicted, labels, 2)) != pytest.approx(sum(of_images) / 2)


def test_absent_classes_do_not_count_but_invented_ones_do():
    labels = torch.zeros(4).long()
    assert mean_iou(confusion(labels, labels, 3)) == 1.0
    assert mean_iou(confusion(torch.tensor([0, 0, 0, 2]), labels, 3)) == pytest.approx(0.375)  # (3/4 + 0) / 2


@pytest.mark.parametrize(
    ("predicted", "labels", "message"),
    [
        (torch.zeros(3), torch.zeros(4), "one shape"),
        (torch.tensor([3]), torch.tensor([0]), "predicted has the value 3"),
        (torch.tensor([0]), torch.tensor([-1]), "labels has the value -1"),
    ],
)
def test_wrong_values(predicted, labels, message):
    with pytest.raises(ValueError, match=message):
        confusion(predicted, labels, 3)


def toy_task(kind="segmentation"):
    def split(n, seed):
        masks = torch.randint(0, 2, (n, 4, 4), generator=torch.Generator().manual_seed(seed))
        return MaskSplit((100 * masks)[:, None].expand(-1, 3, -1, -1).to(torch.uint8).clone(), masks, ("a", "b"))

    parts = {"train": split(6, 0), "val": split(3, 1), "test": split(5, 2)}
    return Task("toy", "Toy", **parts, licence="CC0", domains={"dark": split(4, 3)}, kind=kind)


class Threshold:
    def __init__(self, level):
        self.level = level

    def segment(self, split):
        return (split.images[:, 0] > self.level).long()


def test_protocol():
    task, seen = toy_task(), []

    def fit(train, val):
        seen.append((len(train), len(val), train))
        return Threshold(50)

    metrics = segmentation(fit, task, 4, draw_seed=1)
    assert metrics == {"miou": 1.0, "pixel_accuracy": 1.0, "class_accuracy": 1.0, "dark": 1.0, "average": 1.0}
    assert seen[0][:2] == (4, 3) and PROTOCOLS["segmentation"] is segmentation
    same, other = draw_images(task, 4, 1)[0], draw_images(task, 4, 2)[0]
    assert same.fingerprint == seen[0][2].fingerprint != other.fingerprint
    worse = segmentation(lambda train, val: Threshold(200), task, 4, 1)
    assert worse["miou"] < 0.4 and worse["class_accuracy"] == 0.5


def test_protocol_needs_masks_and_enough_images():
    with pytest.raises(ValueError, match="'digits' is 'single-label'"):
        segmentation(None, get_task("digits"), 1, 1)
    for shots in (0, 7, True):
        with pytest.raises(ValueError, match=f"shots={shots}"):
            draw_images(toy_task(), shots, 1)
