"""PLOT: the forward against a naive float64 one, invariants of the transport plan, limits, recipe, transfer, errors."""

import copy
import math

import pytest
import torch
import torch.nn.functional as F

from vlmcourse.backbone.features import image_features, local
from vlmcourse.methods.augment import TrainingFeatures
from vlmcourse.methods.base import Method
from vlmcourse.methods.context import words_context
from vlmcourse.methods.text_prompts.coop import CoOp
from vlmcourse.methods.text_prompts.plot import PLOT
from vlmcourse.methods.text_prompts.plot_pp import PLOTPlusPlus

WORDS = ["a photo of a", "this is a photo"]


def naive_text(backbone, ctx, class_names):
    """(C, E) for one context (M, D): float64, all L tokens, not normalised."""
    model, bpe, rows = copy.deepcopy(backbone.model).double(), backbone.tokenizer, []
    for name in class_names:
        ids = [bpe.encode(name.replace("_", " ") + "."), [bpe.eot_token_id]]
        pieces = [model.token_embedding(torch.tensor(i)) for i in ids]
        x = torch.cat([model.token_embedding(torch.tensor([bpe.sot_token_id])), ctx.double(), *pieces])
        end = len(x) - 1
        x = F.pad(x, (0, 0, 0, backbone.context_length - len(x))) + model.positional_embedding
        x = model.transformer(x[None], attn_mask=model.attn_mask)[0]
        rows.append(model.ln_final(x)[end] @ model.text_projection)
    return torch.stack(rows)


def naive_logits(backbone, contexts, class_names, local_features, pooled=None, eps=0.1):
    """The paper's forward for one image and one class after the other, Sinkhorn on kernels, each with its own stop."""
    raw = torch.stack([naive_text(backbone, ctx, class_names) for ctx in contexts])  # (N, C, E)
    text, scale = F.normalize(raw, dim=-1), backbone.logit_scale.double()
    logits = torch.zeros(len(local_features), len(class_names)).double()
    for b, features in enumerate(local_features.double()):
        for c in range(len(class_names)):
            cosine = features @ text[:, c].T  # (P, N)
            P, N = cosine.shape
            kernel = torch.exp(-(1 - cosine) / eps)
            left, right = torch.ones(P).double(), torch.ones(N).double()
            for _ in range(100):
                before, left = left, 1 / P / (kernel @ right)
                right = 1 / N / (kernel.T @ left)
                if (left - before).abs().mean() < 1e-2:
                    break
            logits[b, c] = scale * (left[:, None] * kernel * right * cosine).sum()
    if pooled is not None:
        logits += scale * pooled.double() @ F.normalize(raw.mean(0), dim=-1).T
    return logits


def small(backbone, **arguments):
    return PLOT(backbone, **{"n_prompts": 3, "n_ctx": 2, "epochs": 2, "lr": 0.05, "batch_size": 8} | arguments)


@pytest.mark.parametrize("pooled_term", [False, True])
def test_logits_equal_the_naive_forward(tower, train, test_split, pooled_term):
    method = small(tower, pooled_term=pooled_term).fit(train)
    some = test_split.subset([0, 6, 13])
    features = image_features(tower, some, encoder=local(method.path))
    pooled = image_features(tower, some) if pooled_term else None
    expected = naive_logits(tower, method.learned_parameters()["ctx"], train.class_names, features, pooled)
    torch.testing.assert_close(method.logits(some).double(), expected, atol=2e-3, rtol=0)


def test_local_features_are_what_the_official_attention_pool_returns(resnet_backbone, images):
    """Every position as a query of the pool: rows 1.. of an ordinary multi-head attention over [mean ; positions]."""
    visual = resnet_backbone.model.visual
    pool, x = visual.attnpool, visual.stem(resnet_backbone.preprocess(images))
    for layer in (visual.layer1, visual.layer2, visual.layer3, visual.layer4):
        x = layer(x)
    x = x.flatten(2).permute(2, 0, 1)  # (P, B, Dr)
    x = torch.cat([x.mean(0, keepdim=True), x]) + pool.positional_embedding[:, None]
    out, _ = F.multi_head_attention_forward(
        x, x, x, x.shape[-1], pool.num_heads, None,
        torch.cat([pool.q_proj.bias, pool.k_proj.bias, pool.v_proj.bias]), None, None, False, 0.0,
        pool.c_proj.weight, pool.c_proj.bias, use_separate_proj_weight=True, need_weights=False,
        q_proj_weight=pool.q_proj.weight, k_proj_weight=pool.k_proj.weight, v_proj_weight=pool.v_proj.weight,
    )  # fmt: skip
    out = F.normalize(out.transpose(0, 1), dim=-1)
    ours = PLOT(resnet_backbone, pooled_term=True).inputs(images)  # (B, 1 + P, E)
    torch.testing.assert_close(ours, out, atol=1e-5, rtol=0)


def test_margins_of_the_plans(tower, train, test_split):
    plans, cosines = small(tower).fit(train).transport(test_split)
    B, C, P, N = plans.shape
    assert (B, C, N) == (20, 4, 3) and cosines.shape == plans.shape and (plans >= 0).all()
    torch.testing.assert_close(plans.sum((-2, -1)), torch.ones(B, C))
    torch.testing.assert_close(plans.sum(-2), torch.full((B, C, N), 1 / N))
    torch.testing.assert_close(plans.sum(-1), torch.full((B, C, P), 1 / P), rtol=5e-3, atol=0)


def test_score_is_at_least_that_of_the_uniform_plan_and_grows_as_eps_falls(vit_backbone, train, test_split):
    options = {"max_iter": 100, "tolerance": None, "lr": 0.2, "epochs": 5}
    fitted = small(vit_backbone, **options).fit(train)
    scores = []
    for eps in (math.inf, 1.0, 0.1, 0.02):
        fitted.eps = eps
        scores.append(fitted.logits(test_split))
    for larger_eps, smaller_eps in zip(scores, scores[1:], strict=False):
        assert (smaller_eps - larger_eps).min() > -1e-3
    assert (scores[-1] - scores[0]).max() > 0.05


@pytest.mark.parametrize("arguments", [{"n_prompts": 1}, {"eps": math.inf}])
def test_one_prompt_and_infinite_eps_give_the_mean_of_all_cosines(tower, train, test_split, arguments):
    method = small(tower, **arguments).fit(train)
    features = image_features(tower, test_split, encoder=local(method.path))
    mean = (
        torch.einsum("bpe,nce->bc", features, F.normalize(method.text, dim=-1)) / features.shape[1] / len(method.text)
    )
    torch.testing.assert_close(method.logits(test_split), tower.logit_scale * mean, atol=1e-3, rtol=0)


def test_equal_prompts_share_the_image_equally_and_stay_equal(vit_backbone, train, test_split):
    method = small(vit_backbone, epochs=0).fit(train)
    method.ctx = method.ctx[:1].repeat(3, 1, 1).requires_grad_()
    features = TrainingFeatures(vit_backbone, train, encoder=method.encoder)
    method._loss(features(torch.arange(16)), train.labels).backward()
    torch.testing.assert_close(method.ctx.grad[0], method.ctx.grad[1])
    method._freeze()
    plans, _ = method.transport(test_split)
    torch.testing.assert_close(plans, plans.mean(-1, keepdim=True).expand_as(plans))


def test_global_path_with_one_prompt_is_coop(tower, train, test_split):
    recipe = {"n_ctx": 2, "epochs": 3, "lr": 0.05, "batch_size": 8, "seed": 4}
    plot = PLOT(tower, n_prompts=1, path="global", **recipe).fit(train)
    coop = CoOp(tower, **recipe).fit(train)
    torch.testing.assert_close(plot.ctx[0], coop.ctx, atol=1e-5, rtol=0)
    torch.testing.assert_close(plot.logits(test_split), coop.logits(test_split), atol=1e-4, rtol=0)


def test_order_of_prompts_and_positions_does_not_matter(tower, train, test_split):
    method = small(tower).fit(train)
    before, features = method.logits(test_split), method.inputs(test_split)
    shuffled = features[:, torch.randperm(features.shape[1])]
    torch.testing.assert_close(method.logits(shuffled), before, atol=1e-3, rtol=0)
    method.text = method.text.flip(0)
    torch.testing.assert_close(method.logits(test_split), before, atol=1e-3, rtol=0)


def test_the_plan_is_a_constant_for_the_gradient(vit_backbone, train):
    method = small(vit_backbone, epochs=0).fit(train)
    features = method.inputs(train)
    method.ctx.requires_grad_()
    method._loss(features, train.labels).backward()
    plan, _ = method._match(features, method.text_features())
    assert not plan.requires_grad
    ctx, method.ctx = method.ctx, method.ctx.detach().requires_grad_()
    text = F.normalize(method.text_features(), dim=-1)
    scores = (plan * torch.einsum("bpe,nce->bcpn", features, text)).sum((-2, -1))
    F.cross_entropy(vit_backbone.logit_scale * scores, train.labels).backward()
    torch.testing.assert_close(ctx.grad, method.ctx.grad)


@pytest.mark.parametrize(
    "arguments",
    [{}, {"csc": True}, {"class_token_position": "front"}, {"ctx_init": WORDS, "n_prompts": 2}, {"pooled_term": True}],
)
def test_fitting_lowers_the_loss_and_only_changes_the_contexts(tower, splits, arguments):
    before = {name: tensor.clone() for name, tensor in tower.model.state_dict().items()}
    method = small(tower, epochs=8, lr=0.05, batch_size=32, **arguments).fit(splits(per_class=8, seed=1))
    assert method.history["loss"][-1] < method.history["loss"][0] - 0.01
    assert all(torch.equal(tensor, before[name]) for name, tensor in tower.model.state_dict().items())
    assert all(p.grad is None for p in tower.model.parameters())
    shape = (method.n_prompts, *((4,) if method.csc else ()), method.n_ctx, tower.text_width)
    assert {name: t.shape for name, t in method.learned_parameters().items()} == {"ctx": shape}
    assert method.n_learned == math.prod(shape)


def test_predictions_do_not_depend_on_the_batch_but_the_official_stop_does(
    vit_backbone, train, test_split, monkeypatch
):
    method = small(vit_backbone, lr=0.3, epochs=6).fit(train)
    features = method.inputs(test_split)
    together, one = method.logits(features), torch.cat([method.logits(f[None]) for f in features])
    torch.testing.assert_close(together, one, atol=1e-4, rtol=0)
    assert method.logits(features[:1]).shape == (1, 4)
    monkeypatch.setattr("vlmcourse.methods.text_prompts.plot.PAIRS", 16 * 3 * 4 * 7)  # 7 images at once
    assert [len(part) for part in method._batches(features)] == [7, 7, 6]
    torch.testing.assert_close(method.logits(features), together, atol=1e-4, rtol=0)
    official = small(vit_backbone, lr=0.3, epochs=6, stop="batch").fit(train)
    assert official.inner == {"max_iter": 100, "tolerance": 1e-2, "stop": "batch"}
    torch.testing.assert_close(official.logits(features), together, atol=0.05, rtol=0)


@pytest.mark.parametrize(("batch_size", "views"), [(1, 1), (5, 2), (100, None)])
def test_odd_batches_and_every_kind_of_view(tower, train, batch_size, views):
    method = small(tower, batch_size=batch_size, views=views, pooled_term=views == 2).fit(train)
    assert len(method.history["loss"]) == 2 and torch.isfinite(method.ctx).all()


def test_every_path_of_local_features(vit_backbone, resnet_backbone, train, images):
    sizes = {}
    for backbone, paths in ((vit_backbone, ("value", "value+residual", "full")), (resnet_backbone, ("value", "full"))):
        for path in ("global", *paths):
            method = small(backbone, path=path).fit(train)
            sizes[backbone.is_vit, path] = method.transport(images)[0].shape[2]
    assert {key: size for key, size in sizes.items() if key[1] == "global"} == {(v, "global"): 1 for v in (True, False)}
    assert set(sizes.values()) == {1, 16, 4}
    assert PLOT(vit_backbone).path == PLOT(resnet_backbone).path == "full"


def test_the_recipe_is_the_papers(resnet_backbone, splits, monkeypatch):
    seen = {}

    def spy(parameters, loss_fn, n, **settings):
        seen.update(settings, shape=tuple(parameters[0].shape), std=parameters[0].std().item(), count=len(parameters))
        return {}

    monkeypatch.setattr("vlmcourse.training.fit", spy)
    method = PLOT(resnet_backbone, seed=3).fit(splits(per_class=8))
    assert seen["shape"] == (4, 16, 32) and seen["std"] == pytest.approx(0.02, rel=0.1) and seen["count"] == 1
    expected = {"epochs": 200, "lr": 2e-3, "batch_size": 128, "momentum": 0.9, "weight_decay": 5e-4, "warmup_epochs": 1}
    assert {name: seen[name] for name in expected} == expected
    assert (method.eps, method.inner["max_iter"], method.inner["tolerance"]) == (0.1, 100, 1e-2)


def test_half_precision(tower, train, test_split):
    half = tower.to(dtype=torch.bfloat16)
    method = small(half, pooled_term=True).fit(train)
    assert method.ctx.dtype == torch.float32 and method.logits(test_split).dtype == torch.float32
    plans, _ = method.transport(test_split)
    torch.testing.assert_close(plans.sum(-2), torch.full_like(plans[:, :, 0], 1 / 3))


def test_seeds(vit_backbone, train, test_split):
    one, same, other = (small(vit_backbone, seed=s).fit(train).logits(test_split) for s in (1, 1, 2))
    assert torch.equal(one, same) and (one - other).abs().max() > 1e-4


def test_the_contexts_move_to_other_classes(tower, train, test_split):
    method = small(tower).fit(train)
    before = method.logits(test_split)
    moved = method.for_classes(["a very long name of a class", "dog"])
    torch.testing.assert_close(moved.logits(test_split)[:, 1], before[:, 1], atol=1e-3, rtol=0)
    assert torch.equal(method.logits(test_split), before)
    with pytest.raises(ValueError, match="plot cannot move to classes it was not fitted on"):
        small(tower, csc=True, epochs=0).fit(train).for_classes(["yak"])


def test_inputs_are_splits_images_or_local_features(tower, train, test_split):
    method = small(tower).fit(train)
    by_split = method.logits(test_split)
    torch.testing.assert_close(method.logits(test_split.images), by_split, atol=1e-3, rtol=0)
    torch.testing.assert_close(method.logits(3 * method.inputs(test_split)), by_split, atol=1e-3, rtol=0)
    assert method.logits(test_split.images[0]).shape == (1, 4)
    with pytest.raises(ValueError, match=r"x=\(2, 5, 3\).*features \(B, P, 16\)"):
        method.logits(torch.ones(2, 5, 3))
    with pytest.raises(RuntimeError, match="fit"):
        small(tower).transport(test_split)


def test_a_split_too_large_to_keep_goes_in_parts(vit_backbone, train, test_split, monkeypatch):
    method = small(vit_backbone).fit(train)
    whole = method.logits(test_split)
    monkeypatch.setattr("vlmcourse.methods.base.LARGEST", 6 * 16 * 16 * 4)  # six images
    assert [len(part) for part in Method._parts(method, test_split)] == [6, 6, 6, 2]
    torch.testing.assert_close(method.logits(test_split), whole, atol=1e-3, rtol=0)
    assert CoOp(vit_backbone)._parts(test_split) == [test_split], "pooled features are small"


def test_forward_and_loss_stay_on_the_backbones_device(tower, fake_cuda):
    backbone = fake_cuda(tower)
    for arguments in ({"csc": True, "path": "global"}, {"pooled_term": True}):
        method = small(backbone, tolerance=None, **arguments)
        method.class_names = ("cat", "hot air balloon")
        method.prompts, method.ctx = method._prompts(method.class_names), method._initial_context().requires_grad_()
        shape = (3, backbone.embed_dim) if method.path == "global" else (3, 17, backbone.embed_dim)
        features, labels = torch.randn(shape, device="cuda"), torch.zeros(3, device="cuda").long()
        loss = method._loss(features, labels)
        assert loss.requires_grad and loss.device.type == "cuda"
        method._freeze()
        assert method._logits(features).device.type == "cuda"


def test_words_of_each_prompt(vit_backbone, train):
    method = small(vit_backbone, ctx_init=[*WORDS, "not used here at all"], n_prompts=2, epochs=0).fit(train)
    assert torch.equal(method.ctx[1], words_context(vit_backbone, WORDS[1]))
    assert [row[0][0] for row in method.nearest_words(prompt=1)] == ["this", "is", "a", "photo"]
    specific = small(vit_backbone, csc=True, epochs=0).fit(train)
    assert len(specific.nearest_words(class_name="dog")) == 2
    for call, message in (
        (lambda: method.nearest_words(prompt=2), "prompt=2"),
        (specific.nearest_words, "class_name="),
    ):
        with pytest.raises(ValueError, match=message):
            call()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"n_prompts": 0}, "n_prompts=0"),
        ({"n_prompts": 2.0}, "n_prompts=2.0"),
        ({"ctx_init": "a photo of a"}, "ctx_init='a photo of a' must be a list of n_prompts=3 different"),
        ({"ctx_init": WORDS}, "must be a list of n_prompts=3"),
        ({"ctx_init": ["a", "a", "b"]}, "equal gradients"),
        ({"ctx_init": ["a", "a photo", "b"]}, r"equally many tokens each, not \[1, 2, 1\]"),
        ({"ctx_init": WORDS, "csc": True}, "csc=True and ctx_init="),
        ({"path": "attention"}, "path='attention'"),
        ({"eps": -1}, "eps=-1"),
        ({"max_iter": 0}, "max_iter=0"),
        ({"tolerance": -1}, "tolerance=-1"),
        ({"stop": "soon"}, "stop='soon'"),
        ({"n_ctx": 0}, "n_ctx=0"),
    ],
)
def test_bad_arguments_are_named(vit_backbone, arguments, message):
    with pytest.raises(ValueError, match=message):
        small(vit_backbone, **arguments)


def test_a_resnet_has_no_residual_path_and_no_plot_pp(resnet_backbone):
    with pytest.raises(ValueError, match=r"path='value\+residual'"):
        PLOT(resnet_backbone, path="value+residual")
    with pytest.raises(ValueError, match=r"PLOT\+\+ needs a ViT"):
        PLOTPlusPlus(resnet_backbone)
