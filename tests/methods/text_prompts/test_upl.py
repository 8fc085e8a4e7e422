"""UPL: the selection against the official function's values, blindness to labels, runs, teachers, transfer, errors."""

import pytest
import torch

from vlmcourse.backbone.features import image_features
from vlmcourse.methods.baselines.zero_shot import ZeroShot
from vlmcourse.methods.text_prompts.coop import CoOp
from vlmcourse.methods.text_prompts.upl import UPL, select
from vlmcourse.tasks.base import Split

TOY = torch.tensor([[0.9, 0.05, 0.05], [0.8, 0.1, 0.1], [0.6, 0.3, 0.1], [0.2, 0.7, 0.1], [0.4, 0.35, 0.25]])
FAST = {"n_ctx": 2, "epochs": 2, "batch_size": 4}


def as_dict(selection):
    return dict(zip(selection.indices.tolist(), selection.labels.tolist()))


def random_probabilities(n=60, c=5, seed=0):
    logits = 3 * torch.randn(n, c, generator=torch.Generator().manual_seed(seed))
    return logits.softmax(dim=1)


def labelled_by_zero_shot(backbone, split):
    """The split with the labels that zero-shot gives it: zero-shot accuracy 100 %."""
    labels = ZeroShot(backbone).fit(split).predict(split)
    return Split(split.images, labels, split.class_names, split.templates, "zero-shot's")


def test_the_official_example():
    assert as_dict(select(TOY, k=2)) == {0: 0, 1: 0, 3: 1}  # class 2 gets nothing; column-wise would add 4 and 2
    assert as_dict(select(TOY, k=1)) == {0: 0, 3: 1}
    assert as_dict(select(TOY, k=2, class_equal=False)) == {0: 0, 1: 0, 3: 1, 2: 0, 4: 0}  # k C = 6 of all
    assert as_dict(select(TOY, k=1, class_equal=False)) == {0: 0, 1: 0, 3: 1}
    assert as_dict(select(TOY, k=1, conf_threshold=0.75)) == {0: 0, 3: 1, 1: 0}
    assert as_dict(select(TOY, k=0, conf_threshold=0.65)) == {0: 0, 1: 0, 3: 1}


@pytest.mark.parametrize("k", [1, 3, 8, 60, None])
def test_every_choice_is_an_argmax_and_no_class_has_more_than_k(k):
    P = random_probabilities()
    chosen = select(P, k)
    assert torch.equal(chosen.labels, P[chosen.indices].argmax(1))
    assert torch.equal(chosen.confidence, P[chosen.indices].max(1).values)
    assert len(set(chosen.indices.tolist())) == len(chosen.indices)
    available = torch.bincount(P.argmax(1), minlength=5)
    assert torch.equal(torch.bincount(chosen.labels, minlength=5), available.clamp(max=60 if k is None else k))
    for c in range(5):
        own = chosen.confidence[chosen.labels == c]
        assert (own[:-1] >= own[1:]).all()
        left_out = P.max(1).values[(P.argmax(1) == c) & ~torch.isin(torch.arange(60), chosen.indices)]
        assert not len(left_out) or left_out.max() <= own.min()


def test_the_order_of_the_pool_does_not_matter_but_decides_ties():
    P, shuffled = random_probabilities(), torch.randperm(60, generator=torch.Generator().manual_seed(1))
    one, two = as_dict(select(P, 4)), as_dict(select(P[shuffled], 4))
    assert one == {int(shuffled[i]): c for i, c in two.items()}
    equal = torch.tensor([[0.3, 0.7]] * 40)
    assert select(equal, 3).indices.tolist() == [0, 1, 2]


def test_saturated_confidences_are_still_ranked():
    logits = torch.tensor([[30.0, 20, 0], [31, 20, 0], [33, 20, 0]])  # in half precision all three are exactly 1
    P = logits.softmax(dim=1)
    assert P[:, 0].tolist() == pytest.approx([0.99995458, 0.99998331, 0.99999774], abs=1e-8)
    assert select(P, 3).indices.tolist() == [2, 1, 0]


def test_a_half_precision_backbone_is_ranked_in_float32(vit_backbone, train):
    P = UPL(vit_backbone.to(dtype=torch.bfloat16)).pool_probabilities(train)
    assert P.dtype == torch.float32 and not torch.equal(P, P.bfloat16().float()), "no rounding behind the encoders"


def test_fit_does_not_look_at_the_labels(tower, train, test_split):
    scrambled = Split(train.images, 3 - train.labels, train.class_names, train.templates, "scrambled")
    one, two = (UPL(tower, k=2, ensemble=2, **FAST).fit(pool) for pool in (train, scrambled))
    assert as_dict(one.selection) == as_dict(two.selection)
    assert torch.equal(one.logits(test_split), two.logits(test_split))


def test_the_pseudo_labels_are_zero_shots(tower, train):
    for templates in (None, "an icon of a {}."):
        method = UPL(tower, k=2, ensemble=1, templates=templates, **FAST).fit(train)
        zero_shot = ZeroShot(tower, templates=templates).fit(train)
        torch.testing.assert_close(method.pool_probabilities(train), zero_shot.probabilities(train))
        indices, labels, _ = method.selection
        assert torch.equal(labels, zero_shot.predict(train)[indices])
        assert torch.equal(method.chosen.labels, labels)
        assert torch.equal(method.chosen.images, train.images[indices])


def test_with_perfect_pseudo_labels_a_run_is_coop_on_the_easiest_images(vit_backbone, train, test_split):
    pool = labelled_by_zero_shot(vit_backbone, train)
    method = UPL(vit_backbone, k=2, ensemble=1, seed=3, **FAST).fit(pool)
    chosen = pool.subset(method.selection.indices)
    coop = CoOp(vit_backbone, seed=4, **FAST).fit(chosen)
    assert torch.equal(chosen.labels, method.chosen.labels)
    torch.testing.assert_close(method.logits(test_split), coop.logits(test_split))


def test_the_ensemble_is_the_mean_of_the_runs_logits(tower, train, test_split):
    method = UPL(tower, k=2, ensemble=3, lr=0.05, **FAST).fit(train)
    apart = torch.stack([run.logits(test_split) for run in method.runs])
    torch.testing.assert_close(method.logits(test_split), apart.mean(dim=0), atol=1e-4, rtol=0)
    assert (apart[0] - apart[1]).abs().max() > 1e-3, "the runs differ"
    assert method.learned_parameters()["ctx"].shape == (3, 2, tower.text_width)
    assert method.history["loss"] == pytest.approx(
        [sum(losses) / 3 for losses in zip(*(run.history["loss"] for run in method.runs))]
    )


def test_equal_runs_are_the_run(vit_backbone, train, test_split):
    method = UPL(vit_backbone, k=2, ensemble=3, **FAST).fit(train)
    method.runs = [method.runs[0]] * 3
    method._average()
    torch.testing.assert_close(method.logits(test_split), method.runs[0].logits(test_split), atol=1e-4, rtol=0)


def test_the_runs_have_the_papers_seeds_and_ensembles_share_none(vit_backbone):
    seeds = [[run.seed for run in UPL(vit_backbone, seed=s).runs] for s in (0, 1, 2)]
    assert seeds[0] == list(range(1, 17))
    assert len(set(sum(seeds, []))) == 48


def test_the_recipe_is_the_papers(vit_backbone):
    method = UPL(vit_backbone)
    assert method.k == 16 and method.class_equal and not method.conf_threshold
    run = method.runs[0]
    assert (run.n_ctx, run.class_token_position, run.epochs, run.csc) == (16, "end", 50, False)
    assert run.recipe == {
        "lr": 2e-3, "batch_size": 32, "momentum": 0.9, "weight_decay": 5e-4, "warmup_epochs": 1,
    }  # fmt: skip


def test_teachers_average_probabilities_not_logits(make_backbone, train):
    one, two = make_backbone("vit"), make_backbone("vit", seed=5)
    method = UPL(one, k=2, ensemble=1, teachers=[one, two], **FAST).fit(train)
    P = [ZeroShot(teacher).fit(train).probabilities(train) for teacher in (one, two)]
    assert (P[0] - P[1]).abs().max() > 0.01
    torch.testing.assert_close(method.pool_probabilities(train), (P[0] + P[1]) / 2)
    assert torch.equal(method.selection.labels, ((P[0] + P[1]) / 2)[method.selection.indices].argmax(1))
    logits = torch.tensor([[4.0, 0, 3], [0, 3, 2.5]])  # averaging logits instead would choose another class
    mean = logits.softmax(dim=1).mean(dim=0)
    assert mean.tolist() == pytest.approx([0.376, 0.309, 0.316], abs=1e-3)
    assert select(mean[None], 1).labels.item() == 0 and logits.mean(dim=0).argmax().item() == 2


def test_a_class_that_is_never_predicted_still_competes(vit_backbone, train, test_split, monkeypatch):
    def no_dogs(self, pool):
        P = random_probabilities(len(pool), 4)
        P[:, 1] = 0
        return P / P.sum(dim=1, keepdim=True)

    monkeypatch.setattr(UPL, "pool_probabilities", no_dogs)
    method = UPL(vit_backbone, k=2, ensemble=1, **FAST).fit(train)
    assert method.chosen.counts.tolist() == [2, 0, 2, 2]
    assert method.logits(test_split).shape == (20, 4) and torch.isfinite(method.logits(test_split)).all()


@pytest.mark.parametrize("more", [{"class_equal": False}, {"conf_threshold": 0.3}, {"k": None}, {"k": 1}])
def test_every_way_to_select_fits(tower, train, more):
    method = UPL(tower, **{"k": 2, "ensemble": 1} | FAST | more).fit(train)
    expected = select(method.pool_probabilities(train), **{"k": 2} | more)
    assert as_dict(method.selection) == as_dict(expected) and method.history["loss"]


def test_fitting_lowers_the_loss_on_the_pseudo_labels(vit_backbone, splits):
    method = UPL(vit_backbone, k=4, ensemble=2, n_ctx=4, epochs=15, batch_size=4, lr=0.003).fit(splits(per_class=8))
    assert method.history["loss"][-1] < method.history["loss"][0] - 0.03


@pytest.mark.parametrize("batch_size", [1, 3, 100])
@pytest.mark.parametrize("views", [1, 3, None])
def test_odd_batches_and_every_kind_of_view(vit_backbone, train, batch_size, views):
    method = UPL(vit_backbone, k=2, ensemble=2, n_ctx=2, epochs=1, batch_size=batch_size, views=views).fit(train)
    assert torch.isfinite(method.learned_parameters()["ctx"]).all()


def test_seeds_are_reproducible(vit_backbone, train, val, test_split):
    torch.manual_seed(0)
    one = UPL(vit_backbone, k=2, ensemble=2, seed=1, **FAST).fit(train).logits(test_split)
    torch.manual_seed(1)
    same, other = (
        UPL(vit_backbone, k=2, ensemble=2, seed=s, **FAST).fit(train, val).logits(test_split) for s in (1, 2)
    )
    assert torch.equal(one, same) and (one - other).abs().max() > 1e-5


def test_the_contexts_move_to_other_classes(vit_backbone, train, test_split):
    method = UPL(vit_backbone, k=2, ensemble=2, **FAST).fit(train)
    before = method.logits(test_split)
    moved = method.for_classes(["a very long name of a class", "dog"])
    torch.testing.assert_close(moved.logits(test_split)[:, 1], before[:, 1], atol=1e-4, rtol=0)
    torch.testing.assert_close(method.for_classes(train.class_names).logits(test_split), before)
    assert torch.equal(method.logits(test_split), before), "the method itself stays as it was"
    specific = UPL(vit_backbone, k=2, ensemble=2, csc=True, **FAST).fit(train)
    two = specific.for_classes(["red_fox", "dog"])
    assert torch.equal(two.logits(test_split), specific.logits(test_split)[:, [3, 1]])
    with pytest.raises(ValueError, match="upl cannot move to classes it was not fitted on, such as 'yak'"):
        specific.for_classes(["dog", "yak"])


def test_fitting_again_forgets_the_first_time(vit_backbone, train, test_split, splits):
    method = UPL(vit_backbone, k=2, ensemble=2, **FAST)
    method.fit(splits(per_class=3, seed=8))
    again = method.fit(train).logits(test_split)
    assert torch.equal(again, UPL(vit_backbone, k=2, ensemble=2, **FAST).fit(train).logits(test_split))


def test_logits_follow_the_device_of_the_features(vit_backbone, train):
    method = UPL(vit_backbone, k=2, ensemble=2, **FAST).fit(train)
    features = image_features(vit_backbone, train)
    assert method._logits(features.double()).dtype == torch.float64


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"k": -1}, "k=-1"),
        ({"k": 2.0}, "k=2.0"),
        ({"k": 0}, "k=0 and conf_threshold=0.0 leave no image of 16"),
        ({"conf_threshold": 1.5}, "conf_threshold=1.5"),
        ({"conf_threshold": 0.5, "class_equal": False}, "conf_threshold=0.5 adds to the K per class"),
        ({"ensemble": 0}, "ensemble=0"),
        ({"teachers": []}, r"teachers=\(\)"),
        ({"templates": "no place"}, "no place"),
        ({"epochs": -1}, "epochs=-1"),
        ({"n_ctx": 0}, "n_ctx=0"),
    ],
)
def test_bad_arguments_are_named(vit_backbone, train, arguments, message):
    with pytest.raises(ValueError, match=message):
        UPL(vit_backbone, **{"ensemble": 1} | arguments).fit(train)


@pytest.mark.parametrize("wrong", [torch.ones(3, 2), torch.tensor([[1.5, -0.5]]), torch.full((4,), 0.25)])
def test_logits_are_not_probabilities(wrong):
    with pytest.raises(ValueError, match="rows that sum to 1"):
        select(wrong, 1)


def test_before_fit_there_is_nothing(vit_backbone, test_split):
    with pytest.raises(RuntimeError, match="fit"):
        UPL(vit_backbone).logits(test_split)
    assert UPL(vit_backbone).learned_parameters() == {}
