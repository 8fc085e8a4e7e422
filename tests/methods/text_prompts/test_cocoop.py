"""CoCoOp: the batched pass against a naive loop, chunks, the recipe, the invariants of the method, transfer, errors."""

import copy

import pytest
import torch
import torch.nn.functional as F

from vlmcourse.backbone.features import image_features
from vlmcourse.methods.baselines.zero_shot import ZeroShot
from vlmcourse.methods.text_prompts.cocoop import CoCoOp
from vlmcourse.methods.text_prompts.coop import CoOp


def naive_logits(method, features):
    """CoCoOp's forward as the paper writes it: float64, all L tokens, one image and one class after the other."""
    backbone = method.backbone
    model, bpe = copy.deepcopy(backbone.model).double(), backbone.tokenizer
    w1, b1, w2, b2 = (p.detach().double() for p in method.meta_net.parameters())
    rows = []
    for f in features.double():
        ctx, row = method.ctx.detach().double() + (w2 @ (w1 @ f + b1).clamp(min=0) + b2), []  # the same for all tokens
        for name in method.class_names:
            sos, tail = ([bpe.sot_token_id], bpe.encode(name.replace("_", " ") + ".") + [bpe.eot_token_id])
            x = torch.cat([model.token_embedding(torch.tensor(sos)), ctx, model.token_embedding(torch.tensor(tail))])
            end = len(x) - 1
            x = F.pad(x, (0, 0, 0, backbone.context_length - len(x))) + model.positional_embedding
            x = model.ln_final(model.transformer(x[None], attn_mask=model.attn_mask)[0, end]) @ model.text_projection
            row.append(backbone.logit_scale.double() * f @ F.normalize(x, dim=-1))
        rows.append(torch.stack(row))
    return torch.stack(rows)


def prepared(backbone, class_names=("cat", "hot air balloon", "dog"), **arguments):
    """An untrained CoCoOp with its learned tensors open for gradients, as inside fit."""
    method = CoCoOp(backbone, **arguments)
    method.class_names = tuple(class_names)
    method.prompts, method.ctx = method._prompts(method.class_names), method._initial_context().requires_grad_()
    return method


@pytest.fixture
def some(vit_backbone):
    """Seven normalised features and labels."""
    draw = torch.Generator().manual_seed(5)
    features = F.normalize(torch.randn(7, vit_backbone.embed_dim, generator=draw), dim=-1)
    return features, torch.randint(0, 3, (7,), generator=draw)


@pytest.mark.parametrize("share_prefix", [True, False])
@pytest.mark.parametrize("arguments", [{}, {"ctx_init": None, "n_ctx": 1}, {"hidden": 5}])
def test_logits_equal_the_naive_loop(vit_backbone, train, test_split, arguments, share_prefix):
    method = CoCoOp(vit_backbone, epochs=2, lr=0.05, batch_size=4, share_prefix=share_prefix, **arguments).fit(train)
    expected = naive_logits(method, image_features(vit_backbone, test_split))
    torch.testing.assert_close(method.logits(test_split).double(), expected, atol=1e-4, rtol=0)


def test_without_shift_it_is_coop(tower, train, test_split):
    start, coop, zero_shot = (
        CoCoOp(tower, zero_start=True, epochs=0).fit(train),
        CoOp(tower, ctx_init="a photo of a", epochs=0).fit(train),
        ZeroShot(tower, templates="a photo of a {}.").fit(train),
    )
    torch.testing.assert_close(start.logits(test_split), coop.logits(test_split), atol=1e-4, rtol=0)
    torch.testing.assert_close(start.logits(test_split), zero_shot.logits(test_split), atol=1e-4, rtol=0)
    shifted = CoCoOp(tower, epochs=0).fit(train)
    assert (shifted.logits(test_split) - coop.logits(test_split)).abs().max() > 1e-2, "the paper's start is another one"


def test_one_step_of_coop_and_cocoop_without_shift_moves_the_context_alike(vit_backbone, train):
    settings = {"ctx_init": "a photo of a", "epochs": 1, "warmup_epochs": 0, "lr": 0.01, "batch_size": 16}
    one = CoCoOp(vit_backbone, zero_start=True, **settings).fit(train)
    two = CoOp(vit_backbone, **settings).fit(train)
    torch.testing.assert_close(one.ctx, two.ctx, atol=1e-6, rtol=1e-4)


@pytest.mark.parametrize("max_prompts", [1, 3, 5, 6, 7])
def test_chunks_give_the_values_and_gradients_of_one_pass(vit_backbone, some, max_prompts, monkeypatch):
    whole, chunked = prepared(vit_backbone), prepared(vit_backbone, max_prompts=max_prompts)
    seen, encode = [], chunked.prompts.encode
    monkeypatch.setattr(chunked.prompts, "encode", lambda *a, **k: seen.append(encode(*a, **k)) or seen[-1])
    losses = [method._loss(*some) for method in (whole, chunked)]
    torch.testing.assert_close(losses[0], losses[1])
    expected, got = (torch.autograd.grad(loss, m._parameters()) for loss, m in zip(losses, (whole, chunked)))
    assert len(expected) == 5 and all(g.abs().sum() > 0 for g in expected)
    for one, other in zip(expected, got, strict=True):
        torch.testing.assert_close(one, other, atol=1e-5, rtol=1e-4)
    images = max(1, max_prompts // 3)  # per chunk: whole images of 3 prompts
    assert [len(t) for t in seen[: -(-7 // images)]] == [images] * (7 // images) + [7 % images] * (7 % images > 0)
    assert len(seen) == 2 * -(-7 // images), "once forward, once again for the gradients"


def test_a_batch_equals_its_images_one_by_one(vit_backbone, train, test_split):
    method = CoCoOp(vit_backbone, epochs=2, batch_size=3, max_prompts=12).fit(train)
    features = image_features(vit_backbone, test_split)
    singly = torch.cat([method.logits(f[None]) for f in features])
    torch.testing.assert_close(method.logits(features), singly, atol=1e-4, rtol=0)
    torch.testing.assert_close(method.logits(test_split), singly, atol=1e-4, rtol=0)
    assert method.logits(test_split.images[0]).shape == (1, 4)


def test_the_text_depends_on_the_image_and_on_nothing_else(vit_backbone, some):
    method = prepared(vit_backbone, hidden=8)
    features = some[0][[0, 1, 0]]
    text = method.text_features(features)
    assert text.shape == (3, 3, vit_backbone.embed_dim)
    torch.testing.assert_close(text[0], text[2])
    assert (text[0] - text[1]).abs().max() > 1e-3
    more = prepared(vit_backbone, ("a", "b", "c", "d", "e"), hidden=8)
    assert torch.equal(more.shifts(features), method.shifts(features))
    assert method.shifts(features).shape == (3, vit_backbone.text_width)


@pytest.mark.parametrize(("position", "csc"), [("middle", False), ("front", False), ("end", True)])
def test_the_modes_of_coop_work_beyond_the_paper(vit_backbone, some, position, csc):
    method = prepared(vit_backbone, ctx_init=None, n_ctx=3, class_token_position=position, csc=csc)
    text = method.text_features(some[0])
    for b, shift in enumerate(method.shifts(some[0])):
        torch.testing.assert_close(text[b], method.prompts.encode(method.ctx + shift), atol=1e-5, rtol=0)


def test_fitting_lowers_the_loss_and_only_changes_context_and_net(tower, splits):
    train = splits(per_class=8, seed=1)
    before = {name: tensor.clone() for name, tensor in tower.model.state_dict().items()}
    start = CoCoOp(tower, hidden=4, epochs=0).fit(train).learned_parameters()
    method = CoCoOp(tower, hidden=4, epochs=10, lr=0.002, batch_size=4).fit(train)
    assert method.history["loss"][-1] < method.history["loss"][0] - 0.03
    assert all(torch.equal(tensor, before[name]) for name, tensor in tower.model.state_dict().items())
    assert all(p.grad is None for p in tower.model.parameters())
    learned = method.learned_parameters()
    assert list(learned) == ["ctx", *(f"meta_net.{i}.{kind}" for i in (0, 2) for kind in ("weight", "bias"))]
    assert not any(torch.equal(learned[name], start[name]) for name in learned)
    E, D = tower.embed_dim, tower.text_width
    assert method.n_learned == 4 * D + (E * 4 + 4) + (4 * D + D)
    assert not any(tensor.requires_grad for tensor in learned.values())


def test_the_recipe_is_the_papers(vit_backbone, train, monkeypatch):
    seen = {}

    def spy(parameters, loss_fn, n, **settings):
        seen.update(settings, n=n, shapes=[tuple(p.shape) for p in parameters])
        return {}

    monkeypatch.setattr("vlmcourse.training.fit", spy)
    CoCoOp(vit_backbone, seed=3).fit(train)
    D, E = vit_backbone.text_width, vit_backbone.embed_dim
    seen.pop("on_epoch")
    assert seen.pop("shapes") == [(4, D), (E // 16, E), (E // 16,), (D, E // 16), (D,)]
    assert seen == {
        "n": 16, "epochs": 10, "seed": 3, "progress": False,
        "lr": 2e-3, "batch_size": 1, "momentum": 0.9, "weight_decay": 5e-4, "warmup_epochs": 1,
    }  # fmt: skip


@pytest.mark.parametrize("batch_size", [1, 3, 16, 100])
@pytest.mark.parametrize("views", [1, 3, None])
def test_odd_batches_and_every_kind_of_view(tower, train, batch_size, views):
    method = CoCoOp(tower, epochs=1, batch_size=batch_size, views=views, max_prompts=9).fit(train)
    assert len(method.history["loss"]) == 1 and torch.isfinite(method.ctx).all()


def test_seeds(vit_backbone, train, test_split):
    def run(seed):
        return CoCoOp(vit_backbone, epochs=2, batch_size=8, views=None, seed=seed).fit(train)

    torch.manual_seed(0)
    one = run(1)
    torch.manual_seed(1)
    same, other = run(1), run(2)
    assert torch.equal(one.logits(test_split), same.logits(test_split))
    assert (one.logits(test_split) - other.logits(test_split)).abs().max() > 1e-4
    again = one.for_classes(train.class_names)
    before = again.logits(test_split)
    assert torch.equal(one.fit(train).logits(test_split), before), "a second fit starts anew"
    one.seed = 2
    one.fit(train)
    assert torch.equal(again.logits(test_split), before), "and leaves the copy that was moved as it was"


def test_context_and_net_move_to_other_classes(vit_backbone, train, test_split):
    method = CoCoOp(vit_backbone, epochs=2, batch_size=4, lr=0.02).fit(train)
    before = method.logits(test_split)
    moved = method.for_classes(["a very long name of a class", "dog"])
    assert moved.class_names == ("a very long name of a class", "dog") and torch.equal(moved.ctx, method.ctx)
    torch.testing.assert_close(moved.logits(test_split)[:, 1], before[:, 1], atol=1e-4, rtol=0)
    assert torch.equal(method.logits(test_split), before), "the method itself stays as it was"
    with pytest.raises(ValueError, match="cocoop cannot move to classes it was not fitted on, such as 'yak'"):
        CoCoOp(vit_backbone, ctx_init=None, n_ctx=2, csc=True, epochs=0).fit(train).for_classes(["dog", "yak"])


def test_precision_of_the_backbone(make_backbone, train, test_split):
    exact = make_backbone("vit").to(dtype=torch.float64)
    method = CoCoOp(exact, epochs=1, batch_size=8).fit(train)
    assert {tensor.dtype for tensor in method.learned_parameters().values()} == {torch.float64}
    rough = make_backbone("vit").to(dtype=torch.bfloat16)
    method = CoCoOp(rough, epochs=1, batch_size=8).fit(train)
    assert {tensor.dtype for tensor in method.learned_parameters().values()} == {torch.float32}
    assert method.logits(test_split).dtype == torch.float32


@pytest.mark.parametrize("max_prompts", [2, 100])
def test_forward_and_loss_stay_on_the_backbones_device(tower, fake_cuda, max_prompts):
    backbone = fake_cuda(tower)
    method = prepared(backbone, max_prompts=max_prompts)
    features, labels = torch.randn(3, backbone.embed_dim, device="cuda"), torch.zeros(3, device="cuda").long()
    loss = method._loss(features, labels)
    assert loss.requires_grad and loss.device.type == "cuda"
    method._freeze()
    assert method.ctx.device.type == method._logits(features).device.type == "cuda"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"hidden": 0}, "hidden="),
        ({"max_prompts": 0}, "max_prompts=0"),
        ({"max_prompts": 2.5}, "max_prompts=2.5"),
        ({"csc": True}, "csc=True and ctx_init='a photo of a'"),
        ({"ctx_init": None, "n_ctx": 0}, "n_ctx=0"),
        ({"batch_size": 0}, "batch_size=0"),
    ],
)
def test_bad_arguments_are_named(vit_backbone, train, arguments, message):
    with pytest.raises(ValueError, match=message):
        CoCoOp(vit_backbone, **arguments).fit(train)


def test_before_fit(vit_backbone, test_split):
    assert CoCoOp(vit_backbone).learned_parameters() == {}
    with pytest.raises(RuntimeError, match="fit"):
        CoCoOp(vit_backbone).logits(test_split)
