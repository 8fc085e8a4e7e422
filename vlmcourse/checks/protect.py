"""Checks of notebooks/3_text_prompts/14_protect.ipynb: labels of a treecut, the node-centric loss, HCA."""

import torch

from vlmcourse.checks.report import attempt, close, report


def check_cut_labels(function) -> bool:
    """function: (under (n, L) bool: node of the cut k stands above class y) -> (L,) position of y's node in the cut."""
    cases = (
        torch.tensor([[1, 1, 0, 0, 0], [0, 0, 1, 0, 0], [0, 0, 0, 1, 0], [0, 0, 0, 0, 1]]).bool(),
        torch.tensor([[0, 1, 0, 0], [1, 0, 0, 1], [0, 0, 1, 0]]).bool(),  # classes in another order than the tree's
    )
    for number, under in enumerate(cases):
        value, problem = attempt(function, under.clone())
        if problem:
            return report(False, "", problem)
        if close(value, under.int().argmax(dim=0)):
            continue
        hint = f"expected {under.int().argmax(dim=0).tolist()}: for each column, the row in which it is True"
        if close(value, under.nonzero()[:, 0]):
            hint = "reading the rows one after the other is right only where the classes stand in the order of the tree"
        elif close(value, under.int().argmax(dim=1)):
            hint = "this gives one number per node of the cut; one per class is asked"
        return report(False, "", hint if number or not hint.startswith("reading") else "expected one number per class")
    return report(True, "right for any numbering of nodes and classes", "")


def check_node_loss(function) -> bool:
    """function: (losses (B, I), below (B, I) bool) -> mean over nodes with an image below of the mean over these."""
    draw = torch.Generator().manual_seed(0)
    losses = torch.rand(4, 3, generator=draw)
    below = torch.tensor([[1, 1, 0], [1, 1, 0], [1, 1, 0], [1, 0, 0]]).bool()  # nobody below the third node
    value, problem = attempt(function, losses.clone(), below.clone())
    if problem:
        return report(False, "", problem)
    masked = torch.where(below, losses, 0.0)
    per_node = masked.sum(0)[:2] / below.sum(0)[:2]
    hint = "average over the images below each node first, then over the nodes that have any"
    if close(value, masked.sum() / below.sum()):
        hint = "this averages over all pairs of image and node at once: nodes with many images would weigh more"
    elif close(value, per_node.sum() / 3):
        hint = "the third node has no image in this batch: it must not count in the mean"
    elif close(value, per_node.sum()):
        hint = "this is the sum over the nodes; their mean is asked"
    elif not close(value, value) or (isinstance(value, torch.Tensor) and bool(torch.isnan(value).any())):
        hint = "the result is not a number: a node without images gave 0 / 0"
    return report(close(value, per_node.mean()), "every node counts the same, however many images it has", hint)


def check_hca(function) -> bool:
    """function: (leaf_right (N,) bool, decisions (N, I): 1 right, 0 wrong, -1 not above the class) -> HCA."""
    leaf = torch.tensor([True, True, False, True, True])
    decisions = torch.tensor([[1, 1, -1], [0, -1, 1], [1, 1, -1], [1, -1, 1], [1, -1, 0]])
    value, problem = attempt(function, leaf.clone(), decisions.clone())
    if problem:
        return report(False, "", problem)
    hint = "expected the share of images that are right at the leaf and wrong nowhere on their path, here 0.4"
    if close(value, 0.6) and not close(value, 0.4):
        hint = "an image also has to be right among the classes"
    elif close(value, 0.0):
        hint = "-1 means that the node is not above the class: it cannot be wrong there"
    elif close(value, 0.8):
        hint = "this is the leaf accuracy; every node on the path has to be right, too"
    return report(close(value, 0.4), "one wrong turn anywhere and the image is lost", hint)
