"""RePrompt (reconstruction): its three stages and their switches, golden loss, self-exclusion, stores, errors."""

import pytest
import torch

from vlmcourse.backbone.features import image_features
from vlmcourse.methods.visual_prompt_tuning import VisualPromptTuning
from vlmcourse.methods.visual_prompts.reprompt import MIXES, RePrompt, guided_loss, mixed

SHORT = {"epochs": 2, "lr": 0.05, "batch_size": 8}
OFF = {"enhance": False, "beta": 0, "mix": 0}


def small(backbone, **arguments):
    return RePrompt(backbone, **SHORT | {"k": 4} | arguments)


@pytest.mark.parametrize("depth", [1, 2])
def test_without_its_stages_it_is_vpt_bit_for_bit(vit_backbone, train, test_split, depth):
    ours = small(vit_backbone, depth=depth, **OFF).fit(train)
    theirs = VisualPromptTuning(vit_backbone, depth=depth, **SHORT).fit(train)
    assert torch.equal(ours.ctx_vision, theirs.ctx_vision)
    assert torch.equal(ours.logits(test_split), theirs.logits(test_split))
    assert set(ours.learned_parameters()) == {"ctx_vision"}


@pytest.mark.parametrize("layers", [1, 2])
def test_it_starts_as_vpt(vit_backbone, train, test_split, layers):
    ours = small(vit_backbone, depth=2, enhanced_layers=layers, mix=0, epochs=0).fit(train)
    theirs = VisualPromptTuning(vit_backbone, depth=2, epochs=0).fit(train)
    torch.testing.assert_close(ours.logits(test_split), theirs.logits(test_split), atol=1e-4, rtol=0)
    assert ours.W2.shape == (1, layers * 5 * 48) and ours.W2.abs().max() == 0 and ours.W1.shape == (16, 1)


def test_without_prompts_it_is_zero_shot(vit_backbone, train, images):
    method = small(vit_backbone, n_ctx_vision=0, mix=0, beta=0).fit(train)
    expected = vit_backbone.logit_scale * vit_backbone.encode_image(images) @ method.text.T
    torch.testing.assert_close(method.logits(images), expected, atol=1e-4, rtol=0)


def test_the_loss_is_that_of_the_reference():
    logits, labels = torch.tensor([[2.0, 1, 0], [0, 1, 0]]), torch.tensor([0, 1])
    votes = torch.tensor([[0.5, 0.25, 0.25], [0.2, 0.6, 0.2]])
    loss, parts = guided_loss(logits, labels, votes, 0.4)
    assert loss.item() == pytest.approx(0.592370, abs=1e-6)
    assert parts["cross_entropy"].item() == pytest.approx(0.479525, abs=1e-6)
    assert parts["knn_surprise"].item() == pytest.approx(0.601986, abs=1e-6)
    assert guided_loss(logits, labels, votes, 0.0)[0].item() == pytest.approx(0.479525, abs=1e-6)
    _, parts = guided_loss(logits, labels, torch.eye(3)[labels], 0.5)
    assert parts["knn_surprise"].item() == pytest.approx(0.0)
    _, parts = guided_loss(logits, labels, torch.eye(3)[1 - labels], 0.5)
    assert parts["knn_surprise"].item() == pytest.approx(4.6)


def test_the_mix_is_one_of_probabilities():
    logits = torch.tensor([[0.665, 0.245, 0.09]]).log()
    expected = torch.tensor([[0.3325, 0.4975, 0.17]])
    torch.testing.assert_close(mixed(torch.tensor([[0, 0.75, 0.25]]), logits, 0.5), expected)


def test_the_mix_one_is_knn_and_the_answer_is_a_distribution(vit_backbone, train, test_split):
    method = small(vit_backbone, mix=1.0).fit(train)
    store, queries = image_features(vit_backbone, train), image_features(vit_backbone, test_split)
    similarity, index = (queries @ store.T).topk(4)
    votes = torch.zeros(len(test_split), 4).scatter_add(1, train.labels[index], (20 * similarity).softmax(-1))
    torch.testing.assert_close(method.probabilities(test_split), votes, atol=1e-4, rtol=0)
    half = small(vit_backbone, mix=0.5).fit(train)
    tokens = half.inputs(test_split)
    found_votes, scores = half._votes_and_scores(tokens)
    torch.testing.assert_close(found_votes, votes, atol=1e-4, rtol=0)
    expected = 0.5 * votes + 0.5 * scores.softmax(-1)
    torch.testing.assert_close(half.probabilities(test_split), expected, atol=1e-4, rtol=0)


def test_training_never_looks_at_the_image_itself(vit_backbone, train, monkeypatch):
    seen = []
    search = RePrompt.neighbours.__globals__["FeatureStore"].search

    def spy(store, queries, k, exclude=None):
        found = search(store, queries, k, exclude)
        seen.append((exclude, store.ids[found.index]))
        return found

    monkeypatch.setattr("vlmcourse.methods.retrieval.FeatureStore.search", spy)
    method = small(vit_backbone).fit(train)
    assert len(seen) == 4 and all((ids != own[:, None]).all() for own, ids in seen)
    assert method.neighbours(train).index[:, 0].tolist() == list(range(len(train))), "at test time nothing is left out"


def test_the_database_may_overlap_or_be_another_split(vit_backbone, splits, val):
    whole = splits(per_class=6, seed=1)
    train = whole.subset(torch.arange(len(whole)) % 2 == 0)
    method = small(vit_backbone, database=whole).fit(train)
    assert len(method.store) == len(whole) and torch.equal(method.store.ids[::2], method.train_ids)
    assert len(small(vit_backbone, database=val).fit(train).store) == len(val)
    with pytest.raises(ValueError, match="must have the class names"):
        small(vit_backbone, database=splits(names=("a", "b"))).fit(train)


def test_who_learns_and_when(vit_backbone, train):
    method = small(vit_backbone, epochs=0).fit(train)
    tokens, index = method.inputs(train), torch.arange(len(train))
    learned = [t.requires_grad_() for t in method._parameters().values()]
    ctx, first, second = torch.autograd.grad(method._loss(tokens, train.labels, index)[0], learned)
    assert ctx.abs().max() > 0 and second.abs().max() > 0 and first.abs().max() == 0, "W2 = 0 hides W1 at step 0"
    with torch.no_grad():
        method.W2 += 0.01
    assert torch.autograd.grad(method._loss(tokens, train.labels, index)[0], [method.W1])[0].abs().max() > 0
    assert not method.store.keys.requires_grad and all(p.grad is None for p in vit_backbone.model.parameters())


def test_fitting_lowers_the_loss_and_gives_each_image_its_prompts(vit_backbone, splits):
    train = splits(per_class=4, seed=1)
    method = small(vit_backbone, depth=2, enhanced_layers=2, epochs=10, batch_size=16, hidden=8, lr=0.2).fit(train)
    assert method.history["loss"][-1] < method.history["loss"][0] - 0.05
    assert {"cross_entropy", "knn_surprise"} <= set(method.history)
    prompts = method.retrieved_prompts(method.neighbours(train))
    assert prompts.shape == (2, len(train), 5, 48) and (prompts[:, 0] - prompts[:, -1]).abs().max() > 1e-4
    one = method.retrieved_prompts(method.neighbours(train.subset([3])))
    torch.testing.assert_close(one[:, 0], prompts[:, 3], atol=1e-5, rtol=0)


def test_beta_only_raises_the_loss(vit_backbone, train):
    losses = [small(vit_backbone, beta=b, epochs=1, batch_size=16, lr=1e-6).fit(train).history for b in (0.0, 0.3)]
    assert losses[1]["loss"][0] > losses[0]["loss"][0]
    assert losses[1]["cross_entropy"] == pytest.approx(losses[0]["loss"], abs=1e-4)


def test_the_summary_may_hold_class_texts(vit_backbone, train, test_split):
    method = small(vit_backbone, summary="keys+texts", store_views=2).fit(train)
    found = method.neighbours(test_split)
    r = method.summarise(found)
    weights = (20 * found.similarity).softmax(-1)[..., None]
    torch.testing.assert_close(r[:, :16], (weights * method.store.keys[found.index]).sum(1))
    torch.testing.assert_close(r[:, 16:], (weights * method.text[train.labels[found.index]]).sum(1))


def test_lambda_is_searched_on_validation_only(vit_backbone, train, val):
    method = small(vit_backbone).fit(train, val)
    votes, clip = method._votes_and_scores(method.inputs(val))
    right = [(mixed(votes, clip, m).argmax(-1) == val.labels).double().mean().item() for m in MIXES]
    assert method.searched == right and method.mix == MIXES[right.index(max(right))]
    assert small(vit_backbone).fit(train).mix == 0.2
    assert small(vit_backbone, mix=0.7).fit(train, val).mix == 0.7


def test_new_classes_need_a_new_store(vit_backbone, train, test_split, splits):
    method = small(vit_backbone).fit(train)
    new = splits(names=("yak", "dog"), per_class=3, seed=5)
    with pytest.raises(ValueError, match="such as 'yak': give a database="):
        method.for_classes(("yak", "dog"))
    moved = method.for_classes(new.class_names, database=new)
    assert moved.logits(test_split).shape == (len(test_split), 2) and len(moved.store) == 6
    assert torch.equal(moved.ctx_vision, method.ctx_vision) and len(method.store) == len(train)


def test_one_shot_and_small_stores(vit_backbone, splits):
    train = splits(per_class=1, seed=1)
    method = small(vit_backbone, k=16).fit(train)
    assert method.history["knn_surprise"][0] == pytest.approx(4.6), "no neighbour of the right class is left"
    alone = splits(names=("dog",), per_class=1)
    assert torch.isfinite(small(vit_backbone).fit(alone).logits(alone)).all()


@pytest.mark.parametrize(("batch_size", "views"), [(1, 1), (5, 2), (100, None)])
def test_odd_batches_and_every_kind_of_view(vit_backbone, train, test_split, batch_size, views, monkeypatch):
    method = small(vit_backbone, batch_size=batch_size, views=views, epochs=1).fit(train)
    logits = method.logits(test_split)
    monkeypatch.setattr("vlmcourse.methods.visual_prompts.reprompt.TEST_BATCH", 3)
    torch.testing.assert_close(method.logits(test_split), logits, atol=1e-3, rtol=0)
    torch.testing.assert_close(method.logits(test_split.images[1]), logits[1:2], atol=1e-3, rtol=0)


def test_seeds(vit_backbone, train, test_split):
    one, again, other = (small(vit_backbone, seed=s).fit(train).logits(test_split) for s in (1, 1, 2))
    assert torch.equal(one, again) and (one - other).abs().max() > 1e-4


def test_everything_stays_on_the_backbones_device(vit_backbone, fake_cuda):
    method = small(fake_cuda(vit_backbone), depth=2)
    method.class_names, method.templates = ("cat", "dog"), ("a {}.",)
    method._start()
    method.draw = None  # of a dropout that is off
    method.store = RePrompt._loss.__globals__["FeatureStore"](
        torch.randn(4, 16, device="cuda"), torch.zeros(4).long(), torch.arange(4)
    )
    method.train_queries = torch.randn(3, 16, device="cuda")
    method.train_ids = torch.empty(3, dtype=torch.long, device="cuda")
    for tensor in method._parameters().values():
        tensor.requires_grad_()
    tokens, labels = torch.randn(3, 17, 48, device="cuda"), torch.zeros(3, device="cuda").long()
    loss, _ = method._loss(tokens, labels, torch.arange(3))
    assert loss.requires_grad and loss.device.type == "cuda"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"k": 0}, "k=0"),
        ({"tau": 0}, "tau=0"),
        ({"beta": -0.1}, "beta=-0.1"),
        ({"mix": 1.5}, "mix=1.5"),
        ({"enhanced_layers": 2}, "enhanced_layers=2 must be from 1 to depth=1"),
        ({"hidden": 0}, "hidden=0"),
        ({"summary": "labels"}, "summary='labels'"),
        ({"store_views": -1}, "store_views=-1"),
        ({"database": [1]}, "database=list"),
        ({"n_ctx_vision": -1}, "n_ctx_vision=-1"),
    ],
)
def test_bad_arguments_are_named(vit_backbone, arguments, message):
    with pytest.raises(ValueError, match=message):
        small(vit_backbone, **arguments)


def test_a_resnet_is_refused(resnet_backbone):
    with pytest.raises(ValueError, match="needs a ViT"):
        RePrompt(resnet_backbone)
