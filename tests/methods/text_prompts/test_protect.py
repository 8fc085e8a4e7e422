"""ProTeCt: its two losses against golden values and plain loops, the host as a special case, schedules, both hosts."""

import math

import pytest
import torch
import torch.nn.functional as F

from vlmcourse.backbone.features import image_features
from vlmcourse.methods import get_method
from vlmcourse.methods.text_prompts.coop import CoOp
from vlmcourse.methods.text_prompts.protect import ProTeCt, ProTeCtMaPLe, node_centric_loss, treecut_loss
from vlmcourse.methods.text_visual_prompts.maple import MaPLe
from vlmcourse.tasks.taxonomy import Taxonomy, taxonomy_of

AB = Taxonomy.from_paths([("A", "a1"), ("A", "a2"), ("B", "b1"), ("B", "b2"), ("B", "b3")])
PETS = Taxonomy.from_paths(  # over the classes of the synthetic splits
    [("animal", "pet", "tabby cat"), ("animal", "pet", "dog"), ("hot air balloon",), ("animal", "red_fox")]
)
SHORT = {"epochs": 5, "batch_size": 8, "lr": 0.01}
HOSTS = {"coop": (ProTeCt, CoOp), "maple": (ProTeCtMaPLe, MaPLe)}


def test_golden_values_of_the_losses():
    zeros, labels = torch.zeros(2, 7), torch.tensor([0, 3])  # a1, b2
    node, leaf = node_centric_loss(zeros, labels, AB), treecut_loss(zeros, labels, AB, AB.leaf_cut)
    assert node.item() == pytest.approx((2 * math.log(2) + math.log(3)) / 3) == pytest.approx(0.828302)
    assert leaf.item() == pytest.approx(math.log(5)) and (leaf + 0.5 * node).item() == pytest.approx(2.023589)
    assert node_centric_loss(zeros[:1], labels[:1], AB).item() == pytest.approx(math.log(2))
    assert treecut_loss(zeros, labels, AB, torch.tensor([0, 4, 5, 6])).item() == pytest.approx(math.log(4))


@pytest.mark.parametrize("tree", [AB, PETS])
def test_the_losses_equal_plain_loops_and_gradients_are_finite(tree):
    draw = torch.Generator().manual_seed(0)
    scores = (3 * torch.randn(9, len(tree.names), generator=draw)).requires_grad_()
    labels = torch.randint(0, tree.num_leaves, (9,), generator=draw)
    means = []
    for node in tree.internal:
        children = tree.children(node)
        terms = []
        for b, y in enumerate(labels.tolist()):
            path = (tree.leaves[y], *tree.ancestors(tree.leaves[y]))
            if node in path[1:]:
                right = next(k for k, child in enumerate(children) if child in path)
                terms.append(-scores[b, children].log_softmax(0)[right])
        if terms:
            means.append(sum(terms) / len(terms))
    loss = node_centric_loss(scores, labels, tree)
    torch.testing.assert_close(loss, sum(means) / len(means))
    loss.backward()
    assert torch.isfinite(scores.grad).all() and scores.grad.abs().sum() > 0
    cut = tree.random_cut(0.5, draw)
    terms = []
    for b, y in enumerate(labels.tolist()):
        path = (tree.leaves[y], *tree.ancestors(tree.leaves[y]))
        terms.append(-scores[b, cut].log_softmax(0)[next(k for k, v in enumerate(cut.tolist()) if v in path)])
    torch.testing.assert_close(treecut_loss(scores, labels, tree, cut), sum(terms) / 9)


@pytest.mark.parametrize("name", HOSTS)
def test_without_closed_nodes_and_node_loss_it_is_the_host(vit_backbone, train, test_split, name):
    cls, host = HOSTS[name]
    same = {**SHORT, "momentum": 0.0, "weight_decay": 0.0}
    ours = cls(vit_backbone, taxonomy=PETS, beta=0.0, weight=0.0, warmup_epochs=0, **same).fit(train)
    theirs = host(vit_backbone, warmup_epochs=0, **same).fit(train)
    assert ours.n_learned == theirs.n_learned, "no parameter belongs to the tree"
    torch.testing.assert_close(ours.ctx, theirs.ctx, atol=1e-5, rtol=0)
    torch.testing.assert_close(ours.logits(test_split), theirs.logits(test_split), atol=1e-3, rtol=0)


def test_a_flat_tree_counts_the_leaf_loss_one_plus_weight_times(vit_backbone, train):
    flat = Taxonomy.from_paths([(name,) for name in train.class_names])
    method = ProTeCt(vit_backbone, taxonomy=flat, weight=0.7, epochs=0).fit(train)
    features = image_features(vit_backbone, train)
    loss, parts = method._loss(features, train.labels)
    expected = F.cross_entropy(vit_backbone.logit_scale * features @ method.text.T, train.labels)
    torch.testing.assert_close(parts["treecut"], expected)
    torch.testing.assert_close(loss, 1.7 * expected)


@pytest.mark.parametrize("name", HOSTS)
def test_fitting_lowers_both_losses(vit_backbone, splits, name):
    train = splits(per_class=8, seed=1)
    method = HOSTS[name][0](vit_backbone, taxonomy=PETS, epochs=15, batch_size=16, lr=0.05).fit(train)
    history = method.history
    assert history["loss"][-1] < history["loss"][0] - 0.05 and history["node"][-1] < history["node"][0]
    both = [t + 0.5 * n for t, n in zip(history["treecut"], history["node"], strict=True)]
    assert history["loss"] == pytest.approx(both, abs=1e-4)
    assert all(p.grad is None for p in vit_backbone.model.parameters())


def test_a_resnet_does_for_the_coop_host_and_not_for_maple(resnet_backbone, train):
    assert ProTeCt(resnet_backbone, taxonomy=PETS, **SHORT).fit(train).logits(train).shape == (16, 4)
    with pytest.raises(ValueError, match="needs a ViT"):
        ProTeCtMaPLe(resnet_backbone)


def test_the_tree_is_the_concepts_unless_given(vit_backbone, train, splits):
    method = ProTeCt(vit_backbone, epochs=1).fit(train)
    assert method.taxonomy == taxonomy_of(train.class_names) and "animals" in method.taxonomy.names
    assert method.node_prompts.embeddings.shape[0] == len(method.taxonomy.names)
    with pytest.raises(ValueError, match="same in the same order"):
        ProTeCt(vit_backbone, taxonomy=AB).fit(train)


@pytest.mark.parametrize("name", HOSTS)
def test_any_label_set_is_scored_by_its_names(vit_backbone, train, test_split, name):
    method = HOSTS[name][0](vit_backbone, taxonomy=PETS, **SHORT).fit(train)
    nodes = method.for_classes(PETS.names).logits(test_split)  # (N, V)
    torch.testing.assert_close(nodes[:, PETS.leaf_cut], method.logits(test_split), atol=1e-4, rtol=0)
    again = HOSTS[name][0](vit_backbone, taxonomy=PETS, **SHORT).fit(train)
    assert torch.equal(again.logits(test_split), method.logits(test_split)), "equal seeds, equal treecuts"
    other = HOSTS[name][0](vit_backbone, taxonomy=PETS, beta=0.9, **SHORT).fit(train)
    assert not torch.equal(other.ctx, method.ctx)


def test_the_two_schedules(vit_backbone, train):
    epochs, steps = 6, 2  # 16 images in batches of 8
    base = {"taxonomy": PETS, "epochs": epochs, "batch_size": 8}
    rates = ProTeCt(vit_backbone, **base).fit(train).history["lr"]
    assert rates == pytest.approx([1e-3] + [0.01 * (1 + math.cos(math.pi * e / epochs)) for e in range(epochs - 1)])
    wave = ProTeCt(vit_backbone, schedule="wave", **base).fit(train).history["lr"]
    last = [steps * e + 1 for e in range(epochs)]
    assert wave == pytest.approx([0.01 * (1 + math.cos(math.pi * (t - 1) / epochs)) for t in last])
    assert min(wave) < 0.003 and wave[-1] > 0.01, "down, and up again"


def test_the_waves_golden_values(vit_backbone):
    rate = ProTeCt(vit_backbone, schedule="wave").recipe["schedule"]
    expected = {0: 1e-3, 1: 0.02, 100: 0.0101571, 201: 0.0, 401: 0.02, 2599: 4.9e-6}
    for step, value in expected.items():
        assert rate(step, 2600) == pytest.approx(value, abs=5e-7)


def test_the_recipes(vit_backbone):
    coop, maple = ProTeCt(vit_backbone), ProTeCtMaPLe(vit_backbone)
    for method, batch in ((coop, 128), (maple, 8)):
        assert method.recipe == {
            "lr": 0.02, "batch_size": batch, "momentum": 0.0, "weight_decay": 0.0, "warmup_epochs": 1,
            "warmup_lr": 1e-3,
        }  # fmt: skip
        assert method.epochs == 200 and method.beta == 0.1 and method.weight == 0.5
    assert coop.n_ctx == 16 and maple.n_ctx == 2 and maple.depth == 3
    assert get_method("protect") is ProTeCt and get_method("protect_maple") is ProTeCtMaPLe


def test_bad_arguments_are_named(vit_backbone):
    for arguments, message in (
        ({"beta": 1.5}, "beta=1.5 must be between 0 and 1"),
        ({"beta": True}, "beta=True"),
        ({"weight": -1}, "weight=-1 must be"),
        ({"schedule": "step"}, "schedule='step' must be one of"),
        ({"taxonomy": {}}, "taxonomy=dict must be a Taxonomy"),
        ({"csc": True}, "csc=True must be False"),
    ):
        with pytest.raises(ValueError, match=message):
            ProTeCt(vit_backbone, **arguments)
