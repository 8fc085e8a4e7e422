"""VPT: loss and prediction against a naive float64 one, the degenerate settings, Jensen, seeds, transfer, errors."""

import math

import pytest
import torch
import torch.nn.functional as F
from torch._subclasses.fake_tensor import unset_fake_temporarily

from vlmcourse.backbone.features import image_features
from vlmcourse.methods.context import ClassPrompts
from vlmcourse.methods.text_prompts import vpt
from vlmcourse.methods.text_prompts.coop import CoOp
from vlmcourse.methods.text_prompts.vpt import VPT, ImagePosterior, SharedPosterior, kl_divergence, log_mean_exp

FORMS = [{}, {"conditional": True}]


def prepared(backbone, train, **arguments):
    """A method that has its start, but took no step: what _loss needs is there, and requires gradients."""
    method = VPT(backbone, **{"samples": 3, "batch_size": 4} | arguments, epochs=0).fit(train)
    method.ctx.requires_grad_()
    method.posterior.requires_grad_(True)
    return method


def same_noise(method, b):
    """The noise (S, 1 or b, D) that the next call of _loss will draw."""
    twin = torch.Generator()
    twin.set_state(method.draw.get_state())
    rows = b if method.conditional else 1
    return torch.randn(method.samples, rows, method.backbone.text_width, generator=twin)


def naive(method, features, noise):
    """(S, b, C) log-probabilities and (1 or b,) KL: loops, one prompt at a time, and torch.distributions."""
    backbone, (mean, log_var) = method.backbone, method.posterior(features)
    prior_std = method.prior_std
    q = torch.distributions.Normal(mean, prior_std * log_var.exp().sqrt())
    prior = torch.distributions.Normal(torch.zeros_like(mean), prior_std * torch.ones_like(mean))
    rows = []
    for eps in noise:  # (1 or b, D)
        shift = (q.loc + q.scale * eps).expand(len(features), -1)
        for f, r in zip(features, shift):
            text = []
            for name in method.class_names:
                ids = backbone.tokenizer.encode(name.replace("_", " ") + ".")
                start, end = backbone.tokenizer.sot_token_id, backbone.tokenizer.eot_token_id
                before, behind = (backbone.token_embedding(torch.tensor(i)) for i in ([start], [*ids, end]))
                prompt = torch.cat([before, method.ctx + r, behind])
                text.append(backbone.encode_text_embeddings(prompt, torch.tensor(len(prompt) - 1)))
            rows.append((backbone.logit_scale * torch.stack(text) @ f).log_softmax(dim=-1))
    log_p = torch.stack(rows).reshape(len(noise), len(features), -1)
    return log_p, torch.distributions.kl_divergence(q, prior).mean(dim=-1)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("batch", [1, 4, 7])  # 4 = M: the official conditional form then mixes images and tokens
@pytest.mark.parametrize("prior_std", [1.0, 0.1])
def test_loss_equals_the_naive_one(tower, train, form, batch, prior_std):
    method = prepared(tower, train, prior_std=prior_std, kl_weight=0.25, **form)
    features, labels = image_features(tower, train)[:batch], train.labels[:batch]
    log_p, kl = naive(method, features, same_noise(method, batch))
    likelihood = log_p.exp()[:, torch.arange(batch), labels].mean(dim=0)  # (b,)
    loss, logged = method._loss(features, labels)
    torch.testing.assert_close(loss, -likelihood.log().mean() + 0.25 * kl.mean(), atol=2e-4, rtol=1e-4)
    torch.testing.assert_close(logged["nll"] + 0.25 * logged["kl"], loss)


@pytest.mark.parametrize("form", FORMS)
def test_prediction_equals_the_naive_one(tower, train, test_split, form):
    method = VPT(tower, samples=3, epochs=1, batch_size=4, lr=0.01, **form).fit(train)
    features = image_features(tower, test_split)[:6]
    log_p, _ = naive(method, features, method.noise.expand(-1, 6, -1))
    torch.testing.assert_close(method.each_sample(features), log_p, atol=2e-4, rtol=1e-4)
    torch.testing.assert_close(method.logits(features).exp(), log_p.exp().mean(dim=0), atol=1e-4, rtol=0)


@pytest.mark.parametrize("form", FORMS)
def test_no_shift_and_no_noise_is_coop(tower, train, test_split, form):
    method = prepared(tower, train, zero_start=True, **form)
    with torch.no_grad():
        last = method.posterior.log_var[-1].bias if method.conditional else method.posterior.log_var
        last.fill_(-60)
    coop = CoOp(tower, ctx_init="a photo of a", epochs=0).fit(train)
    method._freeze()
    expected = coop.logits(test_split).log_softmax(dim=-1)
    torch.testing.assert_close(method.logits(test_split), expected, atol=1e-4, rtol=0)
    torch.testing.assert_close(
        method._loss(image_features(tower, train), train.labels)[1]["nll"],
        coop._loss(image_features(tower, train), train.labels),
        atol=1e-4,
        rtol=0,
    )


@pytest.mark.parametrize("form", FORMS)
def test_one_sample_is_cross_entropy_plus_kl(vit_backbone, train, form):
    method = prepared(vit_backbone, train, samples=1, **form)
    features, labels = image_features(vit_backbone, train), train.labels
    noise = same_noise(method, len(labels))
    mean, log_var = method.posterior(features)
    log_p = method._log_p(features, method.sampled_text(mean, log_var, noise))[0]
    expected = F.cross_entropy(log_p, labels) + 0.001 * kl_divergence(mean, log_var).mean()
    torch.testing.assert_close(method._loss(features, labels)[0], expected)


@pytest.mark.parametrize("form", FORMS)
def test_marginal_loss_is_at_most_the_elbos_and_the_elbo_is_the_mean_cross_entropy(vit_backbone, train, form):
    features, labels = image_features(vit_backbone, train), train.labels
    marginal, elbo = (prepared(vit_backbone, train, samples=5, objective=o, **form) for o in ("marginal", "elbo"))
    log_p, _ = naive(elbo, features, same_noise(elbo, len(labels)))
    mean_ce = torch.stack([F.cross_entropy(one, labels) for one in log_p]).mean()
    (tight, _), (loose, logged) = marginal._loss(features, labels), elbo._loss(features, labels)
    torch.testing.assert_close(logged["nll"], mean_ce, atol=2e-4, rtol=1e-4)
    assert tight < loose - 1e-4


def test_kl_is_the_closed_form():
    generator = torch.Generator().manual_seed(0)
    mean, log_var = torch.randn(3, 7, generator=generator), torch.randn(3, 7, generator=generator)
    for std in (1.0, 0.2):
        q = torch.distributions.Normal(mean, std * (0.5 * log_var).exp())
        expected = torch.distributions.kl_divergence(q, torch.distributions.Normal(torch.zeros(3, 7), std)).mean(-1)
        torch.testing.assert_close(kl_divergence(mean, log_var, std), expected)
    assert (kl_divergence(mean, log_var) > 0).all()
    assert kl_divergence(torch.zeros(1, 7), torch.zeros(1, 7)).item() == 0
    assert kl_divergence(torch.ones(1, 2), torch.zeros(1, 2)).item() == pytest.approx(0.5)  # mean, not sum
    assert kl_divergence(torch.zeros(1, 2), torch.full((1, 2), math.log(4))).item() == pytest.approx(
        0.5 * (4 - 1 - math.log(4))
    )


def test_the_start_is_the_official_one(vit_backbone):
    shared = SharedPosterior(512, seed=0)
    assert torch.equal(shared.mean, torch.zeros(1, 512))
    sigma = (0.5 * shared.log_var).exp()
    assert 1 <= sigma.min() < 1.05 and 1.6 < sigma.max() <= 1.6488  # log-variance from U(0, 1)
    assert not torch.equal(shared.log_var, SharedPosterior(512, seed=1).log_var)
    one = ImagePosterior(512, 512, 0, zero_start=False)
    assert sum(p.numel() for p in one.parameters()) == 657_408  # 659,456 with the context (4, 512): ViT-B/16
    assert len({p.sum().item() for p in one.parameters()}) == 12, "mean and log-variance start from other numbers"


@pytest.mark.parametrize("form", FORMS)
def test_gradients_reach_exactly_what_is_learned(tower, train, form):
    method = prepared(tower, train, **form)
    method._loss(image_features(tower, train), train.labels)[0].backward()
    grads = [method.ctx.grad, *(p.grad for p in method.posterior.parameters())]
    assert all(g is not None and g.abs().sum() > 0 for g in grads)
    assert all(p.grad is None for p in tower.model.parameters())


@pytest.mark.parametrize("form", FORMS)
def test_fitting_lowers_the_negative_log_likelihood(tower, splits, form):
    train = splits(per_class=8, seed=1)
    before = {name: tensor.clone() for name, tensor in tower.model.state_dict().items()}
    method = VPT(tower, samples=3, epochs=12, batch_size=8, lr=0.01, prior_std=0.02, **form).fit(train)
    gain = 0.2 if tower.is_vit else 0.01  # the tiny ResNet's features hardly differ between images
    assert method.history["nll"][-1] < method.history["nll"][0] - gain
    assert {"loss", "nll", "kl", "lr"} == set(method.history)
    assert all(torch.equal(tensor, before[name]) for name, tensor in tower.model.state_dict().items())
    D, E = tower.text_width, tower.embed_dim
    net = E * (E // 2) + E // 2 + (E // 2) * (E // 2) + E // 2 + (E // 2) * D + D
    assert method.n_learned == 4 * D + (2 * net if method.conditional else 2 * D)
    assert not any(p.requires_grad for p in method.learned_parameters().values())


def test_the_kl_term_pulls_the_posterior_to_the_prior(vit_backbone, train):
    held, free = (
        VPT(vit_backbone, samples=2, epochs=20, batch_size=8, lr=0.05, kl_weight=w).fit(train) for w in (20.0, 0.0)
    )
    assert held.history["kl"][-1] < 0.5 * held.history["kl"][0]
    assert held.history["kl"][-1] < free.history["kl"][-1]


@pytest.mark.parametrize("form", FORMS)
def test_predictions_are_probabilities_that_do_not_depend_on_the_batch(tower, train, test_split, form, monkeypatch):
    method = VPT(tower, samples=3, epochs=1, batch_size=5, **form).fit(train)
    together = method.logits(test_split)
    torch.testing.assert_close(together.exp().sum(dim=1), torch.ones(len(test_split)))
    torch.testing.assert_close(method.probabilities(test_split), together.exp())
    features = image_features(tower, test_split)
    one_by_one = torch.cat([method.logits(f[None]) for f in features])
    torch.testing.assert_close(one_by_one, together, atol=1e-4, rtol=0)
    monkeypatch.setattr(vpt, "PROMPTS_AT_ONCE", 1)
    torch.testing.assert_close(method.logits(features[[3, 0]]), together[[3, 0]], atol=1e-4, rtol=0)


@pytest.mark.parametrize("form", FORMS)
def test_seeds_decide_everything(vit_backbone, train, val, test_split, form):
    def fitted(seed, val=None, **more):
        return VPT(vit_backbone, samples=2, epochs=2, batch_size=4, seed=seed, **form | more).fit(train, val)

    torch.manual_seed(0)
    one = fitted(1)
    torch.manual_seed(1)
    same, other = fitted(1, val), fitted(2)
    assert torch.equal(one.logits(test_split), same.logits(test_split))
    assert torch.equal(same.logits(test_split), same.logits(test_split)), "prediction draws nothing anew"
    assert (one.logits(test_split) - other.logits(test_split)).abs().max() > 1e-4


@pytest.mark.parametrize("form", FORMS)
def test_resampling_changes_the_samples_only(vit_backbone, train, test_split, form):
    method = VPT(vit_backbone, samples=2, test_samples=5, epochs=1, batch_size=4, **form).fit(train)
    before = method.logits(test_split)
    twin, again = method.resampled(7, seed=9), method.resampled(7, seed=9)
    assert method.each_sample(test_split).shape == (5, 20, 4) and twin.each_sample(test_split).shape == (7, 20, 4)
    assert torch.equal(twin.logits(test_split), again.logits(test_split))
    assert (twin.logits(test_split) - before).abs().max() > 1e-4
    assert torch.equal(method.logits(test_split), before)
    torch.testing.assert_close(method.resampled(5, seed=method.seed).logits(test_split), before)
    many, more = (method.resampled(100, seed=s).logits(test_split).exp() for s in (1, 2))
    few, fewer = (method.resampled(2, seed=s).logits(test_split).exp() for s in (1, 2))
    assert (many - more).abs().max() < 0.5 * (few - fewer).abs().max(), "the average settles with more samples"


@pytest.mark.parametrize("form", FORMS)
def test_a_twin_image_gets_the_same_posterior_and_others_only_if_conditional(vit_backbone, train, form):
    method = VPT(vit_backbone, samples=2, epochs=0, **form).fit(train)
    f = image_features(vit_backbone, train)[[0, 0, 9]]
    mean, log_var = (t.expand(3, -1) for t in method.posterior(f))
    assert torch.equal(mean[0], mean[1]) and torch.equal(log_var[0], log_var[1])
    assert torch.equal(mean[0], mean[2]) != method.conditional


@pytest.mark.parametrize("form", FORMS)
def test_what_was_learned_moves_to_other_classes(tower, train, test_split, form):
    method = VPT(tower, samples=3, epochs=1, batch_size=4, **form).fit(train)
    before = method.logits(test_split)
    moved = method.for_classes(["a very long name of a class", "dog"])
    assert moved.logits(test_split).shape == (20, 2) and torch.equal(moved.ctx, method.ctx)
    torch.testing.assert_close(method.for_classes(train.class_names).logits(test_split), before)
    assert torch.equal(method.logits(test_split), before)
    features = image_features(tower, test_split)
    pair = method.for_classes(["tabby cat", "dog"]).each_sample(features)
    expected = method.each_sample(features)[..., :2].log_softmax(dim=-1)  # the same prompts, two of the classes
    torch.testing.assert_close(pair, expected, atol=2e-4, rtol=1e-4)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("batch_size", [1, 3, 100])
def test_odd_batches_fresh_crops_and_every_position(tower, train, form, batch_size):
    for more in ({"views": None}, {"class_token_position": "middle"}, {"ctx_init": None, "n_ctx": 2}):
        method = VPT(tower, samples=2, epochs=1, batch_size=batch_size, **form, **more).fit(train)
        assert torch.isfinite(method.ctx).all() and math.isfinite(method.history["loss"][0])


def test_shared_prefix_and_plain_pass_agree(vit_backbone, train, test_split):
    shared, plain = (
        VPT(vit_backbone, samples=3, epochs=2, batch_size=4, prior_std=0.1, share_prefix=s).fit(train)
        for s in (True, False)
    )
    torch.testing.assert_close(shared.logits(test_split), plain.logits(test_split), atol=1e-3, rtol=0)


@pytest.mark.parametrize("form", FORMS)
def test_forward_and_loss_stay_on_the_backbones_device(tower, fake_cuda, form):
    backbone = fake_cuda(tower)
    method = VPT(backbone, samples=2, **form)
    method.class_names = ("cat", "hot air balloon")
    method.prompts, method.ctx = method._prompts(method.class_names), method._initial_context().requires_grad_()
    with unset_fake_temporarily():
        method.posterior = ImagePosterior(16, 32, 0, False) if method.conditional else SharedPosterior(32, 0)
    for part in method.posterior.modules():  # what .to("cuda") does; fake parameters cannot be moved in place
        for name, p in part._parameters.items():
            part._parameters[name] = torch.nn.Parameter(torch.empty(tuple(p.shape), device="cuda"))
    method.draw, method.noise = torch.Generator().manual_seed(0), method._noise(2, 0)
    features, labels = torch.randn(3, backbone.embed_dim, device="cuda"), torch.zeros(3, device="cuda").long()
    loss, _ = method._loss(features, labels)
    assert loss.requires_grad and loss.device.type == "cuda"
    method._freeze()
    assert method._logits(features).device.type == "cuda" and not method._logits(features).requires_grad


def test_log_mean_exp_is_stable():
    log_p = torch.tensor([[-1000.0], [-1000.0 + math.log(3)]])
    torch.testing.assert_close(log_mean_exp(log_p), torch.tensor([-1000 + math.log(2)]))


def test_prompts_are_ordered_by_sample_then_class(vit_backbone, train):
    method = VPT(vit_backbone, samples=3, epochs=0).fit(train)
    prompts = ClassPrompts(vit_backbone, train.class_names, 4)
    shift = method.prior_std * (0.5 * method.posterior.log_var).exp() * method.noise[2]
    torch.testing.assert_close(method.text[2, 0], prompts.encode(method.ctx + shift), atol=1e-5, rtol=0)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"samples": 0}, "samples=0"),
        ({"test_samples": 2.5}, "test_samples=2.5"),
        ({"objective": "iwae"}, "objective='iwae' must be one of"),
        ({"kl_weight": -1}, "kl_weight=-1"),
        ({"prior_std": 0}, "prior_std=0"),
        ({"csc": True, "ctx_init": None}, "csc=True is not possible"),
        ({"epochs": -1}, "epochs=-1"),
    ],
)
def test_bad_arguments_are_named(vit_backbone, train, arguments, message):
    with pytest.raises(ValueError, match=message):
        VPT(vit_backbone, **arguments).fit(train)


def test_before_fit_there_is_nothing(vit_backbone, test_split):
    for call in (lambda m: m.logits(test_split), lambda m: m.each_sample(test_split), lambda m: m.resampled(2, 0)):
        with pytest.raises(RuntimeError, match="fit"):
            call(VPT(vit_backbone))
    assert VPT(vit_backbone).learned_parameters() == {}
