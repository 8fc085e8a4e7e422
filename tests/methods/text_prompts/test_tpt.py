"""TPT: published numbers of selection and loss, the episode step by step, independence, starts, errors."""

import pytest
import torch
import torch.nn.functional as F

from vlmcourse.methods.baselines.zero_shot import ZeroShot
from vlmcourse.methods.context import ClassPrompts, words_context
from vlmcourse.methods.text_prompts.cocoop import CoCoOp
from vlmcourse.methods.text_prompts.coop import CoOp
from vlmcourse.methods.text_prompts.tpt import TPT, confident, entropy, marginal_entropy

Z = torch.tensor([[2, 0, -1], [0, 0, 0], [5, 1, 0], [1, 3, 0], [0.2, 0.1, 4]], dtype=torch.float64)


def test_selection_and_loss_give_the_published_numbers():
    expected = torch.tensor([0.524267, 1.098612, 0.129083, 0.524267, 0.198981])
    torch.testing.assert_close(entropy(Z).float(), expected, atol=1e-6, rtol=0)
    kept = confident(Z, 0.4)
    assert kept.tolist() == [2, 4]
    assert marginal_entropy(Z[kept]).item() == pytest.approx(0.7728042168, abs=1e-9)
    assert marginal_entropy(Z).item() == pytest.approx(1.0653656044, abs=1e-9)
    assert entropy(Z[kept]).mean().item() == pytest.approx(0.1640321860, abs=1e-9), "the mean of entropies is another"
    z = Z.clone().requires_grad_()
    marginal_entropy(z[kept]).backward()
    rows = [[-0.02874397, 0.02883277, -0.00008880], [-0.00101282, 0.03098408, -0.02997126]]
    torch.testing.assert_close(z.grad[kept], torch.tensor(rows, dtype=torch.float64), atol=1e-8, rtol=0)
    assert not z.grad[[0, 1, 3]].any() and z.grad.sum(1).abs().max() < 1e-12


def test_bounds_of_the_loss_and_equal_views(generator):
    z = 3 * torch.randn(4, 6, 5, generator=generator, dtype=torch.float64)
    mean, loss = entropy(z).mean(-1), marginal_entropy(z)
    assert (mean <= loss + 1e-12).all() and (loss <= torch.tensor(5.0).log() + 1e-12).all()
    same = z[:, :1].expand(-1, 6, -1)
    torch.testing.assert_close(marginal_entropy(same), entropy(z[:, 0]))
    assert torch.isfinite(marginal_entropy(1e4 * z)).all()


@pytest.mark.parametrize(("views", "kept"), [(64, 6), (32, 3), (16, 1), (10, 1), (9, 1), (1, 1)])
def test_at_least_one_view_is_kept(views, kept):
    assert confident(torch.randn(2, views, 3), 0.1).shape == (2, kept)


def naive(backbone, class_names, f, steps, lr=5e-3, keep=2):
    """The episode of one image f (V, E), written down without batches; returns logits (C,), context, kept."""
    ctx0 = words_context(backbone, "a photo of a")
    prompts, ctx = ClassPrompts(backbone, class_names, 4), ctx0.clone().requires_grad_()
    optimiser, kept = torch.optim.AdamW([ctx], lr=lr), None
    for _ in range(steps):
        z = backbone.logit_scale * f @ prompts.encode(ctx, share_prefix=False).T
        kept = z.softmax(1).log().mul(z.softmax(1)).sum(1).neg().argsort()[:keep] if kept is None else kept
        p = z[kept].softmax(1).mean(0)
        optimiser.zero_grad()
        (-(p * p.log()).sum()).backward()
        optimiser.step()
    return (backbone.logit_scale * f[0] @ prompts.encode(ctx).T).detach(), ctx.detach(), kept


@pytest.mark.parametrize("steps", [1, 3])
def test_episodes_equal_the_naive_one_image_by_image(tower, train, test_split, steps):
    method = TPT(tower, n_views=10, selection=0.2, steps=steps).fit(train)
    views = method.views(test_split.images[:6])
    episode = method.tune(views)
    for i, f in enumerate(views):
        logits, ctx, kept = naive(tower, train.class_names, f, steps)
        assert episode.kept[i].tolist() == kept.tolist()
        torch.testing.assert_close(episode.context[i], ctx, atol=2e-4, rtol=0)
        torch.testing.assert_close(episode.logits[i], logits, atol=2e-3, rtol=0)


def test_the_first_step_is_the_rate_in_every_coordinate(vit_backbone, train, test_split):
    """AdamW's first step is sign-like, whatever the loss is multiplied by."""
    method = TPT(vit_backbone, n_views=8, selection=0.5).fit(train)
    start = words_context(vit_backbone, "a photo of a")
    moved = (method.tune(test_split).context - start * (1 - 5e-3 * 0.01)).abs()
    assert (moved < 5e-3 + 1e-6).all() and (moved > 4.5e-3).float().mean() > 0.95


def test_an_image_is_answered_alike_alone_in_any_order_and_again(vit_backbone, train, test_split):
    method = TPT(vit_backbone, n_views=8, selection=0.3, steps=2, max_prompts=20).fit(train)  # 5 images at a time
    together = method.logits(test_split)
    order = torch.randperm(len(test_split), generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(method.logits(test_split.subset(order)), together[order], atol=2e-3, rtol=0)
    alone = TPT(vit_backbone, n_views=8, selection=0.3, steps=2, max_prompts=1).fit(train)  # one at a time
    torch.testing.assert_close(alone.logits(test_split), together, atol=2e-3, rtol=0)
    torch.testing.assert_close(method.logits(test_split.images[7:8])[0], together[7], atol=2e-3, rtol=0)
    assert torch.equal(method.logits(test_split), together), "nothing is carried over"
    other = TPT(vit_backbone, n_views=8, selection=0.3, steps=2, seed=1).fit(train)
    assert (other.logits(test_split) - together).abs().max() > 1e-3


def test_gradients_do_not_cross_images(vit_backbone, train, test_split):
    method = TPT(vit_backbone, n_views=6, selection=0.5).fit(train)
    f = method.views(test_split.images[:3])
    method.tune(f)
    ctx = method.start.expand(3, -1, -1).clone().requires_grad_()
    marginal_entropy(method._view_logits(f, ctx))[1].backward()
    assert ctx.grad[1].abs().max() > 0 and not ctx.grad[[0, 2]].any()


def test_no_step_is_zero_shot_and_tuning_lowers_the_loss(tower, train, test_split):
    zero_shot = ZeroShot(tower, templates="a photo of a {}.").fit(train)
    untuned = TPT(tower, n_views=4, steps=0).fit(train)
    torch.testing.assert_close(untuned.logits(test_split), zero_shot.logits(test_split), atol=1e-4, rtol=0)
    before = {name: tensor.clone() for name, tensor in tower.model.state_dict().items()}
    method = TPT(tower, n_views=8, selection=0.5, lr=1e-3).fit(train)
    episode = method.tune(test_split)
    assert episode.after.mean() < episode.before.mean()
    assert torch.equal(method.start, words_context(tower, "a photo of a")), "the start is never changed"
    assert all(torch.equal(tensor, before[name]) for name, tensor in tower.model.state_dict().items())
    assert method.history == {} and method.learned_parameters() == {} and method.n_learned == 0


def test_the_parts_of_an_episode_fit_together(vit_backbone, train, test_split):
    method = TPT(vit_backbone, n_views=10, selection=0.3).fit(train)
    views, e = method.views(test_split), method.tune(test_split)
    N, C, M = len(test_split), 4, 4
    assert e.logits.shape == (N, C) and e.view_logits.shape == (N, 10, C) and e.kept.shape == (N, 3)
    assert e.context.shape == (N, M, 32) and e.text.shape == (N, C, 16) and e.before.shape == e.after.shape == (N,)
    plain = vit_backbone.logit_scale * torch.einsum("ne,nce->nc", views[:, 0], e.text)
    torch.testing.assert_close(e.logits, plain, atol=1e-4, rtol=0)
    assert torch.equal(method.logits(test_split), e.logits) and torch.equal(method.predict(views), e.logits.argmax(1))
    worst_kept = entropy(e.view_logits).gather(1, e.kept).max(1).values
    assert ((entropy(e.view_logits) < worst_kept[:, None] - 1e-6).sum(1) <= 2).all()
    assert method.score(test_split) == (e.logits.argmax(1) == test_split.labels).double().mean().item()


def test_starts_from_coop_from_cocoop_and_from_a_context(vit_backbone, train, test_split):
    coop = CoOp(vit_backbone, n_ctx=3, epochs=3, lr=0.02, class_token_position="middle").fit(train)
    from_coop = TPT(vit_backbone, init=coop, n_views=2, steps=0).fit(train)
    torch.testing.assert_close(from_coop.logits(test_split), coop.logits(test_split), atol=1e-4, rtol=0)
    cocoop = CoCoOp(vit_backbone, epochs=1, batch_size=4).fit(train)
    from_cocoop = TPT(vit_backbone, init=cocoop, n_views=2, steps=0).fit(train)
    torch.testing.assert_close(from_cocoop.logits(test_split), cocoop.logits(test_split), atol=1e-4, rtol=0)
    context = cocoop.learned_parameters()["ctx"]
    tensor = TPT(vit_backbone, init=context, n_views=4).fit(train)
    function = TPT(vit_backbone, init=lambda f: context.expand(len(f), -1, -1), n_views=4).fit(train)
    assert torch.equal(tensor.logits(test_split), function.logits(test_split))
    assert torch.equal(cocoop.learned_parameters()["ctx"], context)
    for wrong in (CoOp(vit_backbone, n_ctx=2, csc=True, epochs=0).fit(train), CoOp(vit_backbone)):
        with pytest.raises(ValueError, match="init gives"):
            TPT(vit_backbone, init=wrong)


def test_it_moves_to_other_classes_and_tests_what_it_was_fitted_for(vit_backbone, train, test_split):
    method = TPT(vit_backbone, n_views=4)
    with pytest.raises(RuntimeError, match="call fit"):
        method.logits(test_split)
    moved = method.fit(train).for_classes(["dog", "a very long name of a class", "yak"])
    fresh = TPT(vit_backbone, n_views=4)
    fresh.class_names, fresh._fitted, fresh.prompts = ("dog", "a very long name of a class", "yak"), True, None
    assert torch.equal(moved.logits(test_split), fresh.logits(test_split)) and moved.logits(test_split).shape[1] == 3


def test_augmix_changes_the_views_but_not_the_first(vit_backbone, train, test_split):
    plain, mixed = (TPT(vit_backbone, n_views=4, augmix=a).fit(train).views(test_split) for a in (False, True))
    torch.testing.assert_close(plain[:, 0], mixed[:, 0], atol=1e-5, rtol=0)
    assert (plain[:, 1:] - mixed[:, 1:]).abs().max() > 1e-3


def test_half_precision_gives_float32_logits(vit_backbone, train, test_split):
    method = TPT(vit_backbone.to(dtype=torch.bfloat16), n_views=4).fit(train)
    logits = method.logits(test_split.images[:3])
    assert logits.dtype == torch.float32 and torch.isfinite(logits).all()


def test_an_episode_stays_on_the_backbones_device(vit_backbone, fake_cuda):
    backbone = fake_cuda(vit_backbone)
    method = TPT(backbone)
    method.class_names, method.prompts = ("cat", "hot air balloon"), ClassPrompts(backbone, ("cat", "balloon"), 4)
    ctx = method.start.expand(3, -1, -1).clone().requires_grad_()
    loss = marginal_entropy(method._view_logits(F.normalize(torch.randn(3, 5, 16, device="cuda"), dim=-1), ctx)).sum()
    assert loss.device.type == "cuda" and loss.requires_grad


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"n_views": 0}, "n_views=0"),
        ({"steps": -1}, "steps=-1"),
        ({"max_prompts": 0}, "max_prompts=0"),
        ({"selection": 0}, "selection=0"),
        ({"selection": 1.5}, "selection=1.5"),
        ({"ctx_init": ""}, "ctx_init=''"),
        ({"init": torch.zeros(2, 3, 4)}, r"init gives \(2, 3, 4\)"),
        ({"init": "coop"}, "init gives str"),
        ({"class_token_position": "top"}, "class_token_position='top'"),
        ({"lr": 0}, "lr=0"),
        ({"crop_scale": (0.0, 1.0)}, "scale="),
    ],
)
def test_bad_arguments_are_named(vit_backbone, train, arguments, message):
    with pytest.raises(ValueError, match=message):
        TPT(vit_backbone, **{"n_views": 2, **arguments}).fit(train).logits(train.images[:1])


def test_features_of_one_view_are_refused(vit_backbone, train):
    method = TPT(vit_backbone).fit(train)
    with pytest.raises(ValueError, match="TPT needs images"):
        method.logits(torch.randn(3, 16))
    with pytest.raises(ValueError, match=r"view features \(N, V, 16\)"):
        method.logits(torch.randn(3, 4, 5))
