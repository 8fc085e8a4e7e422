"""Taxonomies: a tree over the class names of a task, and the label sets that a cut through the tree makes.

The leaves are the classes, the nodes above them coarser names, the root stands for "anything" and has no name. A
*treecut* is a set of nodes such that every leaf has exactly one of them on its way to the root (itself included): the
leaves alone are one, the children of the root are another. As a label set it asks for part of the classes finely, for
others coarsely (ProTeCt, Wu et al., CVPR 2024, arXiv 2306.02240).

    treecut at random: z_n ~ Bernoulli(1 - beta) for each internal node n, z_root = 1. Go down from the root; open a
    node where z_n = 1, else it stays closed and is a label. Leaves reached are labels.
    number of treecuts: T(leaf) = 1, T(n) = 1 + product of T over the children; the root without the 1

Nodes are numbered 0 ... V-1 depth first, without the root, which is -1. Internal nodes (I of them) are listed with the
root first. Two nodes may share a name only where one is above the other ("bird > bird"): these never compete.

The task "taxonomy" has seen concepts of the world as its classes and their tree group > subgroup > concept; its labels
are the leaves, so it is an ordinary single-label task for whoever does not look at the tree.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from vlmcourse.tasks.base import Task
from vlmcourse.tasks.emoji import Family, build_task, classes_of
from vlmcourse.tasks.registry import register_task
from vlmcourse.world.concepts import load_concepts

ROOT = -1
RATES = (0.9, 0.7, 0.5, 0.3, 0.1)  # beta of the treecuts that MTA averages over


@dataclass(frozen=True)
class Taxonomy:
    """names (V): of the nodes. parents (V): number of each node's parent, ROOT for the highest ones. leaves (L): the
    node of each class, in the order of the labels. Built by `from_paths` or `taxonomy_of`."""

    names: tuple[str, ...]
    parents: tuple[int, ...]
    leaves: tuple[int, ...]

    @classmethod
    def from_paths(cls, paths: Sequence[Sequence[str]]) -> "Taxonomy":
        """The tree of one path of names per class, from the top down to the class itself, in the order of the labels.

        ValueError for no or empty paths, a class twice or above another, and names that could compete with each other.
        """
        tree: dict = {}
        for path in paths:
            if isinstance(path, str) or not path or not all(isinstance(name, str) and name.strip() for name in path):
                raise ValueError(f"paths: {path!r} must be a list of names, from the top down to a class")
            node = tree
            for name in path:
                node = node.setdefault(name, {})
        if not tree:
            raise ValueError("paths=[] must have at least one path")
        names, parents, number = [], [], {}

        def walk(node: dict, parent: int, path: tuple) -> None:
            for name, below in node.items():
                number[(*path, name)] = len(names)
                names.append(name)
                parents.append(parent)
                walk(below, number[(*path, name)], (*path, name))

        walk(tree, ROOT, ())
        leaves = [number[tuple(path)] for path in paths]
        inner = [names[leaf] for leaf in leaves if leaf in parents]
        if inner or len(set(leaves)) < len(leaves):
            twice = inner or [names[leaf] for leaf in leaves if leaves.count(leaf) > 1]
            raise ValueError(f"paths: {twice[0]!r} must be one class and stand above no other class")
        taxonomy = cls(tuple(names), tuple(parents), tuple(leaves))
        for v, name in enumerate(names):
            for u in range(v):
                if names[u] == name and u not in taxonomy.ancestors(v):
                    raise ValueError(f"paths: {name!r} names two nodes that may compete; give one another name")
        return taxonomy

    @property
    def num_leaves(self) -> int:
        return len(self.leaves)

    @property
    def class_names(self) -> tuple[str, ...]:
        return tuple(self.names[leaf] for leaf in self.leaves)

    @cached_property
    def internal(self) -> tuple[int, ...]:
        """(I,) the nodes with children, ROOT first."""
        return (ROOT, *(v for v in range(len(self.names)) if v in self.parents))

    @cached_property
    def _children(self) -> dict[int, list[int]]:
        children: dict[int, list[int]] = {}
        for v, parent in enumerate(self.parents):
            children.setdefault(parent, []).append(v)
        return children

    def children(self, node: int) -> list[int]:
        """The nodes right below a node; none below a leaf."""
        return self._children.get(node, [])

    def ancestors(self, node: int) -> list[int]:
        """The nodes above a node, nearest first, ROOT last."""
        above = []
        while node != ROOT:
            node = self.parents[node]
            above.append(node)
        return above

    def name(self, node: int) -> str:
        return "root" if node == ROOT else self.names[node]

    @cached_property
    def depth(self) -> int:
        """Decisions on the longest way from the root to a leaf."""
        return max(len(self.ancestors(leaf)) for leaf in self.leaves)

    @cached_property
    def under(self) -> Tensor:
        """(V, L) bool: class y is node v or below it (the official code's "codewords")."""
        under = torch.zeros(len(self.names), self.num_leaves, dtype=torch.bool)
        for y, leaf in enumerate(self.leaves):
            under[[leaf, *self.ancestors(leaf)[:-1]], y] = True
        return under

    @cached_property
    def branch(self) -> Tensor:
        """(L, I) long: which child of internal node n leads to class y, as a position in children(n); -1: none does."""
        branch = torch.full((self.num_leaves, len(self.internal)), -1)
        for i, node in enumerate(self.internal):
            position, label = self.under[self.children(node)].nonzero(as_tuple=True)
            branch[label, i] = position
        return branch

    @cached_property
    def competitors(self) -> Tensor:
        """(I, K) long: the children of each internal node, filled up with -1; K the largest number of children."""
        rows = [torch.tensor(self.children(node)) for node in self.internal]
        return torch.nn.utils.rnn.pad_sequence(rows, batch_first=True, padding_value=-1)

    @property
    def leaf_cut(self) -> Tensor:
        """(L,) the classes themselves, in the order of the labels."""
        return torch.tensor(self.leaves)

    @property
    def top_cut(self) -> Tensor:
        """The children of the root."""
        return torch.tensor(self.children(ROOT))

    def cut(self, opened: Sequence[bool] | Tensor) -> Tensor:
        """The treecut (n,), in the order of the nodes: internal node i is opened if opened[i], the root always is."""
        opened = dict(zip(self.internal, torch.as_tensor(opened).tolist(), strict=True)) | {ROOT: True}
        labels, waiting = [], [ROOT]
        while waiting:
            node = waiting.pop()
            if opened.get(node, False):
                waiting.extend(self.children(node))
            else:
                labels.append(node)
        return torch.tensor(sorted(labels))

    def random_cut(self, beta: float, draw: torch.Generator) -> Tensor:
        """A treecut (n,) at random: each internal node but the root stays closed with probability beta."""
        return self.cut(torch.rand(len(self.internal), generator=draw) >= beta)

    def cut_labels(self, cut: Tensor) -> Tensor:
        """(L,) long: the position in a treecut of the node that stands for each class. ValueError for no treecut."""
        chosen = self.under[cut]  # (n, L)
        if not (chosen.sum(dim=0) == 1).all():
            missed = self.class_names[int((chosen.sum(dim=0) != 1).nonzero()[0])]
            raise ValueError(f"cut={cut.tolist()} is no treecut: {missed!r} must have exactly one node in it")
        return chosen.to(torch.uint8).argmax(dim=0)

    def sample_cuts(self, rates: Sequence[float] = RATES, each: int = 5, seed: int = 0) -> list[Tensor]:
        """`each` treecuts per rate beta, all different, the same for equal seeds; fewer where the tree has too few."""
        draw, cuts = torch.Generator().manual_seed(seed), {}
        for beta in rates:
            wanted, tries = len(cuts) + each, 0
            while len(cuts) < min(wanted, self.num_cuts) and tries < 1000:
                cut = self.random_cut(beta, draw)
                cuts.setdefault(tuple(cut.tolist()), cut)
                tries += 1
        return list(cuts.values())

    @cached_property
    def num_cuts(self) -> int:
        """How many treecuts there are."""

        def count(node: int) -> int:
            below = math.prod(count(child) for child in self.children(node))
            return below + (node != ROOT and bool(self.children(node)))

        return count(ROOT)


def taxonomy_of(class_names: Sequence[str]) -> Taxonomy:
    """The part of the concept tree above these classes; a name that is no concept hangs directly below the root."""
    known = {concept.name: concept.path for concept in load_concepts()}
    return Taxonomy.from_paths([known.get(name, (name,)) for name in class_names])


CLUSTERS, PER_SUBGROUP = 8, (2, 4)  # drawings that a class needs for 4 shots; classes of a subgroup, least and most


def _classes() -> tuple[str, ...]:
    kept: dict[tuple, list[str]] = {}
    for concept in classes_of(Family("", "", clusters=CLUSTERS)):
        kept.setdefault(concept.path[:2], []).append(concept.name)
    least, most = PER_SUBGROUP
    return tuple(name for names in kept.values() if len(names) >= least for name in names[:most])


@register_task("taxonomy")
def taxonomy_task() -> Task:
    """Up to four seen concepts of each subgroup that has two with enough drawings for 4 shots."""
    what = (
        "Seen concepts with at least 8 look-alike clusters of held-out drawings, two to four of each subgroup, for up "
        "to 4 shots. The tree above them, group > subgroup > concept, is "
        "vlmcourse.tasks.taxonomy.taxonomy_of(task.class_names)."
    )
    return build_task("taxonomy", Family("Taxonomy", what, classes=_classes(), clusters=CLUSTERS))
