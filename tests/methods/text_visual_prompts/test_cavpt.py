"""CAVPT: its parts alone are CoOp and VPT; formulas of the class-aware prompts, losses, what gradients reach."""

import pytest
import torch
import torch.nn.functional as F

from vlmcourse.backbone.features import image_features
from vlmcourse.methods.class_text import class_features
from vlmcourse.methods.text_prompts.coop import CoOp
from vlmcourse.methods.text_visual_prompts.cavpt import CAVPT
from vlmcourse.methods.vision_prompts import TOKENS, encode_prompted, image_tokens
from vlmcourse.methods.visual_prompt_tuning import VisualPromptTuning

SMALL = {"n_ctx": 3, "n_ctx_vision": 2, "n_class_prompts": 2, "n_extra": 3, "attention_width": 8}
SHORT = SMALL | {"epochs": 4, "pretrain_epochs": 2, "warmup_epochs": 0, "text_warmup_epochs": 0, "batch_size": 8}


def untrained(backbone, train, **arguments):
    """A CAVPT at its first step, open for gradients."""
    method = CAVPT(backbone, **SMALL | {"epochs": 0} | arguments).fit(train)
    method.frozen_text = None if "text" in method.branches else method.text
    for tensor in method._parameters().values():
        tensor.requires_grad_()
    return method


def test_the_text_alone_is_coop(vit_backbone, train, test_split):
    recipe = {"n_ctx": 3, "epochs": 4, "batch_size": 8, "seed": 2}
    ours = CAVPT(vit_backbone, branches="text", lr=0.1, text_lr=0.02, pretrain_epochs=0, text_warmup_epochs=0, **recipe)
    coop = CoOp(vit_backbone, lr=0.02, warmup_epochs=0, **recipe).fit(train)
    torch.testing.assert_close(ours.fit(train).ctx, coop.ctx, atol=1e-5, rtol=0)
    torch.testing.assert_close(ours.logits(test_split), coop.logits(test_split), atol=1e-3, rtol=0)


def test_the_visual_prompts_alone_are_deep_vpt(vit_backbone, train, test_split):
    recipe = {"n_ctx_vision": 2, "epochs": 4, "lr": 0.05, "batch_size": 8, "warmup_epochs": 1, "seed": 2}
    ours = CAVPT(vit_backbone, branches="visual", pretrain_epochs=0, **recipe).fit(train)
    vpt = VisualPromptTuning(vit_backbone, depth=None, init="normal", **recipe).fit(train)
    torch.testing.assert_close(ours.ctx_vision, vpt.ctx_vision, atol=1e-6, rtol=0)
    torch.testing.assert_close(ours.logits(test_split), vpt.logits(test_split), atol=1e-4, rtol=0)


def test_without_candidates_the_last_layer_has_no_prompts(vit_backbone, train, test_split):
    method = untrained(vit_backbone, train, n_class_prompts=0, alpha=0)
    tokens = method.inputs(test_split)
    shallow, second = method.ctx_vision.detach()
    expected = encode_prompted(vit_backbone, tokens, shallow, {1: second, 2: torch.zeros(0, 48)}, before_ln_pre=False)
    torch.testing.assert_close(method.image_features(tokens), expected)
    loss, parts = method._loss(tokens, test_split.labels, None)
    assert torch.isfinite(loss) and parts["auxiliary"] == 0


def test_the_class_prompts_are_the_formulas(vit_backbone, train):
    method = CAVPT(vit_backbone, **SHORT, lr=0.2).fit(train)
    x, T = torch.randn(2, 5, 48), torch.randn(2, 3, 16)
    prompts, aux, shares = method.class_prompts(0, x, T)
    w = {name: tensor[0] for name, tensor in method.weights.items()}
    assert prompts.shape == (2, 3, 48) and aux.shape == (2, 3, 4) and shares.shape == (2, 3, 5 + 3)
    for b in range(2):
        H = torch.cat([x[b], w["extra"]])
        for k in range(3):
            q = w["meta"].T @ T[b, k] + w["meta_bias"]
            A = torch.stack([(w["query"].T @ q) @ (w["key"].T @ h) / 8**0.5 for h in H]).softmax(0)
            o = w["value"].T @ sum(a * h for a, h in zip(A, H, strict=True))
            torch.testing.assert_close(shares[b, k], A, atol=1e-5, rtol=0)
            expected = F.layer_norm(o + q, (48,), w["norm_b"], w["norm_b_bias"])
            torch.testing.assert_close(prompts[b, k], expected, atol=1e-4, rtol=0)
            expected = w["classifier"].T @ F.layer_norm(o, (48,), w["norm_a"], w["norm_a_bias"])
            torch.testing.assert_close(aux[b, k], expected, atol=1e-4, rtol=0)
    torch.testing.assert_close(shares.sum(-1), torch.ones(2, 3))


def test_candidates_are_the_likeliest_classes_of_frozen_clip(vit_backbone, train, test_split):
    method = CAVPT(vit_backbone, **SHORT).fit(train)
    hand = class_features(vit_backbone, train.class_names, train.templates)
    zero_shot = image_features(vit_backbone, test_split) @ hand.T
    look = method.look(test_split)
    assert torch.equal(look.classes, zero_shot.argsort(descending=True)[:, :2])
    assert look.shares.shape == (1, 20, 2, 17 + 3) and look.prompts.shape == (1, 20, 2, 48)
    torch.testing.assert_close(look.shares.sum(-1), torch.ones(1, 20, 2))
    assert look.n_extra == 3 and torch.equal(look.on_positions, look.shares[..., 1:17])
    assert CAVPT(vit_backbone, **SHORT | {"n_class_prompts": 10}).fit(train).look(test_split).classes.shape == (20, 4)


def test_prompts_differ_between_images_and_label_sets_but_not_by_their_order(vit_backbone, train, test_split):
    method = CAVPT(vit_backbone, **SHORT | {"n_class_prompts": 4}, lr=0.1).fit(train)
    look = method.look(test_split)
    of_dog = look.prompts[0][look.classes == 1]  # (20, Dv)
    assert (of_dog[0] - of_dog[7]).abs().max() > 1e-3
    tokens, text = method.inputs(test_split), method.class_text()
    features, (made, *_) = method._prompted(tokens, text, look.classes)
    other, (swapped, *_) = method._prompted(tokens, text, look.classes[:, [3, 1, 0, 2]])
    torch.testing.assert_close(swapped[0], made[0][:, [3, 1, 0, 2]], atol=1e-5, rtol=0)
    torch.testing.assert_close(other, features, atol=1e-5, rtol=0)
    few = method.for_classes(["dog", "yak"])
    assert (few.image_features(tokens) - features).abs().max() > 1e-4
    assert (method.image_features(tokens) - features).abs().max() < 1e-6


@pytest.mark.parametrize("epoch", [0, 2])
def test_the_loss_is_the_papers(vit_backbone, train, epoch):
    method = untrained(vit_backbone, train, pretrain_epochs=2, alpha=0.3)
    method.epoch = epoch
    tokens, y, s = method.inputs(train), train.labels, vit_backbone.logit_scale
    loss, parts = method._loss(tokens, y, None)
    T = method.class_text()
    assert (T.norm(dim=-1) - 1).abs().min() > 1e-2, "the texts ask with their length"
    f0, (f, made) = vit_backbone.encode_image(train.images), method._prompted(tokens, T, method.candidates(tokens)[1])
    n_T, W0 = F.normalize(T, dim=-1), class_features(vit_backbone, train.class_names, train.templates)
    z, z1, z2 = s * f @ n_T.T, s * f0 @ n_T.T, s * f @ W0.T
    aux, true = made[0][1], method.candidates(tokens)[1] == y[:, None]
    assert 0 < true.sum() < len(y), "some images have their class among the candidates, some have not"
    rows = [F.cross_entropy(aux[b, k], y[b]) for b, k in true.nonzero().tolist()]
    auxiliary = sum(rows) / len(rows)
    ce = [F.cross_entropy(logits, y) for logits in (z, z1, z2)]
    expected = ce[1] + ce[2] + 0.1 * ce[0] if epoch < 2 else ce[0]
    torch.testing.assert_close(parts["cross_entropy"], ce[0], atol=1e-4, rtol=0)
    torch.testing.assert_close(parts["auxiliary"], auxiliary, atol=1e-4, rtol=0)
    torch.testing.assert_close(loss, expected + 0.3 * auxiliary, atol=1e-4, rtol=0)


def test_a_batch_without_its_classes_among_the_candidates_has_no_auxiliary_loss(vit_backbone, train):
    method = untrained(vit_backbone, train, n_class_prompts=1)
    tokens = method.inputs(train)
    missed = (method.candidates(tokens)[1][:, 0] != train.labels).nonzero()[:, 0]
    loss, parts = method._loss(tokens[missed], train.labels[missed], None)
    assert len(missed) > 1 and parts["auxiliary"] == 0 and torch.isfinite(loss)
    loss.backward()
    assert all(
        torch.isfinite(t.grad).all() for name, t in method._parameters().items() if name in ("ctx", "ctx_vision")
    )


def test_gradients_reach_all_that_is_learned_and_nothing_else(vit_backbone, train):
    method = untrained(vit_backbone, train, bottom_limit=2)
    tokens = method.inputs(train)
    method._loss(tokens, train.labels, None)[0].backward()
    assert set(method._parameters()) == {
        "ctx", "ctx_vision", "meta", "meta_bias", "query", "key", "value", "extra", "norm_a", "norm_a_bias", "norm_b",
        "norm_b_bias", "classifier",
    }  # fmt: skip
    for name, tensor in method._parameters().items():
        assert tensor.grad.flatten(1).abs().amax(1).min() > 0, name
    assert not tokens.requires_grad and all(p.grad is None for p in vit_backbone.model.parameters())


def test_the_tokens_that_the_texts_look_at_are_detached(vit_backbone, train):
    method = untrained(vit_backbone, train)
    x = method.inputs(train).requires_grad_()
    method.class_prompts(0, x, torch.randn(len(x), 2, 16))[0].sum().backward()
    assert x.grad is None and method.weights["extra"].grad.abs().max() > 0


def test_only_the_chosen_branches_are_learned(vit_backbone, train):
    attention = {"meta", "query", "value", "classifier"}
    for branches, learned in (
        (("text",), {"ctx"}),
        (("visual",), {"ctx_vision"}),
        (("text", "visual"), {"ctx", "ctx_vision"}),
        (("class_aware",), attention),
        (("visual", "class_aware"), {"ctx_vision"} | attention),
    ):
        method = CAVPT(vit_backbone, branches=branches, **SHORT).fit(train)
        names = set(method.learned_parameters())
        assert learned <= names and ("ctx" in names) == ("text" in branches)
        assert (names & attention == attention) == ("class_aware" in branches)
        assert len(method.ctx_vision) == (0 if "visual" not in branches else 2 if "class_aware" in branches else 3)
    assert "classifier" not in CAVPT(vit_backbone, alpha=0, **SHORT).fit(train).learned_parameters()


def test_the_count_is_the_official_one(make_backbone):
    wide = make_backbone("vit", vision={"width": 768, "layers": 1, "patch_size": 16, "head_width": 64})
    wide.embed_dim = 512  # only sizes are asked for
    method = CAVPT(wide)
    method.class_names, method.text = tuple("abcdefghijkl"), torch.zeros(12, 512)
    assert sum(w.numel() for w in method._start_of_attention().values()) == 1_052_928


@pytest.mark.parametrize("bottom_limit", [1, None])
def test_fitting_lowers_the_loss_and_moves_all_weights(vit_backbone, splits, bottom_limit):
    train = splits(per_class=8, seed=1)
    options = SHORT | {"epochs": 8, "pretrain_epochs": 0, "bottom_limit": bottom_limit, "lr": 0.05, "text_lr": 0.01}
    start = CAVPT(vit_backbone, **options | {"epochs": 0}).fit(train).learned_parameters()
    before = {name: tensor.clone() for name, tensor in vit_backbone.model.state_dict().items()}
    method = CAVPT(vit_backbone, **options).fit(train)
    history = method.history
    assert history["cross_entropy"][-1] < history["cross_entropy"][0] - 0.1
    assert history["auxiliary"][-1] < history["auxiliary"][0] - 0.05
    assert history["loss"] == pytest.approx(
        [c + 0.3 * a for c, a in zip(history["cross_entropy"], history["auxiliary"], strict=True)], abs=1e-3
    )
    after = method.learned_parameters()
    assert after.keys() == start.keys() and ("ctx_vision" in after) == (bottom_limit != 1)
    assert all((after[name] - start[name]).abs().max() > 1e-5 for name in start)
    assert all(torch.equal(tensor, before[name]) for name, tensor in vit_backbone.model.state_dict().items())


def test_the_recipe_is_the_scripts(vit_backbone, train, monkeypatch):
    seen = {}

    def spy(groups, loss_fn, n, **settings):
        seen.update(settings, groups=[{k: v for k, v in g.items() if k != "params"} for g in groups])
        seen["text"] = [tuple(p.shape) for p in groups[0]["params"]]
        return {}

    monkeypatch.setattr("vlmcourse.training.fit", spy)
    method = CAVPT(vit_backbone, seed=3).fit(train)
    assert seen.pop("text") == [(16, vit_backbone.text_width)] and method.ctx_vision.shape == (2, 10, 48)
    assert seen.pop("groups") == [{"lr_scale": 0.2, "warmup_epochs": 1}, {}]
    seen.pop("on_epoch")
    assert seen == {
        "epochs": 60, "seed": 3, "progress": False, "lr": 0.01, "batch_size": 32, "momentum": 0.9,
        "weight_decay": 5e-4, "warmup_epochs": 10,
    }  # fmt: skip
    assert (method.alpha, method.pretrain_epochs, method.n_class_prompts, method.n_extra) == (0.3, 30, 10, 10)


def test_the_phase_changes_after_the_pretraining_epochs(vit_backbone, train):
    phases = []
    method = CAVPT(vit_backbone, **SHORT | {"alpha": 0.0})
    inner = method._loss

    def watch(tokens, labels, indices):
        loss, parts = inner(tokens, labels, indices)
        phases.append((method.epoch, bool((loss - parts["cross_entropy"]).abs() > 1e-4)))
        return loss, parts

    method._loss = watch
    method.fit(train)
    assert phases == [(0, True)] * 2 + [(1, True)] * 2 + [(2, False)] * 2 + [(3, False)] * 2
    assert method.fit(train).history["loss"] and phases[8] == (0, True), "a second fit starts anew"


def test_the_method_moves_to_other_classes(vit_backbone, train, test_split):
    method = CAVPT(vit_backbone, **SHORT).fit(train)
    before = method.logits(test_split)
    moved = method.for_classes(["yak", "dog", "a rather long name of a class"], ("an icon of a {}.",))
    fresh = class_features(vit_backbone, moved.class_names, ("an icon of a {}.",))
    assert torch.equal(moved.text, fresh) and torch.equal(moved.ctx, method.ctx)
    torch.testing.assert_close(moved.class_text()[1], method.class_text()[1], atol=1e-5, rtol=0)
    assert moved.logits(test_split).shape == (20, 3)
    assert torch.equal(method.logits(test_split), before)
    same = moved.for_classes(train.class_names, train.templates)
    torch.testing.assert_close(same.logits(test_split), before, atol=1e-4, rtol=0)


@pytest.mark.parametrize("batch_size", [1, 3, 100])
@pytest.mark.parametrize("views", [1, 2, None])
def test_odd_batches_and_every_kind_of_view(vit_backbone, train, batch_size, views):
    method = CAVPT(vit_backbone, **SHORT | {"epochs": 1, "batch_size": batch_size, "views": views}).fit(train)
    assert all(torch.isfinite(t).all() for t in method.learned_parameters().values())


def test_words_positions_and_templates(vit_backbone, train):
    method = CAVPT(
        vit_backbone, ctx_init="a photo of a", class_token_position="middle", templates="an icon of a {}.",
        **SHORT | {"epochs": 1},
    ).fit(train)  # fmt: skip
    assert method.ctx.shape == (4, 32)
    assert torch.equal(method.text, class_features(vit_backbone, train.class_names, "an icon of a {}."))


def test_frozen_features_of_the_one_view_are_computed_once(vit_backbone, train, monkeypatch):
    known, inner = [], CAVPT.candidates

    def spy(self, tokens, pooled=None):
        out = inner(self, tokens, pooled)
        known.append(pooled is not None and torch.equal(out[0], inner(self, tokens)[0]))
        return out

    monkeypatch.setattr(CAVPT, "candidates", spy)
    for views in (1, 2):
        CAVPT(vit_backbone, **SHORT | {"epochs": 1, "views": views}).fit(train)
    assert known == [True, True, False, False]


def test_single_images_and_seeds(vit_backbone, train, test_split):
    torch.manual_seed(0)
    one = CAVPT(vit_backbone, seed=1, **SHORT).fit(train)
    logits = one.logits(test_split)
    torch.testing.assert_close(one.logits(test_split.images[7]), logits[7:8], atol=1e-4, rtol=0)
    torch.testing.assert_close(one.logits(image_tokens(vit_backbone, test_split.images)), logits, atol=1e-4, rtol=0)
    torch.manual_seed(1)
    assert torch.equal(logits, CAVPT(vit_backbone, seed=1, **SHORT).fit(train).logits(test_split))
    assert (logits - CAVPT(vit_backbone, seed=2, **SHORT).fit(train).logits(test_split)).abs().max() > 1e-4
    assert one.encoder is TOKENS


def test_loss_stays_on_the_backbones_device(vit_backbone, fake_cuda):
    backbone = fake_cuda(vit_backbone)
    method = CAVPT(backbone, **SMALL, alpha=0)
    method.class_names, method.templates = ("cat", "hot air balloon"), ("a photo of a {}.",)
    method._start()
    method.draw = method.train_pooled = None
    tokens, labels = torch.randn(3, 17, 48, device="cuda"), torch.zeros(3, device="cuda").long()
    loss, parts = method._loss(tokens, labels, None)
    assert {t.device.type for t in (loss, *parts.values())} == {"cuda"}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"branches": ()}, "branches"),
        ({"branches": "image"}, "branches=.'image'"),
        ({"bottom_limit": 0}, "bottom_limit=0"),
        ({"bottom_limit": 4}, "bottom_limit=4.*3 layers"),
        ({"n_ctx": 0}, "n_ctx=0"),
        ({"n_class_prompts": -1}, "n_class_prompts=-1"),
        ({"n_extra": 1.5}, "n_extra=1.5"),
        ({"attention_width": 0}, "attention_width=0"),
        ({"pretrain_epochs": -1}, "pretrain_epochs=-1"),
        ({"alpha": -0.1}, "alpha=-0.1"),
        ({"text_lr": 0}, "text_lr=0"),
        ({"n_ctx_vision": -1}, "n_ctx_vision=-1"),
        ({"class_token_position": "left"}, "class_token_position='left'"),
        ({"templates": "no slot"}, "no slot"),
        ({"lr": 0}, "lr=0"),
    ],
)
def test_bad_arguments_are_named(vit_backbone, train, arguments, message):
    with pytest.raises(ValueError, match=message):
        CAVPT(vit_backbone, **arguments).fit(train)


def test_it_needs_a_vit_and_a_fit_and_class_aware_layers(vit_backbone, resnet_backbone, train):
    with pytest.raises(ValueError, match="CAVPT needs a ViT"):
        CAVPT(resnet_backbone)
    with pytest.raises(RuntimeError, match="fit"):
        CAVPT(vit_backbone).look(train)
    with pytest.raises(ValueError, match="class-aware"):
        CAVPT(vit_backbone, branches=("text", "visual"), epochs=0).fit(train).look(train)
