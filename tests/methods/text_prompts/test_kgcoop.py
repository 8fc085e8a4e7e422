"""KgCoOp: its loss, the ends of the weight (CoOp and the hand prompt), the recipe, transfer, errors."""

import pytest
import torch
import torch.nn.functional as F

from vlmcourse.backbone.features import image_features
from vlmcourse.methods.baselines.zero_shot import ZeroShot
from vlmcourse.methods.class_text import class_features
from vlmcourse.methods.text_prompts.coop import CoOp
from vlmcourse.methods.text_prompts.kgcoop import KgCoOp

PHOTO, SATELLITE = "a photo of a {}.", "a centered satellite photo of {}."
SHORT = {"epochs": 6, "lr": 0.01, "batch_size": 8}


def untrained(backbone, train, **arguments):
    """A KgCoOp at its first step, its context open for gradients."""
    method = KgCoOp(backbone, epochs=0, **arguments).fit(train)
    method.ctx = method.ctx.requires_grad_()
    return method


def test_weight_zero_is_coop(tower, train, test_split):
    same = {"ctx_init": "a photo of a", **SHORT}
    one, two = KgCoOp(tower, weight=0, **same).fit(train), CoOp(tower, **same).fit(train)
    torch.testing.assert_close(one.ctx, two.ctx, atol=1e-6, rtol=0)
    torch.testing.assert_close(one.logits(test_split), two.logits(test_split), atol=1e-4, rtol=0)


def test_the_loss_is_cross_entropy_plus_the_weighted_distance(vit_backbone, train):
    method = untrained(vit_backbone, train, ctx_init=None, n_ctx=3, weight=5.0, templates=(PHOTO, SATELLITE))
    features = image_features(vit_backbone, train)
    loss, parts = method._loss(features, train.labels)
    text, hand = method.text_features(), class_features(vit_backbone, train.class_names, (PHOTO, SATELLITE))
    expected = F.cross_entropy(vit_backbone.logit_scale * features @ text.T, train.labels)
    distance = sum(1 - F.cosine_similarity(t, g, dim=0) for t, g in zip(text, hand, strict=True)) / len(text)
    torch.testing.assert_close(parts["cross_entropy"], expected)
    torch.testing.assert_close(parts["distance"], distance)
    torch.testing.assert_close(loss, expected + 5.0 * distance)
    assert 0 < distance.item() < 2


def test_the_distance_starts_at_zero_where_the_hand_prompt_is_the_start(tower, train):
    for template, least in ((PHOTO, 0.0), (SATELLITE, 1e-3)):
        method = untrained(tower, train, templates=template)
        distance = method.distance_to_hand(method.text_features())
        (gradient,) = torch.autograd.grad(distance, [method.ctx])
        if least:
            assert distance.item() > least and gradient.abs().max() > 1e-3
        else:
            assert abs(distance.item()) < 1e-6 and gradient.abs().max() < 1e-5
        assert method.hand_distance() == pytest.approx(distance.item(), abs=1e-6)


def test_the_papers_distance_is_twice_the_codes(vit_backbone, train, test_split):
    at_start = {d: untrained(vit_backbone, train, templates=SATELLITE, distance=d) for d in ("cosine", "squared")}
    text = at_start["squared"].text_features()
    squared = at_start["squared"].distance_to_hand(text)
    torch.testing.assert_close(squared, (text - at_start["squared"].hand).square().sum(dim=-1).mean())
    torch.testing.assert_close(squared, 2 * at_start["cosine"].distance_to_hand(text))
    code = KgCoOp(vit_backbone, weight=8.0, distance="cosine", **SHORT).fit(train)
    paper = KgCoOp(vit_backbone, weight=4.0, distance="squared", **SHORT).fit(train)
    torch.testing.assert_close(code.ctx, paper.ctx, atol=1e-6, rtol=0)


def test_the_larger_the_weight_the_closer_to_the_hand_prompt(vit_backbone, train, test_split):
    runs = [KgCoOp(vit_backbone, weight=w, templates=PHOTO, epochs=15, lr=5e-4).fit(train) for w in (0, 8, 50)]
    distances = [run.hand_distance() for run in runs]
    assert distances[0] > 1.5 * distances[1] and distances[1] > 1.5 * distances[2]
    zero_shot = ZeroShot(vit_backbone, templates=PHOTO).fit(train).logits(test_split)
    gaps = [(run.logits(test_split) - zero_shot).abs().mean().item() for run in runs]
    assert gaps[0] > gaps[1] > gaps[2]


def test_the_distance_alone_leads_back_to_the_hand_prompt(vit_backbone, train):
    start = KgCoOp(vit_backbone, ctx_init=None, n_ctx=4, templates=PHOTO, epochs=0).fit(train).hand_distance()
    pulled = KgCoOp(
        vit_backbone, ctx_init=None, n_ctx=4, templates=PHOTO, weight=1000.0, epochs=60, lr=2e-4, weight_decay=0.0
    ).fit(train)
    assert pulled.hand_distance() < 0.5 * start


def test_fitting_lowers_the_loss_and_only_changes_the_context(tower, splits):
    train = splits(per_class=8, seed=1)
    before = {name: tensor.clone() for name, tensor in tower.model.state_dict().items()}
    method = KgCoOp(tower, epochs=12, lr=0.002, batch_size=16, weight=2.0).fit(train)
    history = method.history
    assert history["loss"][-1] < history["loss"][0] - 0.03
    assert history["loss"] == pytest.approx(
        [ce + 2.0 * d for ce, d in zip(history["cross_entropy"], history["distance"], strict=True)], abs=1e-4
    )
    assert all(torch.equal(tensor, before[name]) for name, tensor in tower.model.state_dict().items())
    assert all(p.grad is None for p in tower.model.parameters())
    assert list(method.learned_parameters()) == ["ctx"] and method.n_learned == 4 * tower.text_width


def test_the_recipe_is_the_papers(vit_backbone, train, monkeypatch):
    seen = {}

    def spy(parameters, loss_fn, n, **settings):
        seen.update(settings, n=n, shapes=[tuple(p.shape) for p in parameters])
        return {}

    monkeypatch.setattr("vlmcourse.training.fit", spy)
    method = KgCoOp(vit_backbone, seed=3).fit(train)
    assert method.weight == 8.0 and method.distance == "cosine"
    seen.pop("on_epoch")
    assert seen.pop("shapes") == [(4, vit_backbone.text_width)]
    assert seen == {
        "n": 16, "epochs": 100, "seed": 3, "progress": False,
        "lr": 2e-3, "batch_size": 128, "momentum": 0.9, "weight_decay": 5e-4, "warmup_epochs": 1,
    }  # fmt: skip


def test_inference_is_coops(vit_backbone, train, test_split):
    method = KgCoOp(vit_backbone, **SHORT).fit(train)
    text = method.prompts.encode(method.ctx)
    expected = vit_backbone.logit_scale * image_features(vit_backbone, test_split) @ text.T
    torch.testing.assert_close(method.logits(test_split), expected, atol=1e-4, rtol=0)
    method.hand = None  # not needed any more
    torch.testing.assert_close(method.logits(test_split), expected, atol=1e-4, rtol=0)


def test_hand_prompts_are_the_splits_unless_given(vit_backbone, train):
    names = train.class_names
    own, given = KgCoOp(vit_backbone, epochs=0).fit(train), KgCoOp(vit_backbone, epochs=0, templates=PHOTO).fit(train)
    assert own.templates == train.templates and given.templates == (PHOTO,)
    assert torch.equal(own.hand, class_features(vit_backbone, names, train.templates))
    assert torch.equal(given.hand, class_features(vit_backbone, names, PHOTO))


def test_the_context_moves_to_other_classes(vit_backbone, train, test_split):
    method = KgCoOp(vit_backbone, **SHORT).fit(train)
    before = method.logits(test_split), method.hand_distance()
    moved = method.for_classes(["a very long name of a class", "dog"], (SATELLITE,))
    assert moved.class_names == ("a very long name of a class", "dog") and torch.equal(moved.ctx, method.ctx)
    torch.testing.assert_close(moved.logits(test_split)[:, 1], before[0][:, 1], atol=1e-4, rtol=0)
    assert torch.equal(moved.hand, class_features(vit_backbone, moved.class_names, SATELLITE))
    expected = 1 - (moved.text * moved.hand).sum(dim=-1).mean().item()
    assert moved.hand_distance() == pytest.approx(expected, abs=1e-6)
    assert torch.equal(method.logits(test_split), before[0]) and method.hand_distance() == before[1]


@pytest.mark.parametrize("batch_size", [1, 3, 100])
@pytest.mark.parametrize("views", [1, 3, None])
def test_odd_batches_and_every_kind_of_view(tower, train, batch_size, views):
    method = KgCoOp(tower, epochs=1, batch_size=batch_size, views=views).fit(train)
    assert len(method.history["loss"]) == 1 and torch.isfinite(method.ctx).all()


def test_the_modes_of_coop_work_too(vit_backbone, train):
    for arguments in ({"class_token_position": "middle"}, {"ctx_init": None, "n_ctx": 2, "csc": True}):
        method = KgCoOp(vit_backbone, **SHORT, **arguments).fit(train)
        assert method.history["distance"][-1] > 0


def test_seeds(vit_backbone, train, test_split):
    def run(seed):
        return KgCoOp(vit_backbone, ctx_init=None, n_ctx=2, views=None, seed=seed, **SHORT).fit(train)

    torch.manual_seed(0)
    one = run(1).logits(test_split)
    torch.manual_seed(1)
    assert torch.equal(one, run(1).logits(test_split))
    assert (one - run(2).logits(test_split)).abs().max() > 1e-4


def test_forward_and_loss_stay_on_the_backbones_device(tower, fake_cuda):
    backbone = fake_cuda(tower)
    method = KgCoOp(backbone)
    method.class_names = ("cat", "hot air balloon")
    method.hand = class_features(backbone, method.class_names, PHOTO)
    method.prompts, method.ctx = method._prompts(method.class_names), method._initial_context().requires_grad_()
    features, labels = torch.randn(3, backbone.embed_dim, device="cuda"), torch.zeros(3, device="cuda").long()
    loss, parts = method._loss(features, labels)
    assert loss.requires_grad and {t.device.type for t in (loss, *parts.values())} == {"cuda"}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"weight": -1}, "weight=-1"),
        ({"weight": float("nan")}, "weight=nan"),
        ({"weight": "8"}, "weight='8'"),
        ({"distance": "l1"}, "distance='l1'"),
        ({"templates": "a photo"}, "a photo"),
        ({"csc": True}, "csc=True and ctx_init='a photo of a'"),
        ({"lr": 0}, "lr=0"),
    ],
)
def test_bad_arguments_are_named(vit_backbone, train, arguments, message):
    with pytest.raises(ValueError, match=message):
        KgCoOp(vit_backbone, **arguments).fit(train)


def test_before_fit(vit_backbone):
    with pytest.raises(RuntimeError, match="fit"):
        KgCoOp(vit_backbone).hand_distance()
