"""SubPT and NFL: the subspace against scikit-learn's PCA, the projected step by hand, degenerate settings, errors."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from sklearn.decomposition import PCA

from vlmcourse.backbone.features import image_features
from vlmcourse.methods.class_text import class_features
from vlmcourse.methods.text_prompts.coop import CoOp
from vlmcourse.methods.text_prompts.subpt import SubPT, principal_directions, project

NOVEL = ("yak", "paper boat", "green_tea")
SMALL = {"n_ctx": 2, "epochs": 8, "lr": 0.05, "batch_size": 8}


def points(t=9, P=20, seed=0):
    return torch.randn(t, P, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("r", [1, 3, 8])
def test_directions_are_those_of_scikit_learn(r):
    trajectory = points() * torch.linspace(3, 0.1, 20)  # distinct variances
    basis, explained = principal_directions(trajectory, r)
    expected = PCA(r, svd_solver="full").fit(trajectory.double().numpy())
    cosines = np.abs((basis.double().numpy() * expected.components_).sum(1))  # signs are free
    assert cosines == pytest.approx(np.ones(r), abs=1e-6)
    assert explained.numpy() == pytest.approx(expected.explained_variance_ratio_, abs=1e-9)


def test_basis_is_orthonormal_and_shares_descend():
    basis, explained = principal_directions(points(), 8)
    torch.testing.assert_close(basis @ basis.T, torch.eye(8), atol=1e-6, rtol=0)
    assert (explained.diff() <= 0).all() and explained.sum() == pytest.approx(1)  # t - 1 directions hold everything
    assert principal_directions(points(), 3)[1].sum() < 1


def test_directions_do_not_depend_on_where_the_trajectory_lies():
    one, two = principal_directions(points(), 4)[0], principal_directions(points() + 5, 4)[0]
    torch.testing.assert_close(one.T @ one, two.T @ two, atol=1e-5, rtol=0)


def test_projection_is_idempotent_and_shortens(generator):
    basis, _ = principal_directions(points(P=12), 4)
    gradient = torch.randn(3, 4, generator=generator)
    once = project(gradient, basis)
    assert once.shape == gradient.shape and once.norm() < gradient.norm()
    torch.testing.assert_close(project(once, basis), once, atol=1e-6, rtol=0)
    torch.testing.assert_close(project(gradient, torch.eye(12)), gradient)
    torch.testing.assert_close(basis @ (gradient - once).flatten(), torch.zeros(4), atol=1e-5, rtol=0)


def test_stage_one_is_the_start_of_coop(tower, train):
    method = SubPT(tower, t_early=4, r=2, **SMALL).fit(train)
    seen = []

    class Watched(CoOp):
        def _after_epoch(self, epoch, history):
            seen.append(self.ctx.detach().flatten().clone())

    Watched(tower, **SMALL).fit(train)
    assert method.early.shape == (4, 2 * tower.text_width) and len(seen) == 8
    assert torch.equal(method.early, torch.stack(seen[:4])), "the schedule is that of all epochs"
    assert method.trajectory.shape == (8, 2 * tower.text_width) and len(method.history["loss"]) == 8


def test_without_weight_decay_training_stays_in_the_subspace(tower, train):
    method = SubPT(tower, t_early=4, r=2, weight_decay=0.0, **SMALL).fit(train)
    moved = method.trajectory - CoOp(tower, n_ctx=2, epochs=0).fit(train).ctx.flatten()
    outside = moved - moved @ method.basis.T @ method.basis
    assert moved[-1].norm() > 1e-2 and outside.norm() < 1e-4 * moved.norm()
    decayed = SubPT(tower, t_early=4, r=2, weight_decay=0.1, **SMALL).fit(train)
    moved = decayed.trajectory - CoOp(tower, n_ctx=2, epochs=0).fit(train).ctx.flatten()
    outside = moved - moved @ decayed.basis.T @ decayed.basis
    assert outside.norm() > 1e-3 * moved.norm(), "weight decay acts behind the projection"


def test_the_first_steps_are_projected_gradients_of_coops_loss(vit_backbone, train):
    arguments = {"n_ctx": 2, "epochs": 3, "lr": 0.05, "batch_size": len(train), "momentum": 0.0, "weight_decay": 0.0}
    method = SubPT(vit_backbone, t_early=3, r=2, **arguments).fit(train)
    ctx = CoOp(vit_backbone, n_ctx=2, epochs=0).fit(train).ctx
    features, prompts = image_features(vit_backbone, train), method.prompts
    for epoch in range(3):  # one batch per epoch
        ctx = ctx.detach().requires_grad_()
        loss = F.cross_entropy(vit_backbone.logit_scale * features @ prompts.encode(ctx).T, train.labels)
        (gradient,) = torch.autograd.grad(loss, ctx)
        step = (gradient.flatten() @ method.basis.T @ method.basis).reshape(ctx.shape)
        ctx = ctx.detach() - method.history["lr"][epoch] * step
        torch.testing.assert_close(method.trajectory[epoch], ctx.flatten(), atol=1e-5, rtol=0)


def test_a_full_basis_is_coop(vit_backbone, train):
    arguments = {"n_ctx": 1, "epochs": 40, "lr": 0.05, "momentum": 0.0, "batch_size": 16}
    P = vit_backbone.text_width
    method = SubPT(vit_backbone, t_early=40, r=P, **arguments)
    coop = CoOp(vit_backbone, **arguments).fit(train)
    method.fit(train)
    torch.testing.assert_close(method.basis.T @ method.basis, torch.eye(P), atol=1e-5, rtol=0)
    torch.testing.assert_close(method.ctx, coop.ctx, atol=1e-3, rtol=0)


def test_without_projection_and_novel_names_it_is_coop(tower, train, test_split):
    plain, coop = SubPT(tower, projection=False, **SMALL).fit(train), CoOp(tower, **SMALL).fit(train)
    assert torch.equal(plain.logits(test_split), coop.logits(test_split)) and plain.history == coop.history
    assert plain.basis is None and plain.trajectory.shape == (8, 2 * tower.text_width)
    torch.testing.assert_close(plain.after_epoch(8).logits(test_split), coop.logits(test_split))


@pytest.mark.parametrize("position", ["end", "middle", "front"])
def test_nfl_with_weight_zero_is_coop(vit_backbone, train, test_split, position):
    arguments = SMALL | {"class_token_position": position}
    nfl = SubPT(vit_backbone, projection=False, novel_names=NOVEL, nfl_weight=0, **arguments).fit(train)
    coop = CoOp(vit_backbone, **arguments).fit(train)
    torch.testing.assert_close(nfl.logits(test_split), coop.logits(test_split), atol=2e-3, rtol=0)


def test_nfl_term_is_zero_at_its_target_and_as_written(tower, train):
    words = {"ctx_init": "a photo of a", "epochs": 0, "projection": False, "novel_names": NOVEL}
    method = SubPT(tower, nfl_templates="a photo of a {}.", **words).fit(train)
    features = image_features(tower, train)[:3]
    loss, parts = method._loss(features, train.labels[:3])
    assert float(parts["nfl"]) == pytest.approx(0, abs=1e-6) and float(loss) == pytest.approx(float(parts["ce"]))

    method = SubPT(tower, nfl_weight=3.0, **words).fit(train)  # the split's templates
    loss, parts = method._loss(features, train.labels[:3])
    w = tower.encode_text([f"a photo of a {n.replace('_', ' ')}." for n in NOVEL])
    z = class_features(tower, NOVEL, train.templates)
    expected = 1 - F.cosine_similarity(w, z, dim=-1).mean()
    assert expected > 1e-4 and float(parts["nfl"]) == pytest.approx(float(expected), abs=1e-6)
    assert float(loss) == pytest.approx(float(parts["ce"] + 3 * parts["nfl"]))
    ce = F.cross_entropy(method.logits(features), train.labels[:3])
    assert float(parts["ce"]) == pytest.approx(float(ce), abs=1e-5)


def test_nfl_keeps_the_novel_names_nearer_to_zero_shot(vit_backbone, splits):
    train, distances = splits(per_class=8, seed=1), []
    for weight in (0.0, 20.0):
        method = SubPT(vit_backbone, novel_names=NOVEL, nfl_weight=weight, t_early=4, r=3, **SMALL).fit(train)
        distances.append(method.history["nfl"][-1])
        assert len(method.history["ce"]) == 8
    assert distances[1] < 0.8 * distances[0]


def test_fitting_lowers_the_loss_and_changes_only_the_context(tower, splits):
    before = {name: tensor.clone() for name, tensor in tower.model.state_dict().items()}
    method = SubPT(tower, n_ctx=4, epochs=12, lr=0.001, batch_size=16).fit(splits(per_class=8, seed=1))
    assert method.history["loss"][-1] < method.history["loss"][0] - 0.03
    assert all(torch.equal(tensor, before[name]) for name, tensor in tower.model.state_dict().items())
    assert all(p.grad is None for p in tower.model.parameters())
    assert method.n_learned == 4 * tower.text_width and list(method.learned_parameters()) == ["ctx"]


@pytest.mark.parametrize(
    ("shots", "expected"), [(1, (10, 5)), (2, (20, 10)), (4, (30, 10)), (8, (40, 10)), (16, (50, 10))]
)
def test_defaults_are_the_papers(vit_backbone, splits, shots, expected):
    assert SubPT(vit_backbone)._early_epochs(splits(shots)) == expected


def test_own_numbers_of_epochs_keep_the_papers_share(vit_backbone, train):
    assert SubPT(vit_backbone, epochs=10)._early_epochs(train) == (3, 2)
    assert SubPT(vit_backbone, epochs=40, r=4)._early_epochs(train) == (12, 4)
    assert SubPT(vit_backbone, epochs=10, r=5)._early_epochs(train) == (6, 5), "as many epochs as r needs"


def test_stage_two_starts_where_it_is_told(vit_backbone, train):
    arguments = SMALL | {"t_early": 3, "r": 2, "warmup_epochs": 0}
    random, resumed = (SubPT(vit_backbone, start=s, **arguments) for s in ("random", "first_epoch"))
    random.fit(train), resumed.fit(train)
    assert torch.equal(random.early, resumed.early)
    assert torch.equal(random._initial_context(), CoOp(vit_backbone, n_ctx=2, epochs=0).fit(train).ctx)
    assert torch.equal(resumed._initial_context().flatten(), resumed.early[0])
    assert not torch.equal(random.ctx, resumed.ctx)


def test_equal_seeds_give_equal_results_and_a_second_fit_starts_afresh(vit_backbone, train, test_split):
    one = SubPT(vit_backbone, seed=1, novel_names=NOVEL, **SMALL).fit(train)
    first = one.logits(test_split)
    assert torch.equal(one.fit(train).logits(test_split), first)
    other = SubPT(vit_backbone, seed=2, novel_names=NOVEL, **SMALL).fit(train)
    assert (other.logits(test_split) - first).abs().max() > 1e-4


@pytest.mark.parametrize("batch_size", [1, 3, 100])
def test_odd_batches_views_and_class_specific_context(tower, train, batch_size):
    arguments = {"n_ctx": 2, "epochs": 4, "t_early": 3, "r": 2, "batch_size": batch_size}
    for more in ({"views": 2}, {"csc": True}, {"class_token_position": "middle", "novel_names": ["yak"]}):
        method = SubPT(tower, **arguments, **more).fit(train)
        assert torch.isfinite(method.ctx).all() and method.basis.shape == (2, method.ctx.numel())


def test_the_context_moves_to_other_classes_at_any_epoch(vit_backbone, train, test_split):
    method = SubPT(vit_backbone, **SMALL).fit(train)
    moved = method.for_classes(["a long name of a class", "dog"])
    torch.testing.assert_close(moved.logits(test_split)[:, 1], method.logits(test_split)[:, 1], atol=1e-4, rtol=0)
    early = method.after_epoch(1)
    assert torch.equal(early.ctx.flatten(), method.trajectory[0]) and not torch.equal(early.ctx, method.ctx)
    torch.testing.assert_close(
        moved.after_epoch(1).logits(test_split)[:, 1], early.logits(test_split)[:, 1], atol=1e-4, rtol=0
    )
    torch.testing.assert_close(method.after_epoch(8).logits(test_split), method.logits(test_split))


def test_projection_and_loss_stay_on_the_backbones_device(tower, fake_cuda):
    backbone = fake_cuda(tower)
    method = SubPT(backbone, n_ctx=4, novel_names=NOVEL)
    method.class_names = ("cat", "dog")
    method.prompts = method._prompts(method.class_names)
    method.all_prompts = method._prompts((*method.class_names, *NOVEL))
    method.zero_shot = class_features(backbone, NOVEL, "a {}")
    method.ctx = method._initial_context().requires_grad_()
    features, labels = torch.randn(3, backbone.embed_dim, device="cuda"), torch.zeros(3, device="cuda").long()
    loss, parts = method._loss(features, labels)
    assert loss.device.type == parts["nfl"].device.type == "cuda"
    basis, _ = principal_directions(torch.randn(5, method.ctx.numel(), device="cuda"), 3)
    assert project(method.ctx, basis).device.type == "cuda"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"t_early": 1}, "t_early=1"),
        ({"t_early": 9}, "t_early=9 must not be larger than the 8 epochs"),
        ({"t_early": 4, "r": 4}, "r=4 must be a whole number from 1 to 3"),
        ({"r": 0}, "r=0"),
        ({"r": 2.0}, "r=2.0"),
        ({"novel_names": "yak"}, "novel_names='yak'"),
        ({"novel_names": ["yak"], "csc": True}, "csc=True and novel_names"),
        ({"nfl_weight": -1}, "nfl_weight=-1"),
        ({"nfl_weight": float("nan")}, "nfl_weight=nan"),
        ({"nfl_templates": "no place"}, "templates: 'no place'"),
        ({"start": "last"}, "start='last'"),
        ({"epochs": 1}, "t_early=2 must not be larger than the 1 epochs"),
    ],
)
def test_bad_arguments_are_named(vit_backbone, train, arguments, message):
    with pytest.raises(ValueError, match=message):
        SubPT(vit_backbone, **(SMALL | arguments)).fit(train)


def test_bad_epochs_are_named(vit_backbone, train):
    method = SubPT(vit_backbone, **SMALL)
    with pytest.raises(RuntimeError, match="fit"):
        method.after_epoch(1)
    method.fit(train)
    for epoch in (0, 9, 1.5):
        with pytest.raises(ValueError, match=f"epoch={epoch}"):
            method.after_epoch(epoch)
    with pytest.raises(TypeError, match="n_context"):
        SubPT(vit_backbone, n_context=3)


def test_half_precision_backbones(make_backbone, train, test_split):
    backbone = make_backbone("vit").to(dtype=torch.bfloat16)
    method = SubPT(backbone, novel_names=NOVEL, **SMALL).fit(train)
    assert method.ctx.dtype == method.basis.dtype == torch.float32
    assert torch.isfinite(method.logits(test_split)).all()
