from dataclasses import replace

import pytest
import torch

from vlmcourse.evaluation.hierarchy import hierarchical_consistent_accuracy, mean_treecut_accuracy
from vlmcourse.evaluation.metrics import ece, harmonic_mean, top1
from vlmcourse.evaluation.protocols import (
    PROTOCOLS,
    base_to_new,
    cross_task,
    domain_generalisation,
    evaluate,
    few_shot,
    hierarchical,
)
from vlmcourse.tasks import get_task
from vlmcourse.tasks.taxonomy import taxonomy_of


@pytest.fixture
def fit(pixels, backbone):
    """Builds and fits, and keeps what it was given in fit.calls."""

    def fit(train, val):
        fit.calls.append((train, val))
        return pixels(backbone).fit(train, val)

    fit.calls = []
    return fit


def test_names():
    names = ["few_shot", "base_to_new", "domain_generalisation", "cross_task", "hierarchical"]
    assert list(PROTOCOLS)[: len(names)] == names


def test_few_shot(fit, task, pixels, backbone):
    metrics = few_shot(fit, task, 4, draw_seed=1)
    [(train, val)] = fit.calls
    assert train.counts.tolist() == [4] * 5 and val.counts.tolist() == [4] * 5
    method = pixels(backbone).fit(*task.few_shot(4, 1))
    assert metrics["top1"] == method.score(task.test) and 0.3 < metrics["top1"] < 1
    assert metrics["ece"] == pytest.approx(ece(method.probabilities(task.test), task.test.labels, 15))


def test_base_to_new_trains_on_base_and_tests_each_half_alone(fit, task):
    metrics = base_to_new(fit, task, 4, draw_seed=1)
    [(train, _)] = fit.calls
    base, new = task.base_to_new()
    assert train.class_names == ("ant", "bee", "cat") and len(train) == 12
    method = fit(*base.few_shot(4, 1))
    assert metrics["base"] == method.score(base.test)
    assert metrics["new"] == method.for_classes(new.class_names).score(new.test)
    assert metrics["h"] == harmonic_mean(metrics["base"], metrics["new"]) and {"base_ece", "new_ece"} < metrics.keys()


def test_base_to_new_with_a_random_half(fit, task):
    base_to_new(fit, task, 2, draw_seed=1, split_seed=3)
    assert fit.calls[0][0].class_names == task.base_to_new(3)[0].class_names


def test_domain_generalisation(fit, task):
    metrics = domain_generalisation(fit, task, 4, draw_seed=1)
    assert [m for m in metrics if not m.endswith("_ece")] == ["source", "dark", "few", "average"]
    method = fit(*task.few_shot(4, 1))
    assert metrics["source"] == method.score(task.test) and metrics["dark"] == method.score(task.domains["dark"])
    few = task.domains["few"]
    assert metrics["few"] == method.for_classes(few.class_names).score(few)
    assert metrics["average"] == pytest.approx((metrics["dark"] + metrics["few"]) / 2)
    assert domain_generalisation(fit, task, 4, 1, ["dark"]) == {
        name: metrics[name] for name in ("source", "dark", "source_ece", "dark_ece")
    } | {"average": metrics["dark"]}
    for wrong in (["fog"], [], "dark"):
        with pytest.raises(ValueError, match="domains must be some of dark, few, got"):
            domain_generalisation(fit, task, 4, 1, wrong)
    with pytest.raises(ValueError, match="'toy2/half' has no shifted domains"):
        domain_generalisation(fit, replace(get_task("toy2"), name="toy2/half", domains={}), 4, 1)


def test_cross_task(fit, task):
    metrics = cross_task(fit, task, 4, draw_seed=1, targets=("toy2",))
    method = fit(*task.few_shot(4, 1))
    target = get_task("toy2")
    assert metrics["toy2"] == method.for_classes(target.class_names).score(target.test) == metrics["average"]
    assert len(fit.calls) == 2  # trained once per call


def test_hierarchical_scores_every_node_of_the_tree_by_its_name(fit, task, pixels, backbone):
    metrics = hierarchical(fit, task, 4, draw_seed=1)
    assert list(metrics) == ["leaf", "hca", "mta", "top"] and len(fit.calls) == 1
    method, tree = pixels(backbone).fit(*task.few_shot(4, 1)), taxonomy_of(task.class_names)
    scores = method.for_classes(tree.names).logits(task.test)  # (N, V)
    labels = task.test.labels
    assert metrics["leaf"] == top1(scores[:, tree.leaf_cut], labels)
    assert metrics["hca"] == hierarchical_consistent_accuracy(scores, labels, tree) <= metrics["leaf"]
    assert metrics["top"] == top1(scores[:, tree.top_cut], tree.cut_labels(tree.top_cut)[labels])
    assert metrics["mta"] == mean_treecut_accuracy(scores, labels, tree)


@pytest.mark.parametrize("targets", ["toy2", (), ("toy",)])
def test_wrong_targets(fit, task, targets):
    with pytest.raises(ValueError, match="targets must be a list"):
        cross_task(fit, task, 4, 1, targets=targets)
    with pytest.raises(ValueError, match="no task 'nowhere'"):
        cross_task(fit, task, 4, 1, targets=("nowhere",))
    assert not fit.calls  # found out before training


def test_a_method_that_cannot_move_says_so(task, pixels, backbone):
    with pytest.raises(ValueError, match="pixels cannot"):
        base_to_new(lambda train, val: pixels(backbone, movable=False).fit(train, val), task, 2, 1)


def test_evaluate_refuses_other_classes(fit, task):
    with pytest.raises(ValueError, match="other classes than the method"):
        evaluate(fit(*task.few_shot(2, 1)), task.base_to_new()[0].test)


def test_global_random_state_is_untouched(fit, task):
    state = torch.get_rng_state()
    base_to_new(fit, task, 2, 1, split_seed=0)
    assert torch.equal(torch.get_rng_state(), state)
