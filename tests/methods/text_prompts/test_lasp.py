"""LASP: the text-to-text loss by hand in both directions, virtual classes, groups, re-calibration, degenerate cases."""

import pytest
import torch
import torch.nn.functional as F

from vlmcourse.backbone.features import image_features
from vlmcourse.methods.baselines.zero_shot import ZeroShot
from vlmcourse.methods.class_text import GENERAL_TEMPLATES, template_features
from vlmcourse.methods.text_prompts import lasp
from vlmcourse.methods.text_prompts.coop import CoOp
from vlmcourse.methods.text_prompts.lasp import LASP, text_to_text
from vlmcourse.methods.tuned_tower import block_norms

VIRTUAL = ("yak", "paper boat", "green_tea")
FEW = ("a photo of a {}.", "an icon of a {}.", "a drawing of one {}.", "the {}.")
PLAIN = {"tune_norms": False, "text_bias": False, "clip_norm": None}


def unit(*shape, seed=0):
    return F.normalize(torch.randn(*shape, generator=torch.Generator().manual_seed(seed)), dim=-1)


def settings(tower, **more):
    """Quick arguments that work on both towers."""
    return {"epochs": 4, "hand_templates": FEW, "batch_size": 8, "tune_norms": tower.is_vit} | more


# ---- the loss -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("softmax", ["learned", "hand"])
def test_loss_is_as_written(softmax):
    learned, hand, s = unit(5, 8), unit(3, 5, 8, seed=1), 7.0
    terms = []
    for k in range(3):
        for c in range(5):
            scores = s * (learned @ hand[k, c] if softmax == "learned" else hand[k] @ learned[c])
            terms.append(-(scores[c] - scores.exp().sum().log()))
    value = text_to_text(learned, hand, s, softmax)
    assert float(value) == pytest.approx(float(torch.stack(terms).mean()), rel=1e-5)


def test_default_is_the_released_form_a_cross_entropy_over_dimension_one():
    learned, hand = unit(5, 8), unit(3, 5, 8, seed=1)
    Z = 7.0 * learned[None] @ hand.transpose(1, 2)  # (K, C learned, C hand)
    released = F.cross_entropy(Z, torch.arange(5).expand(3, -1))
    assert float(text_to_text(learned, hand, 7.0)) == pytest.approx(float(released), rel=1e-6)
    assert float(text_to_text(learned, hand, 7.0, "hand")) != pytest.approx(float(released), rel=1e-3)


def test_directions_agree_where_the_template_is_the_context():
    same = unit(5, 8)
    one, other = (float(text_to_text(same, same[None], 9.0, softmax)) for softmax in ("learned", "hand"))
    assert one == pytest.approx(other, rel=1e-5)


def test_loss_does_not_depend_on_the_order_of_names_or_on_repeated_templates(generator):
    learned, hand, order = unit(6, 8), unit(2, 6, 8, seed=1), torch.randperm(6, generator=generator)
    for softmax in ("learned", "hand"):
        value = text_to_text(learned, hand, 5.0, softmax)
        torch.testing.assert_close(text_to_text(learned[order], hand[:, order], 5.0, softmax), value)
        torch.testing.assert_close(text_to_text(learned, hand.repeat(2, 1, 1), 5.0, softmax), value)
        assert (text_to_text(learned[order], hand, 5.0, softmax) - value).abs() > 1e-3, "a wrong pairing costs"


def test_chunks_change_neither_value_nor_gradient(monkeypatch):
    hand, results = unit(7, 5, 8, seed=1), []
    for largest in (2**25, 50):  # 50: two templates of 5 x 5 at a time
        monkeypatch.setattr(lasp, "LARGEST", largest)
        learned = unit(5, 8).requires_grad_()
        value = text_to_text(learned, hand, 5.0)
        results.append((value.detach(), *torch.autograd.grad(value, learned)))
    for one, other in zip(*results, strict=True):
        torch.testing.assert_close(one, other)


# ---- degenerate settings --------------------------------------------------------------------------------------------


def test_untrained_it_is_zero_shot(tower, train, test_split):
    for groups in (1, 3):
        start = LASP(tower, **settings(tower, epochs=0, groups=groups)).fit(train)
        zero_shot = ZeroShot(tower, templates="a photo of a {}.").fit(train)
        torch.testing.assert_close(start.logits(test_split), zero_shot.logits(test_split), atol=2e-3, rtol=0)


def test_without_text_loss_and_recalibration_it_is_coop(tower, train, test_split):
    recipe = {"epochs": 5, "lr": 0.01, "batch_size": 8, "warmup_epochs": 2}
    plain = LASP(tower, alpha=0.0, **PLAIN, **recipe).fit(train)
    coop = CoOp(tower, ctx_init="a photo of a", **recipe).fit(train)
    torch.testing.assert_close(plain.ctx[0, 0], coop.ctx, atol=1e-4, rtol=0)
    assert plain.history["ce"] == pytest.approx(coop.history["loss"], abs=1e-4)


# ---- what is learned ------------------------------------------------------------------------------------------------


def test_exactly_context_bias_and_block_norms_are_learned(vit_backbone, train):
    before = {name: tensor.clone() for name, tensor in vit_backbone.model.state_dict().items()}
    method = LASP(vit_backbone, **settings(vit_backbone)).fit(train)
    learned = method.learned_parameters()
    assert list(learned) == ["ctx", "text_bias", *block_norms(vit_backbone)]
    assert learned["ctx"].shape == (1, 1, 4, 32) and learned["text_bias"].shape == (16,)
    assert method.n_learned == 4 * 32 + 16 + 3 * 4 * 48
    assert learned["text_bias"].abs().sum() > 0
    assert all(not torch.equal(learned[name], before[name]) for name in block_norms(vit_backbone))
    assert all(torch.equal(tensor, before[name]) for name, tensor in vit_backbone.model.state_dict().items())
    assert all(p.grad is None and not p.requires_grad for p in vit_backbone.model.parameters())


def test_norms_move_at_a_tenth_of_the_rate(vit_backbone, train):
    arguments = settings(vit_backbone, epochs=1, warmup_epochs=0, momentum=0.0, weight_decay=0.0, batch_size=16)
    changes, name = [], "visual.transformer.resblocks.1.ln_1.weight"
    for scale in (0.1, 1.0):  # one step
        method = LASP(vit_backbone, norm_lr_scale=scale, clip_norm=None, **arguments).fit(train)
        changes.append(method.learned_parameters()[name] - dict(vit_backbone.model.named_parameters())[name])
    torch.testing.assert_close(changes[0] * 10, changes[1], rtol=0.05, atol=1e-5)
    assert changes[1].abs().max() > 1e-3


@pytest.mark.parametrize("arguments", [{}, {"groups": 2}, {"softmax": "hand"}, {"ctx_init": None, "n_ctx": 3}])
def test_fitting_lowers_the_loss_and_logs_its_parts(tower, splits, arguments):
    arguments = settings(tower, epochs=12, lr=0.01, batch_size=16, noise=0.0) | arguments
    history = LASP(tower, **arguments).fit(splits(per_class=8, seed=1)).history
    assert history["loss"][-1] < history["loss"][0] - 0.03
    for loss, ce, tt in zip(history["loss"], history["ce"], history["text_to_text"], strict=True):
        assert loss == pytest.approx(ce + 5 * tt, abs=1e-4)


def test_the_text_loss_uses_the_bias_and_all_names(tower, train):
    method = LASP(tower, **settings(tower, epochs=3, virtual_names=VIRTUAL, noise=0.0, warmup_epochs=0)).fit(train)
    names = (*train.class_names, *VIRTUAL)
    raw = tower.encode_text_embeddings(
        method.all_prompts.insert(method.ctx[0]), method.all_prompts.eot, normalise=False
    )
    t = F.normalize(raw + method.learned_parameters()["text_bias"], dim=-1)
    h = template_features(tower, names, FEW).transpose(0, 1)
    loss, parts = method._loss(method.inputs(train)[:3], train.labels[:3])
    expected = text_to_text(t, h, tower.logit_scale)
    assert float(parts["text_to_text"]) == pytest.approx(float(expected), rel=1e-4)
    assert float(loss) == pytest.approx(float(parts["ce"] + 5 * parts["text_to_text"]), rel=1e-5)
    torch.testing.assert_close(method.text, t[: len(train.class_names)], atol=1e-5, rtol=0)


def test_virtual_names_compete_with_images_only_if_told(vit_backbone, train):
    features, values = image_features(vit_backbone, train)[:5], {}
    for negatives in (False, True):
        arguments = settings(vit_backbone, epochs=0, virtual_names=VIRTUAL, virtual_negatives=negatives)
        method = LASP(vit_backbone, **arguments).fit(train)
        values[negatives] = float(method._loss(method.inputs(train)[:5], train.labels[:5])[1]["ce"])
    few = F.cross_entropy(vit_backbone.logit_scale * features @ method.text.T, train.labels[:5])
    assert values[False] == pytest.approx(float(few), abs=1e-4) and values[True] > values[False] + 0.01


def test_a_virtual_name_that_is_a_class_counts_once(vit_backbone, train):
    method = LASP(vit_backbone, **settings(vit_backbone, epochs=0, virtual_names=("dog", "yak"))).fit(train)
    assert method.hand.shape == (4, len(train.class_names) + 1, 16)


def test_groups_have_their_own_templates_and_are_averaged(vit_backbone, train):
    arguments = settings(vit_backbone, groups=2, noise=0.0, warmup_epochs=0, ctx_init=None, n_ctx=2)
    method = LASP(vit_backbone, **arguments).fit(train)
    assert method.ctx.shape == (2, 1, 2, 32) and not torch.equal(method.ctx[0], method.ctx[1])
    text, scale = method.group_features(), vit_backbone.logit_scale
    torch.testing.assert_close(method.text, F.normalize(text[0] + text[1], dim=-1), atol=1e-6, rtol=0)
    hand = template_features(vit_backbone, train.class_names, FEW).transpose(0, 1)
    expected = (text_to_text(text[0], hand[[0, 2]], scale) + text_to_text(text[1], hand[[1, 3]], scale)) / 2
    assert float(method._text_to_text(text)) == pytest.approx(float(expected), rel=1e-5)


def test_uneven_groups_weigh_templates_alike(vit_backbone, train):
    method = LASP(vit_backbone, **settings(vit_backbone, groups=3, noise=0.0, epochs=0)).fit(train)
    text, scale = method._encode(method.prompts), vit_backbone.logit_scale  # equal contexts, 2 + 1 + 1 templates
    expected = text_to_text(text[0], method.hand, scale)
    assert float(method._text_to_text(text)) == pytest.approx(float(expected), rel=1e-5)


def test_noise_comes_half_of_the_time_by_seed(vit_backbone, train):
    method = LASP(vit_backbone, **settings(vit_backbone, epochs=0, seed=3)).fit(train)
    text = method._encode(method.prompts)
    values = [float(method._text_to_text(text)) for _ in range(60)]
    clean = float(text_to_text(text[0], method.hand, vit_backbone.logit_scale))
    quiet = sum(abs(value - clean) < 1e-5 for value in values)
    assert 15 < quiet < 45
    again = LASP(vit_backbone, **settings(vit_backbone, epochs=0, seed=3)).fit(train)
    assert [float(again._text_to_text(text)) for _ in range(5)] == values[:5]


def test_the_general_templates_are_34_different_ones():
    assert len(set(GENERAL_TEMPLATES)) == 34


# ---- use ------------------------------------------------------------------------------------------------------------


def test_images_and_splits_pass_the_tuned_tower(vit_backbone, train, test_split):
    method = LASP(vit_backbone, **settings(vit_backbone, warmup_epochs=0, norm_lr_scale=10)).fit(train)
    images = test_split.images
    torch.testing.assert_close(method.logits(test_split), method.logits(images), atol=1e-4, rtol=0)
    torch.testing.assert_close(method.logits(images[:1]), method.logits(test_split)[:1], atol=1e-3, rtol=0)
    frozen = vit_backbone.logit_scale * image_features(vit_backbone, test_split) @ method.text.T
    assert (method.logits(test_split) - frozen).abs().max() > 1e-2, "the norms were tuned"
    with pytest.raises(ValueError, match="features of the frozen tower"):
        method.logits(image_features(vit_backbone, test_split))
    untuned = LASP(vit_backbone, **settings(vit_backbone, tune_norms=False)).fit(train)
    features = image_features(vit_backbone, test_split)
    torch.testing.assert_close(untuned.logits(features), untuned.logits(test_split))


def test_what_was_learned_moves_to_other_classes(tower, train, test_split):
    method = LASP(tower, **settings(tower, groups=2)).fit(train)
    moved = method.for_classes(["a long name of a class", "dog"])
    torch.testing.assert_close(moved.logits(test_split)[:, 1], method.logits(test_split)[:, 1], atol=1e-3, rtol=0)
    assert moved.class_names == ("a long name of a class", "dog")


def test_equal_seeds_give_equal_results_and_a_second_fit_starts_afresh(vit_backbone, train, test_split):
    one = LASP(vit_backbone, **settings(vit_backbone, seed=1)).fit(train)
    first = one.logits(test_split)
    assert torch.equal(one.fit(train).logits(test_split), first)
    assert not torch.equal(LASP(vit_backbone, **settings(vit_backbone, seed=2)).fit(train).logits(test_split), first)


@pytest.mark.parametrize("batch_size", [1, 3, 100])
@pytest.mark.parametrize("views", [2, None])
def test_odd_batches_and_every_kind_of_view(tower, train, batch_size, views):
    method = LASP(tower, **settings(tower, epochs=2, batch_size=batch_size, views=views)).fit(train)
    assert torch.isfinite(method.ctx).all() and len(method.history["text_to_text"]) == 2


def test_the_released_recipe_is_the_default(vit_backbone, train, monkeypatch):
    seen = {}

    def spy(parameters, loss_fn, n, **given):
        seen.update(given, scales=[p["lr_scale"] for p in parameters if isinstance(p, dict)], plain=len(parameters) - 1)
        return {}

    monkeypatch.setattr("vlmcourse.training.fit", spy)
    method = LASP(vit_backbone, seed=3).fit(train)
    seen.pop("on_epoch")
    assert (method.alpha, method.n_ctx, len(method.hand_templates)) == (5.0, 4, 34)
    assert seen == {
        "epochs": 25, "seed": 3, "progress": False, "lr": 0.032, "batch_size": 32, "momentum": 0.9,
        "weight_decay": 5e-4, "warmup_epochs": 3, "clip_norm": 1.0, "scales": [0.1], "plain": 2,
    }  # fmt: skip


def test_nearest_words_of_untrained_words_are_the_words(vit_backbone, train):
    method = LASP(vit_backbone, **settings(vit_backbone, epochs=0, groups=2))
    with pytest.raises(RuntimeError, match="fit"):
        method.nearest_words()
    assert [row[0][0] for row in method.fit(train).nearest_words(k=2, group=1)] == ["a", "photo", "of", "a"]


def test_loss_stays_on_the_backbones_device(tower, fake_cuda):
    backbone = fake_cuda(tower)
    method = LASP(backbone, **settings(tower, virtual_names=VIRTUAL, groups=2, noise_probability=1.0))
    method.class_names = ("cat", "dog")
    method.prompts = method._prompts(method.class_names)
    method.all_prompts = method._prompts((*method.class_names, *VIRTUAL))
    method.hand = template_features(backbone, (*method.class_names, *VIRTUAL), FEW).transpose(0, 1)
    method.bias = torch.zeros(backbone.embed_dim, device="cuda", requires_grad=True)
    method.ctx = method._initial_context().requires_grad_()
    features, labels = torch.randn(3, backbone.embed_dim, device="cuda"), torch.zeros(3, device="cuda").long()
    text = method._encode(method.all_prompts)
    value = text_to_text(text[0], method.hand + 0.1, backbone.logit_scale, "hand")
    assert text.device.type == value.device.type == "cuda" and value.requires_grad
    assert features.device == labels.device


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"csc": True, "ctx_init": None}, "csc=True"),
        ({"groups": 0}, "groups=0"),
        ({"groups": 5}, "groups=5 must be a whole number from 1 to 4"),
        ({"softmax": "both"}, "softmax='both'"),
        ({"alpha": -1}, "alpha=-1"),
        ({"noise": float("nan")}, "noise=nan"),
        ({"norm_lr_scale": -0.1}, "norm_lr_scale=-0.1"),
        ({"noise_probability": 2}, "noise_probability=2"),
        ({"virtual_names": "yak"}, "virtual_names='yak'"),
        ({"hand_templates": ()}, "templates"),
        ({"epochs": -1}, "epochs=-1"),
    ],
)
def test_bad_arguments_are_named(vit_backbone, train, arguments, message):
    with pytest.raises(ValueError, match=message):
        LASP(vit_backbone, **(settings(vit_backbone) | arguments)).fit(train)


def test_a_resnet_has_no_norms_to_tune(resnet_backbone):
    with pytest.raises(ValueError, match="LASP with tune_norms=True needs a ViT"):
        LASP(resnet_backbone)


def test_half_precision_backbones_train_the_text_side(make_backbone, train, test_split):
    backbone = make_backbone("vit").to(dtype=torch.bfloat16)
    method = LASP(backbone, **settings(backbone, tune_norms=False, epochs=2)).fit(train)
    assert method.ctx.dtype == method.bias.dtype == torch.float32
    assert torch.isfinite(method.logits(test_split)).all()
