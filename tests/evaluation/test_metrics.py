import numpy as np
import pytest
import torch
from torchmetrics.classification import MulticlassAccuracy, MulticlassCalibrationError

from vlmcourse.evaluation.metrics import (
    calibration_error,
    ece,
    format_mean_std,
    harmonic_mean,
    mean_std,
    reliability,
    top1,
)


@pytest.fixture
def scores():
    generator = torch.Generator().manual_seed(0)
    labels = torch.randint(0, 7, (500,), generator=generator)
    logits = torch.randn(500, 7, generator=generator) * 2
    logits[torch.arange(500), labels] += 1.5
    return logits, labels


def test_top1_equals_torchmetrics(scores):
    reference = MulticlassAccuracy(7, average="micro")(*scores).item()
    assert top1(*scores) == pytest.approx(reference, abs=1e-7)


@pytest.mark.parametrize("bins", [1, 10, 15, 20])
def test_ece_equals_torchmetrics(scores, bins):
    logits, labels = scores
    probabilities = logits.softmax(1)
    reference = MulticlassCalibrationError(7, n_bins=bins)(probabilities, labels).item()
    assert ece(probabilities, labels, bins) == pytest.approx(reference, abs=1e-6)
    assert ece(probabilities.double(), labels, bins) == pytest.approx(reference, abs=1e-6)


@pytest.mark.parametrize(("first", "expected"), [(0.95 + 1e-9, 0.45), (0.95 - 1e-9, 3.05 / 7)])
def test_ece_by_hand(first, expected):
    """Seven predictions in 20 bins, each alone in its bin, but for the first: with 0.99 above 0.95, with 0.91 below."""
    confidence = torch.tensor([first, 0.91, 0.62, 0.55, 0.30, 0.99, 0.05], dtype=torch.float64)
    assert calibration_error(confidence, torch.tensor([1, 0, 1, 0, 0, 1, 1]), bins=20) == pytest.approx(
        expected, abs=1e-7
    )


def test_ece_of_two_images():
    probabilities = torch.tensor([[0.8, 0.2], [0.6, 0.4]])  # one right with 0.8, one wrong with 0.6
    assert ece(probabilities, torch.tensor([0, 1]), bins=10) == pytest.approx((0.2 + 0.6) / 2, abs=1e-7)


def test_perfect_and_sure_is_calibrated():
    labels = torch.tensor([0, 2, 1])
    assert ece(torch.eye(3)[labels], labels) == 0


def test_bins_are_open_on_the_left():
    bins = reliability(
        torch.tensor([0.0, 0.5, 0.5 + 1e-9, 1.0], dtype=torch.float64), torch.tensor([0, 1, 1, 1]), bins=2
    )
    assert bins.count.tolist() == [2, 2] and bins.accuracy.tolist() == [0.5, 1.0]
    assert bins.confidence.tolist() == pytest.approx([0.25, 0.75]) and bins.edges.tolist() == [0, 0.5, 1]
    empty = reliability(torch.tensor([0.9]), torch.tensor([1]), bins=2)
    assert empty.count.tolist() == [0, 1] and empty.accuracy.tolist() == [0, 1]


def test_harmonic_mean():
    assert harmonic_mean(0.8247, 0.7171) == pytest.approx(2 / (1 / 0.8247 + 1 / 0.7171))
    assert harmonic_mean(82.69, 63.22) == pytest.approx(71.66, abs=0.005)  # CoOp's average row in the literature
    assert harmonic_mean(0, 0) == harmonic_mean(0.5, 0) == 0
    with pytest.raises(ValueError, match="base and new must be >= 0"):
        harmonic_mean(-0.1, 0.5)


def test_mean_and_std():
    values = [0.70, 0.72, 0.715]
    assert mean_std(values) == pytest.approx((np.mean(values), np.std(values)))  # ddof 0
    assert mean_std([0.5]) == (0.5, 0)
    assert format_mean_std([0.704, 0.72]) == "71.2 ± 0.8" and format_mean_std([0.5]) == "50.0"
    assert format_mean_std([1, 3], scale=1, digits=2) == "2.00 ± 1.00"
    with pytest.raises(ValueError, match="must not be empty"):
        mean_std([])


@pytest.mark.parametrize("metric", [top1, ece])
@pytest.mark.parametrize(
    ("scores", "labels"),
    [
        (torch.ones(3), torch.zeros(3, dtype=torch.long)),
        (torch.ones(3, 1), torch.zeros(2, dtype=torch.long)),
        (torch.ones(3, 1), torch.zeros(3, 1, dtype=torch.long)),
        (torch.ones(0, 1), torch.zeros(0, dtype=torch.long)),
        (torch.ones(2, 1), torch.tensor([0, 1])),
        (torch.tensor([[float("nan")]]), torch.tensor([0])),
    ],
)
def test_wrong_shapes_and_values(metric, scores, labels):
    with pytest.raises(ValueError, match="must"):
        metric(scores, labels)


def test_ece_refuses_logits_and_wrong_bins(scores):
    logits, labels = scores
    with pytest.raises(ValueError, match="apply softmax first"):
        ece(logits, labels)
    with pytest.raises(ValueError, match="bins must be an integer >= 1, got 0"):
        ece(logits.softmax(1), labels, bins=0)
    with pytest.raises(ValueError, match=r"confidence must lie in 0\.\.1"):
        calibration_error(torch.tensor([1.5]), torch.tensor([1]))
    with pytest.raises(ValueError, match="shape"):
        calibration_error(torch.tensor([0.5]), torch.tensor([1, 0]))
