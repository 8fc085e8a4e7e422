"""Leaf accuracy, HCA and MTA: golden values, plain loops, torchmetrics, bounds."""

import pytest
import torch
from torchmetrics.functional.classification import multiclass_accuracy

from vlmcourse.evaluation.hierarchy import (
    ELSEWHERE,
    consistent,
    decisions,
    hierarchical_consistent_accuracy,
    leaf_accuracy,
    mean_treecut_accuracy,
    treecut_accuracy,
)
from vlmcourse.tasks.taxonomy import ROOT, Taxonomy

AB = [("A", "a1"), ("A", "a2"), ("B", "b1"), ("B", "b2"), ("B", "b3")]
DEEP = [("p", "q", "r"), ("p", "q", "s"), ("p", "t"), ("u",), ("v", "w", "x", "y"), ("v", "w", "z"), ("v", "k")]


@pytest.fixture
def tree():
    return Taxonomy.from_paths(AB)


@pytest.fixture
def golden():
    """Scores in the order A, a1, a2, B, b1, b2, b3, and the classes a1, b2, a2."""
    scores = torch.tensor([[2.0, 3, 2, 0, 0, 0, 1], [2, 0, 0, 1, 1, 4, 3], [2, 3, 2, 0, 0, 0, 1]])
    return scores, torch.tensor([0, 3, 1])


def test_golden_values(tree, golden):
    assert leaf_accuracy(*golden, tree) == pytest.approx(2 / 3)
    assert hierarchical_consistent_accuracy(*golden, tree) == pytest.approx(1 / 3)
    assert consistent(*golden, tree).tolist() == [True, False, False]
    for cut, accuracy in (([0, 3], 2 / 3), ([0, 4, 5, 6], 1.0), ([1, 2, 3], 2 / 3)):
        assert treecut_accuracy(*golden, tree, torch.tensor(cut)) == pytest.approx(accuracy)
    cuts = [torch.tensor(cut) for cut in ([0, 3], [0, 4, 5, 6], [1, 2, 3], [1, 2, 4, 5, 6])]
    assert mean_treecut_accuracy(*golden, tree, cuts) == pytest.approx(0.75)
    assert mean_treecut_accuracy(*golden, tree) == pytest.approx(0.75), "all four cuts of this tree"
    assert decisions(*golden, tree).tolist() == [[1, 1, ELSEWHERE], [0, ELSEWHERE, 1], [1, 0, ELSEWHERE]]


def by_loops(scores, labels, paths):
    """(leaf, HCA) from the paths alone, without any table of the tree."""
    tree: dict = {}
    for path in paths:
        below = tree
        for name in path:
            below = below.setdefault(name, {})

    def walk(below, path=()):
        for name, deeper in below.items():
            yield (*path, name)
            yield from walk(deeper, (*path, name))

    names = list(walk(tree))  # depth first, as the columns of the scores
    column = {prefix: i for i, prefix in enumerate(names)}
    leaf = hca = 0
    for row, y in zip(scores.tolist(), labels.tolist(), strict=True):
        path = tuple(paths[y])
        best = max(paths, key=lambda p: row[column[tuple(p)]])
        right = tuple(best) == path
        on_path = True
        for n in range(len(path)):
            siblings = [p for p in names if len(p) == n + 1 and p[:n] == path[:n]]
            on_path &= max(siblings, key=lambda p: row[column[p]]) == path[: n + 1]
        leaf, hca = leaf + right, hca + (right and on_path)
    return leaf / len(labels), hca / len(labels)


@pytest.mark.parametrize("paths", [AB, DEEP, DEEP[::-1]])
def test_equal_to_plain_loops(paths):
    tree = Taxonomy.from_paths(paths)
    draw = torch.Generator().manual_seed(0)
    labels = torch.randint(0, len(paths), (200,), generator=draw)
    on_path = tree.under.T[labels].float()
    scores = torch.randn(200, len(tree.names), generator=draw) + 1.5 * on_path
    leaf, hca = by_loops(scores, labels, paths)
    assert leaf_accuracy(scores, labels, tree) == pytest.approx(leaf)
    assert hierarchical_consistent_accuracy(scores, labels, tree) == pytest.approx(hca)
    assert 0.1 < hca < leaf < 0.95
    which = decisions(scores, labels, tree)
    single = [(column[column >= 0] == 1).double().mean().item() for column in which.T]
    assert hca <= (which[:, 0] == 1).double().mean().item() and tree.internal[0] == ROOT
    lonely = [i for i, node in enumerate(tree.internal) if len(tree.children(node)) == 1]
    assert all(single[i] == 1 for i in lonely) and (bool(lonely) == (paths is not AB))


def test_equal_to_torchmetrics(tree):
    draw = torch.Generator().manual_seed(1)
    scores, labels = torch.randn(60, 7, generator=draw), torch.randint(0, 5, (60,), generator=draw)
    for cut, target in (([1, 2, 4, 5, 6], [0, 1, 2, 3, 4]), ([0, 4, 5, 6], [0, 0, 1, 2, 3]), ([0, 3], [0, 0, 1, 1, 1])):
        right = torch.tensor(target)[labels]
        expected = multiclass_accuracy(scores[:, cut], right, num_classes=len(cut), average="micro").item()
        assert treecut_accuracy(scores, labels, tree, torch.tensor(cut)) == pytest.approx(expected)


def test_a_perfect_classifier_is_perfect_everywhere_and_a_flat_tree_has_one_decision(tree):
    labels = torch.arange(5)
    scores = tree.under.T.float()
    for metric in (leaf_accuracy, hierarchical_consistent_accuracy, mean_treecut_accuracy):
        assert metric(scores, labels, tree) == 1
    flat = Taxonomy.from_paths([("x",), ("y",), ("z",)])
    scores, labels = torch.tensor([[1.0, 2, 0], [3, 1, 0]]), torch.tensor([1, 2])
    assert leaf_accuracy(scores, labels, flat) == hierarchical_consistent_accuracy(scores, labels, flat) == 0.5
    assert mean_treecut_accuracy(scores, labels, flat) == 0.5


def test_wrong_arguments(tree, golden):
    scores, labels = golden
    with pytest.raises(ValueError, match=r"scores must be \(N, 7\).*\(3, 5\)"):
        leaf_accuracy(scores[:, :5], labels, tree)
    with pytest.raises(ValueError, match=r"labels must lie in 0..4, got 0..6"):
        hierarchical_consistent_accuracy(scores, torch.tensor([0, 6, 1]), tree)
    with pytest.raises(ValueError, match="N >= 1"):
        leaf_accuracy(scores, labels[:2], tree)
    with pytest.raises(ValueError, match="at least one treecut"):
        mean_treecut_accuracy(scores, labels, tree, [])
