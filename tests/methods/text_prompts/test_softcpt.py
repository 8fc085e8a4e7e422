"""SoftCPT: the forward pass against a naive one, the invariants of soft sharing, the recipe, transfer, errors."""

import pytest
import torch
import torch.nn.functional as F

from vlmcourse.backbone.features import image_features
from vlmcourse.methods.text_prompts.coop import CoOp
from vlmcourse.methods.text_prompts.softcpt import SoftCPT
from vlmcourse.training import coop_lr

VARIANTS = {
    "NATA": {}, "NATS": {"task_context": "specific"}, "CATA": {"class_context": "agnostic"},
    "CATS": {"class_context": "agnostic", "task_context": "specific"}, "CSTA": {"class_context": "specific"},
    "CSTS": {"class_context": "specific", "task_context": "specific"},
}  # fmt: skip
SMALL = {"n_ctx": 3, "task_n_ctx": 2, "class_n_ctx": 2, "epochs": 2, "lr": 0.02, "batch_size": 6}


@pytest.fixture
def two(splits):
    return {
        "house pets": splits(names=("tabby cat", "dog", "red_fox"), seed=1),
        "vehicles": splits(names=("hot air balloon", "bus"), seed=2),
    }


def fitted(backbone, tasks, **arguments):
    return SoftCPT(backbone, **{**SMALL, **arguments}).fit_tasks(tasks)


def raw_text(backbone, ctx, name):
    """Text([ctx, name .]), not normalised, in full and by itself."""
    bpe = backbone.tokenizer
    ids = torch.tensor([bpe.sot_token_id, *bpe.encode(name.replace("_", " ") + "."), bpe.eot_token_id])
    table = backbone.token_embedding(ids)
    x = torch.cat([table[:1], ctx, table[1:]])
    return backbone.encode_text_embeddings(x, torch.tensor(len(x) - 1), normalise=False)


def naive_text(m, backbone):
    """SoftCPT's class features as written in the paper, one class after the other."""
    rows, count = [], 0
    for t, (task, names) in enumerate(m.tasks.items()):
        f = raw_text(backbone, m.task_ctx[t] if m.task_context == "specific" else m.task_ctx, task)
        for name in names:
            x = f
            if m.class_context:
                own = m.class_ctx[count] if m.class_context == "specific" else m.class_ctx
                g = raw_text(backbone, own, name)
                x = {"lin": torch.cat([g, f]), "linmean": (g + f) / 2, "lincls": g}[m.meta]
            rows.append(F.normalize(raw_text(backbone, (x @ m.proj).reshape(m.n_ctx, -1), name), dim=-1))
            count += 1
    return torch.stack(rows)


@pytest.mark.parametrize(
    ("variant", "meta"),
    [(v, "lin") for v in VARIANTS] + [(v, meta) for v in ("CATA", "CSTS") for meta in ("linmean", "lincls")],
)
def test_text_features_equal_the_naive_forward(vit_backbone, two, variant, meta):
    method = fitted(vit_backbone, two, **VARIANTS[variant], meta=meta)
    torch.testing.assert_close(method.text, naive_text(method, vit_backbone), atol=2e-5, rtol=0)
    shapes = {name: tuple(p.shape) for name, p in method.learned_parameters().items()}
    assert shapes["proj"] == (16 * (2 if method.class_context and meta == "lin" else 1), 3 * 32)
    assert shapes["task_ctx"] == ((2, 2, 32) if method.task_context == "specific" else (2, 32))
    assert shapes.get("class_ctx") == {None: None, "agnostic": (2, 32), "specific": (5, 2, 32)}[method.class_context]
    assert method.n_learned == sum(p.numel() for p in method.learned_parameters().values())


@pytest.mark.parametrize("variant", ["NATA", "CSTS"])
def test_fitting_lowers_the_loss_and_changes_what_is_learned_only(tower, splits, variant):
    tasks = {"pets": splits(8, 1, ("tabby cat", "dog", "red_fox")), "vehicles": splits(8, 2, ("balloon", "bus"))}
    before = {name: tensor.clone() for name, tensor in tower.model.state_dict().items()}
    start = fitted(tower, tasks, **VARIANTS[variant], epochs=0).learned_parameters()
    method = fitted(tower, tasks, **VARIANTS[variant], epochs=10, lr=2e-3, batch_size=10)
    assert method.history["loss"][-1] < method.history["loss"][0] - 0.02
    assert all(torch.equal(tensor, before[name]) for name, tensor in tower.model.state_dict().items())
    assert all(p.grad is None for p in tower.model.parameters())
    for name, tensor in method.learned_parameters().items():
        assert not torch.equal(tensor, start[name]) and not tensor.requires_grad
    for name, split in tasks.items():
        one = method.for_task(name)
        assert one.score(split) == (one.logits(split).argmax(1).cpu() == split.labels).double().mean().item()


def test_one_task_whose_network_gives_a_context_is_coop_with_it(vit_backbone, train, test_split):
    coop = CoOp(vit_backbone, n_ctx=3, epochs=2, lr=0.05).fit(train)
    method = SoftCPT(vit_backbone, **{**SMALL, "epochs": 0}, task_name="animals and balloons").fit(train)
    f = method.task_features()  # (1, E)
    method.proj = f.T @ coop.ctx.reshape(1, -1) / f.square().sum()
    method._freeze()
    torch.testing.assert_close(method.contexts()[0], coop.ctx, atol=1e-5, rtol=0)
    torch.testing.assert_close(method.logits(test_split), coop.logits(test_split), atol=1e-3, rtol=0)


def test_one_task_without_task_tokens_is_coop_with_another_start_and_rate(vit_backbone, train):
    """V = F P with a fixed F: steps of V are |F|^2 as long, weight decay as much weaker."""
    same = {"n_ctx": 3, "epochs": 4, "warmup_epochs": 0, "batch_size": 6}
    network = SoftCPT(vit_backbone, task_n_ctx=0, lr=0.01, weight_decay=0.05, task_name="animals", **same)
    start = SoftCPT(vit_backbone, task_n_ctx=0, task_name="animals", **(same | {"epochs": 0})).fit(train)
    square = start.task_features().square().sum().item()

    class Rescaled(CoOp):
        def _initial_context(self):
            return start.contexts()[0].clone()

    coop = Rescaled(vit_backbone, lr=0.01 * square, weight_decay=0.05 / square, **same).fit(train)
    torch.testing.assert_close(network.fit(train).contexts()[0], coop.ctx, atol=1e-4, rtol=1e-3)
    assert (coop.ctx - start.contexts()[0]).abs().max() > 1e-2


def test_equal_task_names_get_equal_contexts_if_the_task_context_is_shared(vit_backbone, splits):
    tasks = {"road signs": splits(names=("stop", "yield")), "road_signs": splits(names=("bus", "car", "dog"), seed=4)}
    shared, own = (fitted(vit_backbone, tasks, task_context=c).contexts() for c in ("agnostic", "specific"))
    assert torch.equal(shared[0], shared[1]) and (own[0] - own[1]).abs().max() > 1e-3


def test_permuted_tasks_permute_the_blocks_of_logits(vit_backbone, two, test_split):
    one = fitted(vit_backbone, two, epochs=0).logits(test_split)
    other = fitted(vit_backbone, dict(reversed(two.items())), epochs=0).logits(test_split)
    torch.testing.assert_close(torch.cat([other[:, 2:], other[:, :2]], 1), one, atol=1e-4, rtol=0)


def start(backbone, tasks, **arguments):
    """A method before its first step, with gradients on, and (features, labels) of each task."""
    method = fitted(backbone, tasks, epochs=0, **arguments)
    for tensor in method._parameters().values():
        tensor.requires_grad_()
    return method, [(image_features(backbone, s), s.labels) for s in tasks.values()]


def test_the_loss_is_cross_entropy_within_the_task_over_the_whole_batch(vit_backbone, two):
    method, ((f0, y0), (f1, y1)) = start(vit_backbone, two)
    text, s = method.text_features(), vit_backbone.logit_scale
    first, second = F.cross_entropy(s * f0[:5] @ text[:3].T, y0[:5]), F.cross_entropy(s * f1[:2] @ text[3:].T, y1[:2])
    loss = method._loss([(0, f0[:5], y0[:5]), (1, f1[:2], y1[:2])])
    torch.testing.assert_close(loss, (5 * first + 2 * second) / 7)
    torch.testing.assert_close(method._loss([(1, f1[:2], y1[:2])]), second)


def test_a_task_without_images_in_the_batch_gets_no_gradient(vit_backbone, two):
    method, ((f0, y0), _) = start(vit_backbone, two, **VARIANTS["CSTS"])
    method._loss([(0, f0, y0)]).backward()
    assert method.task_ctx.grad[0].abs().max() > 0 and not method.task_ctx.grad[1].any()
    assert method.class_ctx.grad[:3].abs().amax((1, 2)).min() > 0 and not method.class_ctx.grad[3:].any()
    assert method.proj.grad.abs().max() > 0


def test_gradient_reaches_the_task_context_through_both_text_passes(vit_backbone, two):
    """Numerically: the loss moves with u as its gradient says."""
    method, ((f0, y0), (f1, y1)) = start(vit_backbone, two)
    groups = [(0, f0, y0), (1, f1, y1)]
    loss = method._loss(groups)
    loss.backward()
    gradient, step = method.task_ctx.grad, 3e-3
    direction = gradient / gradient.norm()
    with torch.no_grad():
        values = []
        for sign in (1, -1):
            method.task_ctx += sign * step * direction
            values.append(method._loss(groups).item())
            method.task_ctx -= sign * step * direction
    assert (values[0] - values[1]) / (2 * step) == pytest.approx(gradient.norm().item(), rel=0.05)


def test_sampled_classes_hold_the_batchs_and_a_share_of_the_others(vit_backbone, splits):
    many = {"things": splits(2, 1, tuple(f"thing {c}" for c in "abcdefghijk"))}
    method, ((f, y),) = start(vit_backbone, many, class_sample_rate=0.3, class_context="agnostic")
    method.sampler = torch.Generator().manual_seed(0)
    labels = torch.tensor([7, 2, 7])
    classes, renamed = method._sampled(labels, 11)
    assert classes[:2].tolist() == [2, 7] and len(classes) == 2 + 3 == len(classes.unique())  # ceil(0.3 * 9)
    assert torch.equal(classes[renamed], labels)
    method.sampler.manual_seed(0)
    kept, own = method._sampled(y[[15, 4]], 11)
    text = method.text_features()[kept]
    expected = F.cross_entropy(vit_backbone.logit_scale * f[[15, 4]] @ text.T, own)
    method.sampler.manual_seed(0)
    torch.testing.assert_close(method._loss([(0, f[[15, 4]], y[[15, 4]])]), expected)
    full, _ = start(vit_backbone, many, class_sample_rate=1.0)
    full.sampler = torch.Generator().manual_seed(0)
    plain, _ = start(vit_backbone, many)
    torch.testing.assert_close(full._loss([(0, f, y)]), plain._loss([(0, f, y)]))
    assert fitted(vit_backbone, many, class_sample_rate=0.2).history["loss"]


def test_the_recipe_is_the_papers_or_the_released_trainers(vit_backbone, two, monkeypatch):
    seen = []

    def spy(parameters, loss_fn, n, **settings):
        seen.append((settings | {"n": n}, [tuple(p.shape) for p in parameters], parameters[0].std().item()))
        return {}

    monkeypatch.setattr("vlmcourse.training.fit", spy)
    SoftCPT(vit_backbone, seed=3).fit_tasks(two)
    settings, shapes, std = seen[0]
    assert shapes == [(16, 16 * 32), (4, 32)] and std == pytest.approx(0.02, rel=0.05)
    assert settings == {
        "n": 20, "epochs": 50, "seed": 3, "progress": False, "lr": 2e-3, "batch_size": 32, "momentum": 0.9,
        "weight_decay": 5e-4, "warmup_epochs": 1, "repeats": 1,
    }  # fmt: skip
    SoftCPT(vit_backbone, released_trainer=True).fit_tasks(two)
    SoftCPT(vit_backbone, released_trainer=True, class_context="agnostic").fit_tasks(two)
    assert [s["repeats"] for s, _, _ in seen] == [1, 3, 4]


def test_the_released_schedule_goes_down_up_and_down(vit_backbone, train):
    history = SoftCPT(vit_backbone, n_ctx=1, task_n_ctx=1, released_trainer=True).fit(train).history
    assert history["lr"] == [coop_lr(3 * e, 50, 2e-3) for e in range(50)]
    assert (
        history["lr"][17] < 1e-5
        and history["lr"][34] > 1.95e-3
        and history["lr"][49] == pytest.approx(3.1e-5, rel=0.05)
    )


def test_seeds_and_views(vit_backbone, two, test_split):
    one, same, other = (fitted(vit_backbone, two, seed=s).logits(test_split) for s in (1, 1, 2))
    assert torch.equal(one, same) and (one - other).abs().max() > 1e-4
    for views in (3, None):
        torch.manual_seed(views or 0)
        assert torch.isfinite(fitted(vit_backbone, two, views=views, epochs=1).proj).all()
    assert torch.isfinite(fitted(vit_backbone, two, batch_size=1, epochs=1).proj).all()


def test_without_task_tokens_the_name_alone_is_read(vit_backbone, two):
    method = fitted(vit_backbone, two, task_n_ctx=0, class_context="agnostic", class_n_ctx=0)
    assert method.task_ctx.shape == (0, 32) and method.n_learned == 2 * 16 * 3 * 32
    torch.testing.assert_close(method.text, naive_text(method, vit_backbone), atol=2e-5, rtol=0)


@pytest.mark.parametrize("variant", ["NATA", "NATS", "CATA", "CATS"])
def test_the_context_of_a_task_moves_to_other_class_names(vit_backbone, two, test_split, variant):
    method = fitted(vit_backbone, two, **VARIANTS[variant])
    before, pets = method.logits(test_split), method.for_task("house pets")
    assert torch.equal(pets.logits(test_split), before[:, :3])
    moved = pets.for_classes(["dog", "a very long name of a class"])
    torch.testing.assert_close(moved.logits(test_split)[:, 0], before[:, 1], atol=1e-3, rtol=0)
    back = moved.for_classes(two["house pets"].class_names)
    torch.testing.assert_close(back.logits(test_split), before[:, :3], atol=1e-3, rtol=0)
    assert torch.equal(method.logits(test_split), before), "the method itself stays as it was"
    second = method.for_task("vehicles").for_classes(["bus"])
    torch.testing.assert_close(second.logits(test_split)[:, 0], before[:, 4], atol=1e-3, rtol=0)


def test_a_new_task_gets_its_context_from_its_name(vit_backbone, two, test_split):
    method = fitted(vit_backbone, two)
    twin = method.for_task("house_pets", ["dog", "bus"])  # the same words to the tokenizer
    known = method.for_task("house pets", ["dog", "bus"])
    torch.testing.assert_close(twin.logits(test_split), known.logits(test_split), atol=1e-4, rtol=0)
    other = method.for_task("kitchen", ["dog", "bus"])
    assert (other.logits(test_split) - known.logits(test_split)).abs().max() > 1e-3 and other.task == "kitchen"
    for variant in ("NATS", "CSTA"):
        with pytest.raises(ValueError, match="'kitchen' was not fitted"):
            fitted(vit_backbone, two, **VARIANTS[variant], epochs=0).for_task("kitchen", ["dog"])


def test_class_specific_contexts_stay_with_their_classes(vit_backbone, two, test_split):
    method = fitted(vit_backbone, two, **VARIANTS["CSTA"])
    part = method.for_task("house pets").for_classes(["red_fox", "dog"])
    assert torch.equal(part.logits(test_split), method.logits(test_split)[:, [2, 1]])
    with pytest.raises(ValueError, match="cannot move to classes.*'yak'"):
        method.for_task("house pets").for_classes(["yak"])


def test_forward_and_loss_stay_on_the_backbones_device(tower, fake_cuda):
    backbone = fake_cuda(tower)
    for arguments in ({}, {"class_context": "agnostic"}, {"class_context": "specific", "task_context": "specific"}):
        method = SoftCPT(backbone, n_ctx=2, **arguments)
        method.tasks, method.class_names = {"pets": ("cat", "dog"), "cars": ("bus",)}, ("cat", "dog", "bus")
        method._start()
        for tensor in method._parameters().values():
            tensor.requires_grad_()
        features, labels = torch.randn(3, backbone.embed_dim, device="cuda"), torch.zeros(3, device="cuda").long()
        loss = method._loss([(0, features, labels), (1, features, labels)])
        assert loss.requires_grad and loss.device.type == "cuda"
        method._freeze()
        assert method._logits(features).device.type == "cuda"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"n_ctx": 0}, "n_ctx=0"),
        ({"task_n_ctx": -1}, "task_n_ctx=-1"),
        ({"task_n_ctx": 0, "task_context": "specific"}, "task_n_ctx=0"),
        ({"class_n_ctx": 0, "class_context": "specific"}, "class_n_ctx=0"),
        ({"task_context": "own"}, "task_context='own'"),
        ({"class_context": "CS"}, "class_context='CS'"),
        ({"meta": "mlp"}, "meta='mlp'"),
        ({"meta": "linmean"}, "meta='linmean'.*class_context=None"),
        ({"class_sample_rate": 1.2}, "class_sample_rate=1.2"),
        ({"class_token_position": "top"}, "class_token_position='top'"),
        ({"n_ctx": 40}, "n_ctx=40 and the class name"),
        ({"views": 0}, "views=0"),
        ({"lr": 0}, "lr=0"),
        ({"task_name": " "}, "task_name=' '"),
    ],
)
def test_bad_arguments_are_named(vit_backbone, train, arguments, message):
    with pytest.raises(ValueError, match=message):
        SoftCPT(vit_backbone, **arguments).fit(train)
