import numpy as np
import pytest
import torch

from vlmcourse.tasks import Split, Task


def chosen(split: Split) -> list[int]:
    return split.origin[1].tolist()


@pytest.mark.parametrize(("shots", "val_shots"), [(1, 1), (2, 2), (5, 3), (6, 3)])  # val has 3 per class, fewer than 4
def test_few_shot_draws_k_per_class(task, shots, val_shots):
    train, val = task.few_shot(shots, seed=1)
    assert train.counts.tolist() == [shots] * 5 and val.counts.tolist() == [val_shots] * 5
    assert len(set(chosen(train))) == len(train)  # without replacement
    assert train.origin[0] is task.train and val.origin[0] is task.val
    assert train.labels.tolist() == sorted(train.labels.tolist())  # class by class
    assert torch.equal(train.images, task.train.images[train.origin[1]])
    assert (train.class_names, train.templates) == (task.class_names, task.templates)


def test_validation_has_at_most_four_per_class(task):
    big = Task("big", "Big", task.train, task.train, task.test, "CC0")
    assert big.few_shot(6, 1).val.counts.tolist() == [4] * 5


def test_draw_depends_on_its_seed_and_on_k_and_on_nothing_else(task):
    before = chosen(task.few_shot(3, seed=1).train)
    np.random.default_rng(0).random()
    state = torch.get_rng_state()
    torch.rand(3)
    assert chosen(task.few_shot(3, seed=1).train) == before
    torch.set_rng_state(state)
    task.few_shot(3, seed=1)
    assert torch.equal(torch.get_rng_state(), state)  # and the global generator is left alone
    assert chosen(task.few_shot(3, seed=2).train) != before
    draws = [(chosen(task.few_shot(1, s).train), chosen(task.few_shot(2, s).train)) for s in range(8)]
    assert any(not set(one) <= set(two) for one, two in draws)  # independent draws for each K: not nested


def test_equal_tasks_draw_equally(task):
    twin = Task("toy", "Twin", task.train, task.val, task.test, "CC0")
    other = Task("other", "Other name", task.train, task.val, task.test, "CC0")
    assert chosen(twin.few_shot(3, 1).train) == chosen(task.few_shot(3, 1).train) != chosen(other.few_shot(3, 1).train)


def test_task_without_validation(task):
    bare = Task("bare", "Bare", task.train, None, task.test, "CC0")
    assert bare.few_shot(2, 1).val is None and "val" not in bare.splits
    assert bare.base_to_new()[0].few_shot(2, 1).val is None and "| val |" not in bare.card


@pytest.mark.parametrize("shots", [0, -1, 1.0, True, None])
def test_wrong_shots(task, shots):
    with pytest.raises(ValueError, match="shots must be an integer >= 1"):
        task.few_shot(shots, 1)


@pytest.mark.parametrize("seed", [1.5, None, "1"])
def test_wrong_seed(task, seed):
    with pytest.raises(ValueError, match="seed must be an integer"):
        task.few_shot(1, seed)


def test_too_many_shots_name_the_smallest_class(task):
    thin = task.train.subset([i for i in range(30) if i not in (2, 7)])  # two cats fewer
    task = Task("thin", "Thin", thin, task.val, task.test, "CC0")
    with pytest.raises(ValueError, match=r"at most 4 for task 'thin': class 'cat' has only 4 .*got shots=5"):
        task.few_shot(5, 1)


def test_base_to_new_halves_by_label(task):
    base, new = task.base_to_new()
    assert base.class_names == ("ant", "bee", "cat") and new.class_names == ("dog", "elk")  # ceil(5 / 2) = 3
    assert (base.name, new.name) == ("toy/base", "toy/new")
    for half, first in ((base, 0), (new, 3)):
        for part, split in half.splits.items():
            whole = task.splits[part]
            assert split.labels.unique().tolist() == list(range(half.num_classes))  # relabelled from 0
            assert torch.equal(whole.labels[split.origin[1]] - first, split.labels)
            assert torch.equal(split.images, whole.images[split.origin[1]])
    assert len(base.test) + len(new.test) == len(task.test)
    assert list(base.domains) == ["dark", "few"] and base.domains["few"].class_names == ("bee",)
    assert new.domains["few"].class_names == ("elk",) and set(new.domains["dark"].labels.tolist()) == {0, 1}


@pytest.mark.parametrize("split_seed", [None, 3])
def test_base_draw_is_the_full_draw_filtered(task, split_seed):
    for shots, seed in ((1, 1), (4, 2)):
        full = task.few_shot(shots, seed)
        for half in task.base_to_new(split_seed):
            draw = half.few_shot(shots, seed)
            classes = [task.class_names.index(n) for n in half.class_names]
            for part, drawn in zip(full, draw, strict=True):
                kept = torch.isin(part.labels, torch.tensor(classes))
                assert chosen(drawn) == part.origin[1][kept].tolist()
                assert drawn.labels.tolist() == [classes.index(c) for c in part.labels[kept].tolist()]


def test_random_halves(task):
    halves = {s: task.base_to_new(s) for s in range(6)}
    for seed, (base, new) in halves.items():
        assert len(base.class_names) == 3 and set(base.class_names) | set(new.class_names) == set(task.class_names)
        assert list(base.class_names) == sorted(base.class_names) and base.name == f"toy/base@{seed}"
        assert task.base_to_new(seed)[0].class_names == base.class_names
    assert len({base.class_names for base, _ in halves.values()}) > 1


def test_halves_of_halves_keep_the_draw(task):
    quarter = task.base_to_new()[0].base_to_new()[1]
    assert quarter.class_names == ("cat",)
    full = task.few_shot(2, 1).train
    assert chosen(quarter.few_shot(2, 1).train) == full.origin[1][full.labels == 2].tolist()


def test_one_class_cannot_be_halved(task):
    single = task.keep_classes([2], "cats")
    with pytest.raises(ValueError, match="at least 2 classes"):
        single.base_to_new()


def test_only_single_label_tasks_have_these_protocols(task):
    other = Task("m", "M", task.train, task.val, task.test, "CC0", kind="multi-label")
    for call in (lambda: other.few_shot(1, 1), other.base_to_new):
        with pytest.raises(ValueError, match="single-label"):
            call()


def test_splits_must_fit_together(task):
    with pytest.raises(ValueError, match="val and train must have the same class names"):
        Task("bad", "Bad", task.train, task.val.keep_classes([0, 1]), task.test, "CC0")
    stranger = Split(task.test.images, task.test.labels, ("ant", "bee", "cat", "dog", "yak"))
    with pytest.raises(ValueError, match=r"domain 'x' has classes that the task does not have: \['yak'\]"):
        Task("bad", "Bad", task.train, task.val, task.test, "CC0", domains={"x": stranger})


def test_fingerprint_covers_data_and_words(task):
    twin = Task("toy", "Twin", task.train, task.val, task.test, "MIT", domains=task.domains)
    less = Task("toy", "Toy", task.train, task.val, task.test, "CC0")
    assert twin.fingerprint == task.fingerprint != less.fingerprint
    renamed = [Split(s.images, s.labels, [n.upper() for n in s.class_names], s.templates) for s in task.splits.values()]
    assert Task("toy", "Toy", *renamed, "CC0").fingerprint != less.fingerprint


def test_card(task):
    assert "Zero-shot" not in task.card
    card = Task(
        "toy", "Toy", task.train, task.val, task.test, "CC0", "home", "Colours.", task.domains, zero_shot=0.256
    ).card
    for line in (
        "### Toy (`toy`)",
        "Colours.",
        "- Source: home",
        "- Licence: CC0",
        "- Labels: single-label, 5 classes: ant, bee, cat, dog, elk",
        "- Zero-shot top-1 of the embedded backbone: 25.6 %",
        "| train | 30 | 6 | 6 |",
        "| domain: few | 8 | 4 | 4 |",
    ):
        assert line in card.splitlines()
