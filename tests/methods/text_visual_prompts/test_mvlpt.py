"""MVLPT: the coupling by hand and the released slip, three kinds of prompts, tasks together, adaptation, errors."""

import pytest
import torch
import torch.nn.functional as F

from vlmcourse.backbone.features import image_features
from vlmcourse.methods.class_text import class_features
from vlmcourse.methods.context import ClassPrompts, random_context
from vlmcourse.methods.prompt_attention import PromptCoupling, seeded
from vlmcourse.methods.text_prompts.coop import CoOp
from vlmcourse.methods.text_visual_prompts.mvlpt import MVLPT
from vlmcourse.methods.vision_prompts import uniform_prompts
from vlmcourse.methods.visual_prompt_tuning import INITS, VisualPromptTuning

KINDS = ("upt", "coop", "vpt")
SMALL = {"n_ctx": 2, "epochs": 2, "lr": 0.02, "batch_size": 6}
PETS, VEHICLES = ("tabby cat", "dog", "red_fox"), ("hot air balloon", "bus")


@pytest.fixture
def two(splits):
    return {"pets": splits(names=PETS, seed=1), "vehicles": splits(names=VEHICLES, seed=2)}


def fitted(backbone, tasks, val=None, **arguments):
    return MVLPT(backbone, **SMALL | arguments).fit_tasks(tasks, val)


def test_the_number_of_parameters_is_the_releases(vit_backbone):
    net = seeded(lambda: PromptCoupling(512, 768), 0, vit_backbone)
    assert sum(p.numel() for p in net.parameters()) + 4 * 512 + 12 * 4 * 768 == 566_400


@pytest.mark.parametrize("mix", [True, False])
def test_the_coupling_is_clips_own_block_between_projections(vit_backbone, mix):
    from open_clip.transformer import QuickGELU, ResidualAttentionBlock

    net = seeded(lambda: PromptCoupling(32, 48, dim=16, mix=mix), 3, vit_backbone)
    block = ResidualAttentionBlock(16, 1, act_layer=QuickGELU)
    block.ln_1.load_state_dict(net.ln_1.state_dict())
    block.ln_2.load_state_dict(net.ln_2.state_dict())
    block.mlp.c_fc.load_state_dict(net.wide.state_dict())
    block.mlp.c_proj.load_state_dict(net.narrow.state_dict())
    with torch.no_grad():
        block.attn.in_proj_weight.copy_(net.attention.into.weight)
        block.attn.in_proj_bias.copy_(net.attention.into.bias)
        block.attn.out_proj.load_state_dict(net.attention.out.state_dict())
        ctx, visual = random_context(vit_backbone, 3, seed=0), uniform_prompts(vit_backbone, 6, seed=1)
        e = torch.cat([net.text_in(ctx), net.vision_in(visual)])
        e = block(e[None])[0] if mix else block(e[:, None])[:, 0]  # sequences of length one: nothing to attend to
        expected = net.text_out(e[:3]), net.vision_out(e[3:])
    torch.testing.assert_close(net(ctx, visual), expected)


@pytest.mark.parametrize(
    ("options", "mixes"),
    [({}, True), ({"release_compat": True}, False), ({"coupling": "mlp"}, False), ({"coupling": "identity"}, False)],
)
def test_visual_prompts_reach_the_text_only_through_the_attention(vit_backbone, two, options, mixes):
    method = fitted(vit_backbone, two, epochs=0, **options)
    before = method.coupled_prompts()
    method.ctx_vision = method.ctx_vision + 1
    after = method.coupled_prompts()
    assert torch.equal(after[0], before[0]) is not mixes
    assert not torch.equal(after[1], before[1])


def test_mlp_and_identity_couplings_by_hand(vit_backbone, two):
    free = fitted(vit_backbone, two, coupling="identity")
    assert free.coupled_prompts()[0] is free.ctx and free.coupled_prompts()[1] is free.ctx_vision
    assert set(free.learned_parameters()) == {"ctx", "ctx_vision"}
    method = fitted(vit_backbone, two, coupling="mlp")
    net, (text, visual) = method.coupling, method.coupled_prompts()
    torch.testing.assert_close(text, net.text_out(F.gelu(net.text_in(method.ctx))))
    torch.testing.assert_close(visual[1], net.vision_out(F.gelu(net.vision_in(method.ctx_vision[1]))))


@pytest.mark.parametrize("kind", KINDS)
def test_logits_of_a_task_are_its_own_classes_under_the_one_prompt(vit_backbone, two, images, kind):
    method = fitted(vit_backbone, two, prompts=kind)
    assert method.logits(images).shape == (5, 5)
    text, visual = method.coupled_prompts()
    features = vit_backbone.encode_image(images)
    if kind != "coop":
        assert visual.shape == (3, 2, 48)
        features = vit_backbone.encode_image_prompted(images, visual[0], {1: visual[1], 2: visual[2]}, "after_cls")
    for task, names in (("pets", PETS), ("vehicles", VEHICLES)):
        if kind == "vpt":
            weights = class_features(vit_backbone, names, two[task].templates)
        else:
            weights = ClassPrompts(vit_backbone, names, 2, "middle").encode(text)
        logits = method.for_task(task).logits(images)
        torch.testing.assert_close(logits, vit_backbone.logit_scale * features @ weights.T, atol=1e-4, rtol=0)
        torch.testing.assert_close(method.for_classes(names).logits(images), logits, atol=1e-4, rtol=0)


@pytest.mark.parametrize("label_per_task", [False, True])
def test_the_loss_is_over_the_union_of_the_classes_or_the_tasks_own(vit_backbone, two, label_per_task):
    method = fitted(vit_backbone, two, prompts="coop", epochs=0, label_per_task=label_per_task)
    pets, vehicles = (image_features(vit_backbone, split)[:4] for split in two.values())
    groups = [(1, vehicles, torch.tensor([0, 1, 1, 0])), (0, pets, torch.tensor([2, 0, 1, 2]))]
    if label_per_task:
        scored = [
            (method.for_task(name).logits(x), y) for name, (_, x, y) in zip(("vehicles", "pets"), groups, strict=True)
        ]
        expected = sum(F.cross_entropy(logits, labels) for logits, labels in scored) / 2
    else:
        logits = method.logits(torch.cat([pets, vehicles]))
        expected = F.cross_entropy(logits, torch.tensor([2, 0, 1, 2, 3, 4, 4, 3]))
    torch.testing.assert_close(method._loss(groups), expected)


def test_a_single_task_with_coops_prompts_is_coop(vit_backbone, train, test_split):
    options = {"n_ctx": 4, "epochs": 3, "lr": 0.02, "batch_size": 8}
    method = MVLPT(vit_backbone, prompts="coop", **options).fit(train)
    coop = CoOp(vit_backbone, class_token_position="middle", **options).fit(train)
    torch.testing.assert_close(method.logits(test_split), coop.logits(test_split), atol=1e-3, rtol=0)


def test_a_single_task_with_vpts_prompts_is_vpt(vit_backbone, train, test_split, monkeypatch):
    options = {"epochs": 3, "lr": 0.02, "batch_size": 8}
    method = MVLPT(vit_backbone, prompts="vpt", n_ctx=3, **options).fit(train)
    start = uniform_prompts(vit_backbone, 3, 3, seed=1)  # MVLPT's visual prompts have a seed of their own
    monkeypatch.setitem(INITS, "uniform", lambda *_, **__: start.clone())
    vpt = VisualPromptTuning(vit_backbone, n_ctx_vision=3, depth=None, **options).fit(train)
    torch.testing.assert_close(method.logits(test_split), vpt.logits(test_split), atol=1e-3, rtol=0)


@pytest.mark.parametrize("kind", KINDS)
def test_training_lowers_the_loss_and_moves_all_of_it_and_only_it(vit_backbone, splits, kind):
    tasks = {"pets": splits(names=PETS, seed=1), "vehicles": splits(names=VEHICLES, seed=2)}
    before = {name: tensor.clone() for name, tensor in vit_backbone.model.state_dict().items()}
    start = fitted(vit_backbone, tasks, prompts=kind, epochs=0).learned_parameters()
    method = fitted(vit_backbone, tasks, prompts=kind, epochs=10, batch_size=20, lr=0.2 if kind == "vpt" else 0.02)
    assert method.history["loss"][-1] < method.history["loss"][0] - 0.05
    learned = method.learned_parameters()
    assert all(not torch.equal(learned[name], start[name]) for name in start)
    assert all(torch.equal(tensor, before[name]) for name, tensor in vit_backbone.model.state_dict().items())
    assert all(p.grad is None for p in vit_backbone.model.parameters())
    assert not any(tensor.requires_grad for tensor in learned.values())


@pytest.mark.parametrize("kind", KINDS)
def test_a_source_is_where_the_target_starts_and_several_are_averaged(vit_backbone, two, train, test_split, kind):
    sources = [fitted(vit_backbone, two, prompts=kind, seed=seed) for seed in (0, 1)]
    same = MVLPT(vit_backbone, prompts=kind, source=sources[0], **SMALL | {"epochs": 0}).fit(train)
    for name, tensor in sources[0].learned_parameters().items():
        assert torch.equal(same.learned_parameters()[name], tensor)
    moved = sources[0].for_classes(train.class_names, train.templates)
    torch.testing.assert_close(same.logits(test_split), moved.logits(test_split), atol=1e-3, rtol=0)
    mean = MVLPT(vit_backbone, prompts=kind, source=sources, **SMALL | {"epochs": 0}).fit(train)
    for name, tensor in mean.learned_parameters().items():
        torch.testing.assert_close(tensor, sum(s.learned_parameters()[name] for s in sources) / 2)
    adapted = MVLPT(vit_backbone, prompts=kind, source=sources[0], **SMALL).fit(train)
    kept = sources[0].learned_parameters()
    assert all(not torch.equal(tensor, kept[name]) for name, tensor in adapted.learned_parameters().items())
    again = fitted(vit_backbone, two, prompts=kind, seed=0).learned_parameters()
    assert all(torch.equal(tensor, again[name]) for name, tensor in kept.items()), "the source stays as it was"


def test_the_best_epoch_on_the_validation_splits_is_kept(vit_backbone, two, splits, monkeypatch):
    val = {"vehicles": splits(names=VEHICLES, seed=5)}
    accuracies, seen = iter([0.2, 0.9, 0.9, 0.1]), []

    def judge(self, held_out):
        seen.append(self.ctx.detach().clone())
        assert set(held_out) == {"vehicles"}
        return next(accuracies)

    monkeypatch.setattr(MVLPT, "_mean_accuracy", judge)
    method = fitted(vit_backbone, two, val, prompts="coop", epochs=4)
    assert torch.equal(method.ctx, seen[1]) and method.history["val_accuracy"] == [0.2, 0.9, 0.9, 0.1]
    last = fitted(vit_backbone, two, val, prompts="coop", epochs=4, final_model="last")
    assert torch.equal(last.ctx, seen[3]) and "val_accuracy" not in last.history


def test_the_validation_accuracy_is_the_mean_over_the_tasks(vit_backbone, two, splits):
    val = {"vehicles": splits(names=VEHICLES, seed=5), "pets": splits(per_class=2, names=PETS, seed=6)}
    method = fitted(vit_backbone, two, val, prompts="vpt", epochs=1)
    scores = [method.for_task(name).score(split) for name, split in val.items()]
    assert method.history["val_accuracy"] == [pytest.approx(sum(scores) / 2)]


def test_the_recipe(vit_backbone, splits, monkeypatch):
    seen = []

    def spy(parameters, loss_fn, n, **settings):
        seen.append(settings | {"shapes": [tuple(p.shape) for p in parameters][:2]})
        return {}

    monkeypatch.setattr("vlmcourse.training.fit", spy)
    for kind in KINDS:
        MVLPT(vit_backbone, prompts=kind).fit(splits(per_class=1))
    assert [s["shapes"] for s in seen] == [[(4, 32), (3, 4, 48)], [(16, 32)], [(3, 16, 48)]]
    expected = {"epochs": 200, "batch_size": 32, "lr": 2e-3, "momentum": 0.9, "weight_decay": 5e-4, "warmup_epochs": 1}
    assert all(expected.items() <= settings.items() for settings in seen)


def test_fewer_prompted_layers_run_all_blocks(vit_backbone, two, images):
    method = fitted(vit_backbone, two, prompts="vpt", depth=2)
    visual = method.learned_parameters()["ctx_vision"]
    assert visual.shape == (2, 2, 48)
    features = vit_backbone.encode_image_prompted(images, visual[0], {1: visual[1]})
    expected = vit_backbone.logit_scale * features @ class_features(vit_backbone, PETS, two["pets"].templates).T
    torch.testing.assert_close(method.for_task("pets").logits(images), expected, atol=1e-4, rtol=0)


def test_hand_written_text_takes_the_templates_of_each_task(vit_backbone, two):
    other = type(two["pets"])(two["vehicles"].images, two["vehicles"].labels, VEHICLES, ("an old {}.",), "v")
    method = fitted(vit_backbone, two | {"vehicles": other}, prompts="vpt", epochs=0)
    torch.testing.assert_close(method.text[3:], class_features(vit_backbone, VEHICLES, ("an old {}.",)))
    moved = method.for_task("vehicles").for_classes(["tram"])
    torch.testing.assert_close(moved.text, class_features(vit_backbone, ["tram"], ("an old {}.",)))
    torch.testing.assert_close(
        moved.for_classes(["tram"], ["my {}."]).text, class_features(vit_backbone, ["tram"], ("my {}.",))
    )


def test_dropout_is_for_training_only(vit_backbone, train, test_split):
    plain, noisy = (MVLPT(vit_backbone, prompts="vpt", dropout=p, **SMALL).fit(train) for p in (0.0, 0.5))
    assert noisy.history["loss"] != plain.history["loss"]
    assert torch.equal(noisy.logits(test_split), noisy.logits(test_split))


@pytest.mark.parametrize(("batch_size", "views"), [(1, 1), (5, 2), (100, None)])
def test_odd_batches_and_every_kind_of_view(vit_backbone, two, batch_size, views):
    method = fitted(vit_backbone, two, batch_size=batch_size, views=views, epochs=1)
    assert torch.isfinite(method.ctx).all() and torch.isfinite(method.ctx_vision).all()


def test_text_prompts_work_with_a_resnet_and_visual_ones_say_what_they_need(resnet_backbone, splits):
    tasks = {"pets": splits(names=PETS, size=64), "vehicles": splits(names=VEHICLES, size=64)}
    method = fitted(resnet_backbone, tasks, prompts="coop")
    assert 0 <= method.for_task("pets").score(tasks["pets"]) <= 1
    with pytest.raises(ValueError, match="MVLPT with prompts='upt' needs a ViT"):
        MVLPT(resnet_backbone)


def test_half_precision(vit_backbone, two):
    method = fitted(vit_backbone.to(dtype=torch.bfloat16), two, epochs=1)
    assert all(tensor.dtype == torch.float32 for tensor in method.learned_parameters().values())
    assert torch.isfinite(method.logits(two["pets"])).all()


def test_everything_stays_on_the_backbones_device(vit_backbone, fake_cuda):
    method = MVLPT(fake_cuda(vit_backbone), n_ctx=2, label_per_task=True, dropout=0.1)
    method.tasks, method.class_names = {"a": ("cat", "dog"), "b": ("bus",)}, ("cat", "dog", "bus")
    method._start()
    method.ctx.requires_grad_()
    method.training, method.draw = True, torch.Generator()
    tokens, labels = torch.randn(3, 17, 48, device="cuda"), torch.zeros(3, device="cuda").long()
    loss = method._loss([(0, tokens, labels), (1, tokens, labels)])
    assert loss.requires_grad and loss.device.type == "cuda"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"prompts": "maple"}, "prompts='maple' must be one of"),
        ({"coupling": "linear"}, "coupling='linear'"),
        ({"final_model": "best"}, "final_model='best'"),
        ({"n_ctx": 0}, "n_ctx=0"),
        ({"coupling_dim": 1.5}, "coupling_dim=1.5"),
        ({"depth": 9}, "depth=9 must be a whole number from 1 to the tower's 3"),
        ({"dropout": 1}, "dropout=1"),
        ({"source": "office"}, "source='office' must be an MVLPT fitted with prompts='upt'"),
    ],
)
def test_bad_arguments_are_named(vit_backbone, arguments, message):
    with pytest.raises(ValueError, match=message):
        MVLPT(vit_backbone, **arguments)


def test_a_source_of_another_kind_or_size_is_refused(vit_backbone, two, train):
    source = fitted(vit_backbone, two, prompts="coop", epochs=0)
    with pytest.raises(ValueError, match="fitted with prompts='vpt'"):
        MVLPT(vit_backbone, prompts="vpt", source=source)
    with pytest.raises(ValueError, match="n_ctx, depth, coupling must be equal"):
        MVLPT(vit_backbone, prompts="coop", n_ctx=3, source=source).fit(train)
    with pytest.raises(ValueError, match="score needs one task"):
        source.score(two["pets"])
