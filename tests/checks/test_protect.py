"""The checks of 14_protect accept the solutions and answer typical wrong attempts with a hint, without raising."""

import pytest
import torch

from vlmcourse.checks.protect import check_cut_labels, check_hca, check_node_loss


def labels(under):
    return under.int().argmax(dim=0)


def node_loss(losses, below):
    count = below.sum(0)
    return (torch.where(below, losses, 0.0).sum(0)[count > 0] / count[count > 0]).mean()


def hca(leaf_right, decisions):
    return (leaf_right & (decisions != 0).all(dim=1)).float().mean()


@pytest.mark.parametrize(
    ("check", "solution"), [(check_cut_labels, labels), (check_node_loss, node_loss), (check_hca, hca)]
)
def test_solutions_pass(check, solution, capsys):
    assert check(solution) is True
    assert capsys.readouterr().out.startswith("✓ ")


def test_the_references_are_the_packages():
    from vlmcourse.evaluation.hierarchy import decisions, hierarchical_consistent_accuracy
    from vlmcourse.methods.text_prompts.protect import node_centric_loss
    from vlmcourse.tasks.taxonomy import Taxonomy

    tree = Taxonomy.from_paths([("A", "a1"), ("A", "a2"), ("B", "b1"), ("B", "b2")])
    draw = torch.Generator().manual_seed(0)
    scores, y = torch.randn(6, 6, generator=draw), torch.tensor([0, 1, 2, 0, 3, 2])
    right = scores[:, tree.leaf_cut].argmax(1) == y
    assert float(hca(right, decisions(scores, y, tree))) == pytest.approx(
        hierarchical_consistent_accuracy(scores, y, tree)
    )
    branch = tree.branch[y]
    among = torch.stack([-scores[:, tree.children(n)].log_softmax(1) for n in tree.internal], dim=1)  # (B, I, 2)
    losses = among.gather(-1, branch.clamp(min=0)[..., None])[..., 0]
    torch.testing.assert_close(node_loss(losses, branch >= 0), node_centric_loss(scores, y, tree))
    cut = torch.tensor([0, 4, 5])
    assert torch.equal(labels(tree.under[cut]), tree.cut_labels(cut))


WRONG = [
    (check_cut_labels, lambda u: None, "returns None"),
    (check_cut_labels, lambda u: u.nonzero()[:, 0], "in the order of the tree"),
    (check_cut_labels, lambda u: u.int().argmax(dim=1), "per class"),
    (check_cut_labels, lambda u: u, "expected"),
    (check_cut_labels, 3, "pass the function itself"),
    (check_node_loss, lambda x, b: None, "returns None"),
    (check_node_loss, lambda x, b: x[b].mean(), "all pairs"),
    (check_node_loss, lambda x, b: (torch.where(b, x, 0.0).sum(0) / b.sum(0).clamp(min=1)).mean(), "must not count"),
    (check_node_loss, lambda x, b: (torch.where(b, x, 0.0).sum(0) / b.sum(0)).mean(), "0 / 0"),
    (check_node_loss, lambda x, b: 2 * node_loss(x, b), "sum over the nodes"),
    (check_node_loss, lambda x, b: x.mean(), "average over the images below"),
    (check_hca, lambda r, d: None, "returns None"),
    (check_hca, lambda r, d: (d != 0).all(1).float().mean(), "right among the classes"),
    (check_hca, lambda r, d: (r & (d == 1).all(1)).float().mean(), "-1 means"),
    (check_hca, lambda r, d: r.float().mean(), "leaf accuracy"),
    (check_hca, lambda r, d: 1.0, "here 0.4"),
]


@pytest.mark.parametrize(("check", "wrong", "hint"), WRONG)
def test_wrong_attempts_get_a_hint(check, wrong, hint, capsys):
    assert check(wrong) is False
    said = capsys.readouterr().out
    assert said.startswith("✗ not yet: ") and hint in said
