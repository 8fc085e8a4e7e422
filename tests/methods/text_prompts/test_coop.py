"""CoOp: the forward pass against a naive float64 one, the recipe, the invariants of the method, transfer, errors."""

import copy

import pytest
import torch
import torch.nn.functional as F

from vlmcourse.backbone.features import image_features
from vlmcourse.methods.baselines.zero_shot import ZeroShot
from vlmcourse.methods.context import random_context
from vlmcourse.methods.text_prompts.coop import CoOp, epochs_for
from vlmcourse.training import coop_lr

POSITIONS = ("end", "middle", "front")


def naive_logits(backbone, ctx, position, class_names, features):
    """CoOp's forward as written in the paper: float64, all L tokens, one class after the other."""
    model, tokenizer = copy.deepcopy(backbone.model).double(), backbone.tokenizer
    ctx, half, rows = ctx.double(), len(ctx) // 2, []
    for name in class_names:
        words = tokenizer.encode(name.replace("_", " "))
        sos, pieces, dot, eot = (
            model.token_embedding(torch.tensor(ids))
            for ids in ([tokenizer.sot_token_id], words, tokenizer.encode("."), [tokenizer.eot_token_id])
        )
        order = {
            "end": [sos, ctx, pieces, dot, eot],
            "middle": [sos, ctx[:half], pieces, ctx[half:], dot, eot],
            "front": [sos, pieces, ctx, dot, eot],
        }[position]
        x = torch.cat(order)
        end = len(x) - 1
        x = F.pad(x, (0, 0, 0, backbone.context_length - len(x))) + model.positional_embedding
        x = model.transformer(x[None], attn_mask=model.attn_mask)[0]
        rows.append(model.ln_final(x)[end] @ model.text_projection)
    text = F.normalize(torch.stack(rows), dim=-1)
    return backbone.logit_scale.double() * features.double() @ text.T


@pytest.mark.parametrize("position", POSITIONS)
@pytest.mark.parametrize("n_ctx", [1, 5])
def test_logits_equal_the_naive_forward(vit_backbone, train, test_split, position, n_ctx):
    method = CoOp(vit_backbone, n_ctx=n_ctx, class_token_position=position, epochs=2, lr=0.1).fit(train)
    ctx = method.learned_parameters()["ctx"]
    features = image_features(vit_backbone, test_split)
    expected = naive_logits(vit_backbone, ctx, position, train.class_names, features)
    torch.testing.assert_close(method.logits(test_split).double(), expected, atol=1e-4, rtol=0)


def test_class_specific_context_equals_the_naive_forward_class_by_class(vit_backbone, train, test_split):
    method = CoOp(vit_backbone, n_ctx=3, csc=True, epochs=2, lr=0.1).fit(train)
    ctx, features = method.learned_parameters()["ctx"], image_features(vit_backbone, test_split)
    assert ctx.shape == (4, 3, vit_backbone.text_width)
    columns = [
        naive_logits(vit_backbone, ctx[c], "end", [name], features)[:, 0] for c, name in enumerate(train.class_names)
    ]
    torch.testing.assert_close(method.logits(test_split).double(), torch.stack(columns, 1), atol=1e-4, rtol=0)


@pytest.mark.parametrize(
    ("position", "template"),
    [("end", "a photo of a {}."), ("middle", "a photo {} of a."), ("front", "{} a photo of a.")],
)
def test_init_words_start_at_zero_shot_with_the_re_ordered_sentence(tower, train, test_split, position, template):
    start = CoOp(tower, ctx_init="a photo of a", class_token_position=position, epochs=0).fit(train)
    zero_shot = ZeroShot(tower, templates=template).fit(train)
    assert start.n_ctx == 4
    torch.testing.assert_close(start.logits(test_split), zero_shot.logits(test_split), atol=1e-4, rtol=0)


@pytest.mark.parametrize("arguments", [{}, {"csc": True}, {"class_token_position": "middle"}, {"ctx_init": "a photo"}])
def test_fitting_lowers_the_loss_and_only_changes_the_context(tower, splits, arguments):
    train = splits(per_class=8, seed=1)
    before = {name: tensor.clone() for name, tensor in tower.model.state_dict().items()}
    method = CoOp(tower, n_ctx=4, epochs=12, lr=0.001, batch_size=16, **arguments).fit(train)
    assert method.history["loss"][-1] < method.history["loss"][0] - 0.03
    assert all(torch.equal(tensor, before[name]) for name, tensor in tower.model.state_dict().items())
    assert all(p.grad is None for p in tower.model.parameters())
    assert list(method.learned_parameters()) == ["ctx"]
    vectors = method.n_ctx * (4 if method.csc else 1)
    assert method.n_learned == vectors * tower.text_width


def test_the_recipe_is_the_papers(vit_backbone, train, monkeypatch):
    seen = {}

    def spy(parameters, loss_fn, n, **settings):
        seen.update(settings, n=n, shape=tuple(parameters[0].shape), std=parameters[0].std().item())
        return {}

    monkeypatch.setattr("vlmcourse.training.fit", spy)
    CoOp(vit_backbone, seed=3).fit(train)
    assert seen.pop("on_epoch")(0, {}) is None  # CoOp itself never stops early
    assert seen.pop("shape") == (16, vit_backbone.text_width) and seen.pop("std") == pytest.approx(0.02, rel=0.1)
    assert seen == {
        "n": 16, "epochs": 100, "seed": 3, "progress": False,
        "lr": 2e-3, "batch_size": 32, "momentum": 0.9, "weight_decay": 5e-4, "warmup_epochs": 1,
    }  # fmt: skip


def test_lr_history_is_the_closed_form(vit_backbone, train):
    history = CoOp(vit_backbone, n_ctx=2, epochs=5, lr=0.0035).fit(train).history
    assert history["lr"] == [coop_lr(e, 5, 0.0035) for e in range(5)]
    assert history["lr"] == pytest.approx([1e-5, 0.0035, 0.003166, 0.002291, 0.001209], abs=5e-7)


def test_epochs_follow_the_shots(splits):
    assert [epochs_for(splits(shots)) for shots in (1, 2, 4, 8, 16)] == [50, 100, 100, 200, 200]


def test_the_start_is_drawn_from_the_seed(vit_backbone, train, test_split):
    start = CoOp(vit_backbone, n_ctx=4, epochs=0, seed=7).fit(train)
    assert torch.equal(start.ctx, random_context(vit_backbone, 4, seed=7))
    one, same, other = (CoOp(vit_backbone, n_ctx=4, epochs=3, seed=s).fit(train).logits(test_split) for s in (1, 1, 2))
    assert torch.equal(one, same) and (one - other).abs().max() > 1e-4


def test_fit_ignores_the_global_generator_and_validation(vit_backbone, train, val, test_split):
    torch.manual_seed(0)
    one = CoOp(vit_backbone, n_ctx=2, epochs=2, views=None).fit(train).logits(test_split)
    torch.manual_seed(1)
    two = CoOp(vit_backbone, n_ctx=2, epochs=2, views=None).fit(train, val).logits(test_split)
    assert torch.equal(one, two)


def test_shared_prefix_and_plain_pass_train_alike(vit_backbone, train):
    shared, plain = (
        CoOp(vit_backbone, n_ctx=4, epochs=5, lr=0.02, share_prefix=share).fit(train) for share in (True, False)
    )
    torch.testing.assert_close(shared.ctx, plain.ctx, atol=1e-5, rtol=0)


def test_cached_text_gives_the_logits_of_a_fresh_text_pass(vit_backbone, train, test_split):
    method = CoOp(vit_backbone, n_ctx=4, epochs=2).fit(train)
    fresh = vit_backbone.logit_scale * image_features(vit_backbone, test_split) @ method.text_features().T
    torch.testing.assert_close(method.logits(test_split), fresh, atol=1e-4, rtol=0)


@pytest.mark.parametrize("batch_size", [1, 3, 16, 100])
@pytest.mark.parametrize("views", [1, 3, None])
def test_odd_batches_and_every_kind_of_view(tower, train, batch_size, views):
    method = CoOp(tower, n_ctx=2, epochs=2, batch_size=batch_size, views=views).fit(train)
    assert len(method.history["loss"]) == 2 and torch.isfinite(method.ctx).all()


def test_one_image_of_each_class(vit_backbone, splits):
    assert CoOp(vit_backbone, n_ctx=2, epochs=2).fit(splits(per_class=1)).history["loss"]


def test_the_context_moves_to_other_classes(vit_backbone, train, test_split):
    method = CoOp(vit_backbone, n_ctx=4, epochs=3, lr=0.1).fit(train)
    before = method.logits(test_split)
    moved = method.for_classes(["a very long name of a class", "dog"])
    assert moved.class_names == ("a very long name of a class", "dog") and torch.equal(moved.ctx, method.ctx)
    torch.testing.assert_close(moved.logits(test_split)[:, 1], before[:, 1], atol=1e-4, rtol=0)
    torch.testing.assert_close(method.for_classes(train.class_names).logits(test_split), before)
    assert torch.equal(method.logits(test_split), before), "the method itself stays as it was"
    with pytest.raises(ValueError, match="coop cannot move to classes it was not fitted on, such as 'yak'.*CSC"):
        CoOp(vit_backbone, n_ctx=2, csc=True, epochs=0).fit(train).for_classes(["dog", "yak"])


def test_forward_and_loss_stay_on_the_backbones_device(tower, fake_cuda):
    backbone = fake_cuda(tower)
    for arguments in ({}, {"csc": True}, {"class_token_position": "middle"}, {"ctx_init": "a photo of a"}):
        method = CoOp(backbone, n_ctx=4, **arguments)
        method.class_names = ("cat", "hot air balloon")
        method.prompts, method.ctx = method._prompts(method.class_names), method._initial_context().requires_grad_()
        features, labels = torch.randn(3, backbone.embed_dim, device="cuda"), torch.zeros(3, device="cuda").long()
        loss = method._loss(features, labels)
        assert loss.requires_grad and loss.device.type == "cuda"
        method._freeze()
        assert method.ctx.device.type == method._logits(features).device.type == "cuda"


def test_nearest_words_of_untrained_words_are_the_words(vit_backbone, train):
    method = CoOp(vit_backbone, ctx_init="a photo of", epochs=0).fit(train)
    assert [row[0][0] for row in method.nearest_words(k=3)] == ["a", "photo", "of"]
    specific = CoOp(vit_backbone, n_ctx=2, csc=True, epochs=0).fit(train)
    assert len(specific.nearest_words(k=3, class_name="dog")) == 2
    with pytest.raises(ValueError, match="class_name=None must be one of"):
        specific.nearest_words()
    with pytest.raises(RuntimeError, match="fit"):
        CoOp(vit_backbone).nearest_words()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"n_ctx": 0}, "n_ctx=0"),
        ({"n_ctx": 2.0}, "n_ctx=2.0"),
        ({"ctx_init": "a photo of a", "csc": True}, "csc=True and ctx_init='a photo of a'"),
        ({"ctx_init": ""}, "ctx_init=''"),
        ({"class_token_position": "top"}, "class_token_position='top'"),
        ({"n_ctx": 40}, "n_ctx=40 and the class name"),
        ({"views": 0}, "views=0"),
        ({"crop_scale": (0.0, 1.0)}, "crop_scale="),
        ({"epochs": -1}, "epochs=-1"),
        ({"lr": 0}, "lr=0"),
        ({"batch_size": 0}, "batch_size=0"),
    ],
)
def test_bad_arguments_are_named(vit_backbone, train, arguments, message):
    with pytest.raises(ValueError, match=message):
        CoOp(vit_backbone, **arguments).fit(train)
