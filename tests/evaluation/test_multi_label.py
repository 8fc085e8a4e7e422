"""Multi-label metrics against golden values, torchmetrics and scikit-learn; the protocols on a toy method."""

import pytest
import torch
from sklearn.metrics import average_precision_score
from torchmetrics.functional.classification import multilabel_average_precision, multilabel_precision, multilabel_recall

from vlmcourse.evaluation.multi_label import average_precision, f1_scores, mean_average_precision
from vlmcourse.evaluation.multi_label_protocols import evaluate_multi_label, partial_labels, zero_shot_multi_label
from vlmcourse.evaluation.protocols import PROTOCOLS
from vlmcourse.tasks import get_task
from vlmcourse.tasks.multi_label import MultiLabelSplit, MultiLabelTask

Y = torch.tensor([[1, 0], [0, 1], [1, 1], [0, 0]])
S = torch.tensor([[0.9, 0.1], [0.8, 0.7], [0.7, 0.2], [0.1, 0.6]])


def test_golden_values():
    assert average_precision(torch.tensor([[0.9], [0.8], [0.7], [0.6]]), torch.tensor([[1], [0], [1], [0]])).item() == (
        pytest.approx(0.8333333)
    )
    assert mean_average_precision(S, Y) == pytest.approx(0.83333, abs=1e-5)
    at = f1_scores(S, Y, threshold=0.5)
    assert (at.cp, at.cr, at.cf1, at.mean_f1) == pytest.approx((0.58333, 0.75, 0.65625, 0.65), abs=1e-5)
    assert (at.op, at.or_, at.of1) == pytest.approx((0.6, 0.75, 0.66667), abs=1e-5)
    one, two = f1_scores(S, Y, top=1), f1_scores(S, Y, top=2)
    assert (one.op, one.or_, one.of1) == pytest.approx((0.5, 0.5, 0.5))
    assert (two.op, two.or_, two.of1) == pytest.approx((0.5, 1.0, 2 / 3))


def test_the_toy_of_the_zero_shot_protocol():
    labels, ranks = torch.tensor([[1, 0, 1], [0, 1, 0]]), torch.tensor([[3.0, 2.0, 1.0], [1.0, 3.0, 2.0]])
    best = f1_scores(ranks, labels, top=2)
    assert (best.op, best.or_, best.of1) == pytest.approx((0.5, 2 / 3, 0.571428), abs=1e-5)


@pytest.mark.parametrize("levels", [7, 10**6])
def test_equal_to_torchmetrics_and_scikit_learn(levels):
    draw = torch.Generator().manual_seed(levels)
    scores = torch.randint(levels, (60, 5), generator=draw) / levels  # seven levels: many ties
    labels = (torch.rand(60, 5, generator=draw) < 0.3).long()
    ours = average_precision(scores, labels)
    theirs = multilabel_average_precision(scores, labels, 5, average="none").double()
    torch.testing.assert_close(ours, theirs, atol=1e-6, rtol=0)
    sklearn = [average_precision_score(labels[:, c], scores[:, c]) for c in range(5)]
    assert ours.tolist() == pytest.approx(sklearn)
    at = f1_scores(scores, labels, threshold=0.4)
    for average, precision, recall in (("macro", at.cp, at.cr), ("micro", at.op, at.or_)):
        given = {"num_labels": 5, "threshold": 0.4, "average": average}
        assert precision == pytest.approx(multilabel_precision(scores, labels, **given).item(), abs=1e-6)
        assert recall == pytest.approx(multilabel_recall(scores, labels, **given).item(), abs=1e-6)


def test_a_class_without_positives_counts_as_zero_and_unknown_labels_not_at_all():
    labels = torch.cat([Y, torch.zeros(4, 1).long()], dim=1)
    scores = torch.cat([S, S[:, :1]], dim=1)
    assert average_precision(scores, labels)[2] == 0
    assert mean_average_precision(scores, labels) == pytest.approx(2 / 3 * mean_average_precision(S, Y))
    more_scores, unknown = torch.cat([S, torch.ones(1, 2)]), torch.cat([Y, torch.full((1, 2), -1)])
    assert torch.equal(average_precision(more_scores, unknown), average_precision(S, Y))
    assert f1_scores(more_scores, unknown, threshold=0.5) == f1_scores(S, Y, threshold=0.5)


def test_metrics_name_what_is_wrong():
    for arguments, message in (
        ((S, Y[:, :1]), "both be"),
        ((S * float("nan"), Y), "finite"),
        ((S, Y + 5), "1, 0 or -1"),
    ):
        with pytest.raises(ValueError, match=message):
            average_precision(*arguments)
    with pytest.raises(ValueError, match="either threshold or top"):
        f1_scores(S, Y)
    with pytest.raises(ValueError, match="top=3"):
        f1_scores(S, Y, top=3)


NAMES = ("ant", "bee", "cat", "dog", "elk", "fox")


class Peeker:
    """Scores are pixels that hold the labels; it keeps what it was fitted on."""

    gives_probabilities = True

    def __init__(self, train, names=None):
        self.train, self.class_names = train, tuple(names or train.class_names)

    def for_classes(self, names, templates=None):
        return Peeker(self.train, names)

    def scores(self, split):
        columns = [NAMES.index(name) for name in self.class_names]
        return split.images[:, 0].flatten(1)[:, columns].float() - 0.5

    def probabilities(self, split):
        return self.scores(split).sigmoid()


@pytest.fixture
def task():
    labels = torch.tensor([[1, 1, 0, 0, 0, 0], [0, 0, 1, 1, 0, 0], [0, 0, 0, 0, 1, 1], [1, 0, 1, 0, 0, 1]]).repeat(9, 1)
    images = torch.zeros(36, 3, 2, 3, dtype=torch.uint8)
    images[:, 0] = labels.reshape(36, 2, 3)
    parts = {part: MultiLabelSplit(images, labels, NAMES, name=part) for part in ("train", "val", "test")}
    return MultiLabelTask("toy", "Toy", **parts, licence="CC0", kind="multi-label", unseen_classes=("cat", "fox"))


def test_partial_labels_fit_once_for_each_share(task):
    seen = []

    def fit(train, val):
        seen.append((len(train), round(train.known.double().mean().item(), 1), len(val)))
        return Peeker(train)

    metrics = partial_labels(fit, task, 4, 1, shares=(0.1, 0.5, 1))
    assert metrics == {"map_10": 1.0, "map_50": 1.0, "map_100": 1.0, "map": 1.0}
    assert [n for n, _, _ in seen] == [24] * 3 and [v for _, _, v in seen] == [24] * 3
    assert seen[0][1] < seen[1][1] < seen[2][1] == 1.0
    with pytest.raises(ValueError, match="shares must be a list"):
        partial_labels(fit, task, 4, 1, shares=0.5)


def test_zero_shot_trains_on_the_seen_classes_alone(task):
    fitted = []

    def fit(train, val):
        fitted.append(train.class_names)
        return Peeker(train)

    metrics = zero_shot_multi_label(fit, task, 2, 1)
    assert fitted == [("ant", "bee", "dog", "elk")]
    assert {m for m in metrics if m.endswith("_map")} == {"seen_map", "unseen_map", "gzsl_map"}
    assert all(metrics[f"{name}_{metric}"] == 1.0 for name in ("seen", "unseen", "gzsl") for metric in ("map", "of1"))
    assert metrics["gzsl_of1@3"] < 1 and "unseen_cf1@3" in metrics


def test_protocols_are_known_and_refuse_other_tasks(task):
    assert PROTOCOLS["partial_labels"] is partial_labels and PROTOCOLS["zero_shot_multi_label"] is zero_shot_multi_label
    for protocol in (partial_labels, zero_shot_multi_label):
        with pytest.raises(ValueError, match="multi-label tasks"):
            protocol(Peeker, get_task("digits"), 1, 1)
    with pytest.raises(ValueError, match="other classes"):
        evaluate_multi_label(Peeker(task.train), task.test.keep_classes([0]))
