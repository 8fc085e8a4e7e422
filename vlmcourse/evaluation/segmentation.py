"""Dense prediction in numbers, all from one confusion matrix over the whole set, and the protocol of the chapter.

M_ij            pixels of class i that were predicted as j; pixels with the ignore index are left out
IoU_c           M_cc / (sum_j M_cj + sum_i M_ic - M_cc)      not defined where c neither occurs nor is predicted
mIoU            mean of IoU_c over the classes where it is defined
pixel accuracy  sum_c M_cc / sum_ij M_ij
class accuracy  mean over the classes that occur of M_cc / sum_j M_cj
The mean of IoUs of single images is another number, and not the papers'. All are fractions of 1.
"""

from collections.abc import Callable

import torch
from torch import Tensor

from vlmcourse.tasks import Task
from vlmcourse.tasks.segmentation import IGNORE
from vlmcourse.tasks.split import permutation


def confusion(predicted: Tensor, labels: Tensor, classes: int, ignore_index: int = IGNORE) -> Tensor:
    """M (C, C) int64 on the CPU. predicted, labels: integers of one shape, such as (N, H, W); ValueError for other
    shapes, or values that are neither in 0..C-1 nor (in labels) the ignore index."""
    if predicted.shape != labels.shape or not labels.numel():
        raise ValueError(f"predicted {tuple(predicted.shape)} and labels {tuple(labels.shape)} must have one shape")
    predicted, labels = predicted.flatten().long().cpu(), labels.flatten().long().cpu()
    counts = labels != ignore_index
    predicted, labels = predicted[counts], labels[counts]
    for name, values in (("predicted", predicted), ("labels", labels)):
        wrong = values[(values < 0) | (values >= classes)]
        if len(wrong):
            raise ValueError(f"{name} has the value {int(wrong[0])}, allowed are 0..{classes - 1} ({classes} classes)")
    return torch.bincount(labels * classes + predicted, minlength=classes**2).reshape(classes, classes)


def iou(matrix: Tensor) -> Tensor:
    """IoU per class (C,) float64 from a confusion matrix (C, C); nan where it is not defined."""
    matrix = matrix.double()
    hits = matrix.diagonal()
    return hits / (matrix.sum(0) + matrix.sum(1) - hits)


def mean_iou(matrix: Tensor) -> float:
    """mIoU from a confusion matrix."""
    return iou(matrix).nanmean().item()


def pixel_accuracy(matrix: Tensor) -> float:
    """Share of pixels with the right class, from a confusion matrix."""
    return (matrix.diagonal().sum().double() / matrix.sum()).item()


def class_accuracy(matrix: Tensor) -> float:
    """Mean over classes of the share of their pixels that were found, from a confusion matrix."""
    matrix = matrix.double()
    return (matrix.diagonal() / matrix.sum(1)).nanmean().item()


def segmentation(fit: Callable, task: Task, shots: int, draw_seed: int) -> dict[str, float]:
    """{"miou", "pixel_accuracy", "class_accuracy", each domain's mIoU, "average" over the domains}.

    shots: training images in all (a mask labels many pixels, so they are not counted per class), and at most as many
    validation images. fit(train, val) returns a method with `segment`. ValueError for tasks without masks.
    """
    if task.kind != "segmentation":
        raise ValueError(f"segmentation needs a task with masks, {task.name!r} is {task.kind!r}")
    method = fit(*draw_images(task, shots, draw_seed))
    matrices = {
        name: confusion(method.segment(split), split.labels, split.num_classes)
        for name, split in {"test": task.test, **task.domains}.items()
    }
    whole, others = matrices.pop("test"), {name: mean_iou(matrix) for name, matrix in matrices.items()}
    metrics = {
        "miou": mean_iou(whole),
        "pixel_accuracy": pixel_accuracy(whole),
        "class_accuracy": class_accuracy(whole),
    }
    return metrics | others | ({"average": sum(others.values()) / len(others)} if others else {})


def draw_images(task: Task, shots: int, seed: int):
    """(train, val): `shots` random training images, and as many validation images if there are so many."""
    if isinstance(shots, bool) or not isinstance(shots, int) or not 1 <= shots <= len(task.train):
        raise ValueError(f"shots={shots!r} must be a number of training images, 1..{len(task.train)}")
    order = permutation(len(task.train), task.name, "images", shots, seed)[:shots]
    train = task.train.subset(torch.from_numpy(order), f"{task.name}/train/{shots} images/seed{seed}")
    return train, None if task.val is None else task.val.subset(range(min(shots, len(task.val))))
