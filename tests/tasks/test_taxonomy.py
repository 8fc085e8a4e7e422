"""Trees over class names: numbering, tables, treecuts and their probabilities; the task "taxonomy"."""

import itertools
from collections import Counter

import pytest
import torch

from vlmcourse.tasks import get_task, list_tasks
from vlmcourse.tasks.emoji import FAMILIES
from vlmcourse.tasks.taxonomy import ROOT, Taxonomy, taxonomy_of
from vlmcourse.world.concepts import load_concepts

AB = [("A", "a1"), ("A", "a2"), ("B", "b1"), ("B", "b2"), ("B", "b3")]
ZOO = [("animal", "bird", "robin"), ("animal", "bird", "crow"), ("animal", "cat"), ("vehicle", "car"),
       ("vehicle", "truck", "pickup"), ("vehicle", "truck", "lorry")]  # fmt: skip


@pytest.fixture
def tree():
    return Taxonomy.from_paths(AB)


@pytest.fixture
def zoo():
    return Taxonomy.from_paths(ZOO)


def words(tree, cut):
    return [tree.name(int(v)) for v in cut]


def all_cuts(tree):
    """Every treecut, by opening every subset of the internal nodes."""
    subsets = itertools.product((False, True), repeat=len(tree.internal))
    return {tuple(tree.cut(opened).tolist()) for opened in subsets}


def test_nodes_are_numbered_depth_first(tree):
    assert tree.names == ("A", "a1", "a2", "B", "b1", "b2", "b3")
    assert tree.parents == (ROOT, 0, 0, ROOT, 3, 3, 3) and tree.leaves == (1, 2, 4, 5, 6)
    assert tree.internal == (ROOT, 0, 3) and tree.children(ROOT) == [0, 3] and tree.children(1) == []
    assert tree.ancestors(5) == [3, ROOT] and tree.depth == 2 and tree.class_names == ("a1", "a2", "b1", "b2", "b3")
    assert tree.name(ROOT) == "root" and tree.name(3) == "B"


def test_tables_have_the_golden_values(tree):
    assert tree.branch.tolist() == [[0, 0, -1], [0, 1, -1], [1, -1, 0], [1, -1, 1], [1, -1, 2]]
    assert tree.under.int().tolist() == [
        [1, 1, 0, 0, 0], [1, 0, 0, 0, 0], [0, 1, 0, 0, 0], [0, 0, 1, 1, 1], [0, 0, 1, 0, 0], [0, 0, 0, 1, 0],
        [0, 0, 0, 0, 1],
    ]  # fmt: skip
    assert tree.competitors.tolist() == [[0, 3, -1], [1, 2, -1], [4, 5, 6]]


def test_cuts_and_their_labels(tree):
    assert all_cuts(tree) == {(0, 3), (0, 4, 5, 6), (1, 2, 3), (1, 2, 4, 5, 6)} and tree.num_cuts == 4
    assert tree.cut_labels(torch.tensor([0, 4, 5, 6])).tolist() == [0, 0, 1, 2, 3]
    assert tree.cut_labels(tree.top_cut).tolist() == [0, 0, 1, 1, 1]
    assert tree.cut_labels(tree.leaf_cut).tolist() == [0, 1, 2, 3, 4]
    for wrong in ([0], [0, 1, 3], [1, 2]):
        with pytest.raises(ValueError, match="is no treecut: '.*' must have exactly one node"):
            tree.cut_labels(torch.tensor(wrong))


def test_probabilities_of_the_four_cuts(tree):
    draw, n = torch.Generator().manual_seed(0), 4000
    seen = Counter(tuple(tree.random_cut(0.1, draw).tolist()) for _ in range(n))
    expected = {(1, 2, 4, 5, 6): 0.81, (0, 4, 5, 6): 0.09, (1, 2, 3): 0.09, (0, 3): 0.01}
    for cut, p in expected.items():
        assert seen[cut] / n == pytest.approx(p, abs=4 * (p * (1 - p) / n) ** 0.5)


def test_probabilities_in_a_deeper_tree(zoo):
    draw, n = torch.Generator().manual_seed(1), 4000
    seen = Counter(tuple(words(zoo, zoo.random_cut(0.5, draw))) for _ in range(n))
    assert seen["animal", "vehicle"] / n == pytest.approx(1 / 4, abs=0.03)
    assert seen[("robin", "crow", "cat", "car", "pickup", "lorry")] / n == pytest.approx(1 / 16, abs=0.02)
    assert len(seen) == zoo.num_cuts == len(all_cuts(zoo)) == 9


@pytest.mark.parametrize("paths", [AB, ZOO, [("x",), ("y",)], AB[::-1], [ZOO[i] for i in (4, 0, 3, 5, 2, 1)]])
def test_every_cut_gives_every_class_one_label(paths):
    tree = Taxonomy.from_paths(paths)
    for cut in all_cuts(tree):
        labels = tree.cut_labels(torch.tensor(cut))
        for y, leaf in enumerate(tree.leaves):
            assert cut[labels[y]] in (leaf, *tree.ancestors(leaf))
    assert tree.class_names == tuple(path[-1] for path in paths)
    no, yes = torch.Generator().manual_seed(0), torch.Generator().manual_seed(0)
    assert sorted(tree.random_cut(0.0, no).tolist()) == sorted(tree.leaves)
    assert tree.random_cut(1.0, yes).tolist() == tree.top_cut.tolist()


def test_names_twice_only_above_each_other():
    tree = Taxonomy.from_paths([("bird", "bird"), ("bird", "crow"), ("cat",)])
    assert tree.names == ("bird", "bird", "crow", "cat") and tree.leaves == (1, 2, 3)
    for paths, message in (
        ([("A", "x"), ("B", "x")], "'x' names two nodes"),
        ([("A", "B", "x"), ("B", "y")], "'B' names two nodes"),
        ([("A", "x"), ("A", "x")], "'x' must be one class"),
        ([("A", "x"), ("A",)], "'A' must be one class and stand above no other"),
        ([], "at least one path"),
        ([("A", "x"), ()], r"\(\) must be a list of names"),
        (["x"], "'x' must be a list of names"),
    ):
        with pytest.raises(ValueError, match=message):
            Taxonomy.from_paths(paths)


def test_sampled_cuts_are_different_and_reproducible(zoo):
    tree = taxonomy_of([c.name for c in load_concepts()][::9])
    cuts = tree.sample_cuts()
    keys = [tuple(cut.tolist()) for cut in cuts]
    assert len(keys) == len(set(keys)) == 25
    assert keys == [tuple(cut.tolist()) for cut in tree.sample_cuts()]
    assert keys != [tuple(cut.tolist()) for cut in tree.sample_cuts(seed=1)]
    sizes = [len(cut) for cut in cuts]
    assert sum(sizes[:5]) < sum(sizes[10:15]) < sum(sizes[20:])
    assert {tuple(cut.tolist()) for cut in zoo.sample_cuts(each=9)} == all_cuts(zoo)
    assert len(Taxonomy.from_paths([("x",), ("y",)]).sample_cuts()) == 1


def test_the_concept_tree_above_some_classes():
    tree = taxonomy_of(["cat", "no concept at all", "dog", "beer"])
    assert words(tree, tree.top_cut) == ["animals", "no concept at all", "food"]
    assert tree.class_names == ("cat", "no concept at all", "dog", "beer") and tree.depth == 3
    whole = taxonomy_of([c.name for c in load_concepts()])
    assert whole.num_leaves == len(load_concepts()) and len(whole.top_cut) == len(load_concepts().tree())
    one = load_concepts()[0]
    leaf = whole.leaves[0]
    assert [whole.name(v) for v in (leaf, *whole.ancestors(leaf)[:-1])] == list(one.path)[::-1]


def test_the_task():
    task = get_task("taxonomy")
    tree = taxonomy_of(task.class_names)
    concepts = load_concepts()
    assert "taxonomy" in list_tasks() and "taxonomy" not in FAMILIES
    assert all(concepts.by_name(name).cut == "seen" for name in task.class_names)
    per_subgroup = Counter(concepts.by_name(name).path[:2] for name in task.class_names)
    assert set(per_subgroup.values()) <= {2, 3, 4} and len(per_subgroup) >= 20
    assert tree.class_names == task.class_names and tree.depth == 3 and len(tree.top_cut) >= 8
    train, val = task.few_shot(4, 1)
    assert train.counts.tolist() == [4] * 73 and val is not None
    assert task.kind == "single-label" and "group > subgroup > concept" in task.card and "openmoji" in task.domains
