"""DualCoOp: its loss, aggregation, the two prompts, partial labels, new classes, the flags of DualCoOp++, errors."""

import pytest
import torch
import torch.nn.functional as F

from vlmcourse.backbone.features import image_features
from vlmcourse.methods.baselines.zero_shot_multi_label import ZeroShotMultiLabel
from vlmcourse.methods.text_prompts.dualcoop import DualCoOp, asymmetric_loss

NAMES = ("tabby cat", "dog", "hot air balloon", "red_fox")
SHORT = {"n_ctx": 2, "epochs": 3, "batch_size": 8}


@pytest.fixture(scope="module")
def train(multi_label):
    return multi_label(24, seed=1, name="train")


@pytest.fixture(scope="module")
def test_split(multi_label):
    return multi_label(16, seed=2, name="test")


def test_the_loss_golden_values():
    absent, present = torch.tensor([[0.0, 1.0, -2.0, 3.0]]), torch.tensor([[1.0, 0.0, 2.0, -1.0]])
    loss = asymmetric_loss(present - absent, torch.tensor([[1, 0, -1, 0]]))
    assert loss.item() == pytest.approx(0.0960941, abs=1e-6)
    assert asymmetric_loss(torch.zeros(1, 2), torch.tensor([[1, 0]])).item() == pytest.approx(0.467636, abs=1e-5)
    x = torch.tensor([[[0.3, -1, 2], [1, 0.5, -0.5]], [[0, 0.2, -0.4], [0, -0.3, 1.5]]])  # rows: negative, positive
    y = torch.tensor([[1, 0, -1], [0, -1, 1]])
    assert asymmetric_loss(x[:, 1] - x[:, 0], y).item() == pytest.approx(1.1326885750, abs=1e-6)


def test_the_loss_knows_nothing_of_unknown_labels_and_forgives_sure_negatives():
    margin = torch.tensor([[2.0, -1.0, 0.5]], requires_grad=True)
    asymmetric_loss(margin, torch.tensor([[-1, 1, -1]])).backward()
    assert margin.grad[0, [0, 2]].tolist() == [0, 0] and margin.grad[0, 1] < 0
    assert asymmetric_loss(torch.tensor([[-3.0]]), torch.tensor([[0]])).item() == 0  # q >= 0.95
    assert asymmetric_loss(torch.tensor([[0.0]]), torch.tensor([[-1]])).item() == 0
    plain = asymmetric_loss(margin.detach(), torch.tensor([[1, 0, 1]]), gamma_pos=0.0, gamma_neg=0.0, clip=0.0)
    expected = F.binary_cross_entropy_with_logits(margin.detach(), torch.tensor([[1.0, 0, 1]]), reduction="sum")
    torch.testing.assert_close(plain, expected)


def test_logits_by_hand(tower, train, test_split):
    method = DualCoOp(tower, **SHORT, spatial_scale=7.0).fit(train)
    v = F.normalize(image_features(tower, test_split, encoder=method.encoder, normalise=False), dim=-1)
    text = {role: method.prompts[2].encode(ctx) for role, ctx in method.ctx.items()}
    for i, c in ((0, 0), (3, 2)):
        present, absent = v[i] @ text["pos"][c], v[i] @ text["neg"][c]
        a = (7.0 * present).softmax(dim=0)
        expected = tower.logit_scale * ((a * present).sum() - (a * absent).sum())
        torch.testing.assert_close(method.logits(test_split)[i, c], expected, atol=1e-4, rtol=0)
        torch.testing.assert_close(method.attention(test_split)[i, c], a, atol=1e-5, rtol=0)
    probabilities = method.probabilities(test_split)
    torch.testing.assert_close(probabilities, method.scores(test_split).sigmoid())
    assert torch.equal(method.predict(test_split), probabilities > 0.5)
    assert 0 <= method.score(test_split) <= 1


def test_equal_prompts_know_nothing(vit_backbone, train, test_split):
    method = DualCoOp(vit_backbone, ctx_init=("a photo of a", "a photo of a"), epochs=0).fit(train)
    assert (method.probabilities(test_split) - 0.5).abs().max() < 1e-5


def test_words_at_the_start_are_the_dual_hand_prompt(vit_backbone, train, test_split):
    words = "a photo of a", "there is no"
    method = DualCoOp(vit_backbone, ctx_init=words, epochs=0).fit(train)
    hand = ZeroShotMultiLabel(vit_backbone, templates=words[0] + " {}.", negative=words[1] + " {}.").fit(train)
    torch.testing.assert_close(method.logits(test_split), hand.logits(test_split), atol=1e-4, rtol=0)
    one = DualCoOp(vit_backbone, ctx_init=(words[0], None), **SHORT).fit(train)
    assert one.ctx["pos"].shape[0] == 4 and one.ctx["neg"].shape[0] == 2


def test_only_the_contexts_learn_and_the_loss_falls(tower, multi_label):
    train = multi_label(32, seed=3)
    before = {name: tensor.clone() for name, tensor in tower.model.state_dict().items()}
    method = DualCoOp(tower, n_ctx=4, epochs=12, batch_size=16, lr=0.001, logit_scale=2.0).fit(train)
    assert method.history["loss"][-1] < method.history["loss"][0]
    assert all(torch.equal(tensor, before[name]) for name, tensor in tower.model.state_dict().items())
    assert all(p.grad is None for p in tower.model.parameters())
    assert set(method.learned_parameters()) == {"ctx_neg", "ctx_pos"} and method.n_learned == 2 * 4 * tower.text_width


def test_unknown_labels_do_not_teach(vit_backbone, train):
    hidden = train.hide_labels(0.4, 5)
    other = hidden.labels.clone()
    flipped = type(train)(train.images, torch.where(hidden.known, other, -1), NAMES, train.templates)
    one, two = (DualCoOp(vit_backbone, **SHORT).fit(split).ctx for split in (hidden, flipped))
    assert all(torch.equal(one[role], two[role]) for role in one)
    full = DualCoOp(vit_backbone, **SHORT).fit(train).ctx
    assert (full["pos"] - one["pos"]).abs().max() > 0


def test_a_shared_context_moves_to_new_names_and_csc_does_not(vit_backbone, train, test_split):
    method = DualCoOp(vit_backbone, **SHORT).fit(train)
    moved = method.for_classes(["yak", NAMES[1]])
    torch.testing.assert_close(moved.logits(test_split)[:, 1], method.logits(test_split)[:, 1], atol=1e-4, rtol=0)
    assert moved.attention(test_split).shape[:2] == (16, 2)
    csc = DualCoOp(vit_backbone, csc=True, **SHORT).fit(train)
    assert csc.ctx["pos"].shape == (4, 2, vit_backbone.text_width)
    assert torch.equal(csc.for_classes([NAMES[2], NAMES[0]]).logits(test_split), csc.logits(test_split)[:, [2, 0]])
    with pytest.raises(ValueError, match="'yak'"):
        csc.for_classes(["yak"])


def test_random_classes_per_batch(vit_backbone, train):
    for csc in (False, True):
        method = DualCoOp(vit_backbone, max_classes=2, csc=csc, **SHORT).fit(train)
        assert torch.isfinite(method.logits(train)).all()
    two = method.text_features(torch.tensor([3, 1]))["pos"]
    torch.testing.assert_close(two, method.text["pos"][[3, 1]], atol=1e-5, rtol=0)


def test_the_evidence_context_weighs_both_prompts(tower, train, test_split):
    method = DualCoOp(tower, region_weight="evidence", **SHORT).fit(train)
    assert set(method.ctx) == {"neg", "pos", "evidence"}
    v = F.normalize(image_features(tower, test_split, encoder=method.encoder, normalise=False), dim=-1)
    a = (20.0 * torch.einsum("bne,ce->bcn", v, method.text["evidence"])).softmax(dim=-1)
    torch.testing.assert_close(method.attention(test_split), a, atol=1e-5, rtol=0)


def test_the_winner_takes_all_within_a_region(vit_backbone, train):
    method = DualCoOp(vit_backbone, winner_take_all=True, epochs=0, spatial_scale=0.0).fit(train)
    text = {"pos": torch.eye(16)[:2], "neg": torch.eye(16)[2:4]}
    region = F.normalize(torch.tensor([[[0.8, 0.5] + [0.0] * 14]]), dim=-1)  # both classes, the first one more
    _, present, _ = method._read(region, text)
    plain = region[0, 0, :2]
    assert present[0, 0] == pytest.approx(plain[0].item()) and present[0, 1].abs() < 1e-6


def test_the_recipe_is_the_papers(vit_backbone, train, monkeypatch):
    seen = {}

    def spy(parameters, loss_fn, n, **settings):
        seen.update(settings, n=n, shapes=[tuple(p.shape) for p in parameters])
        return {}

    monkeypatch.setattr("vlmcourse.training.fit", spy)
    method = DualCoOp(vit_backbone, seed=3).fit(train)
    assert (method.spatial_scale, method.loss_weight) == (20.0, 0.03)
    assert seen.pop("shapes") == [(16, 32)] * 2
    assert seen == {
        "n": 24, "epochs": 50, "seed": 3, "progress": False,
        "lr": 2e-3, "batch_size": 32, "momentum": 0.9, "weight_decay": 5e-4, "warmup_epochs": 1,
    }  # fmt: skip


def test_seeds_and_odd_batches(vit_backbone, train, test_split):
    one, again, other = (DualCoOp(vit_backbone, seed=s, **SHORT).fit(train).logits(test_split) for s in (1, 1, 2))
    assert torch.equal(one, again) and (one - other).abs().max() > 1e-5
    for size in (1, 7, 100):
        method = DualCoOp(vit_backbone, n_ctx=1, epochs=1, batch_size=size).fit(train)
        assert torch.isfinite(method.logits(test_split.images[:1])).all()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"region_weight": "both"}, "region_weight='both'"),
        ({"n_ctx": 0}, "n_ctx=0"),
        ({"max_classes": 1.5}, "max_classes=1.5"),
        ({"loss_weight": -1}, "loss_weight=-1"),
        ({"clip": float("inf")}, "clip=inf"),
        ({"ctx_init": "a photo"}, "ctx_init='a photo'"),
        ({"ctx_init": ("a", "b"), "csc": True}, "csc=False"),
        ({"path": "nowhere"}, "path='nowhere'"),
    ],
)
def test_bad_arguments_are_named(vit_backbone, arguments, message):
    with pytest.raises(ValueError, match=message):
        DualCoOp(vit_backbone, **arguments)


def test_wrong_splits_and_no_fit(vit_backbone, splits, train):
    with pytest.raises(TypeError, match="must be a MultiLabelSplit"):
        DualCoOp(vit_backbone).fit(splits())
    with pytest.raises(RuntimeError, match="fit"):
        DualCoOp(vit_backbone).attention(train)
    method = DualCoOp(vit_backbone, **SHORT).fit(train)
    with pytest.raises(TypeError, match="split=Split must be"):
        method.score(splits())
    assert method.score(train.keep_classes([2, 0])) >= 0
