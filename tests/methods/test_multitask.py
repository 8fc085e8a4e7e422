"""Several tasks at once: the pool, what fit and fit_tasks record, one task of many, errors."""

import pytest
import torch

from vlmcourse.methods.base import MethodCard
from vlmcourse.methods.multitask import MultiTask, by_task


class Columns(MultiTask):
    """Logit c of an image is c, so that columns can be recognised."""

    card = MethodCard("columns", "t", "v", 2000, "https://x", "baseline", "none", "nothing", "i")

    def _fit_tasks(self, train, val):
        self.seen = (train, val)

    def _logits(self, features):
        return torch.arange(len(self.seen_names), device=features.device).float().expand(len(features), -1)

    @property
    def seen_names(self):
        return [name for names in self.tasks.values() for name in names]


@pytest.fixture
def two(splits):
    return {"pets": splits(names=("cat", "dog", "fish"), seed=1), "road signs": splits(names=("stop", "dog"), seed=2)}


def test_by_task_finds_every_image_once():
    sizes, indices = [3, 1, 4, 2], torch.tensor([9, 0, 3, 2, 5, 4, 8])
    groups = by_task(indices, sizes)
    assert [t for t, _, _ in groups] == [0, 1, 2, 3]
    assert [own.tolist() for _, _, own in groups] == [[0, 2], [0], [1, 0], [1, 0]]
    for _, where, _ in groups:
        assert where.ndim == 1
    assert sorted(torch.cat([where for _, where, _ in groups]).tolist()) == list(range(7))
    assert [t for t, _, _ in by_task(torch.tensor([7, 4]), sizes)] == [2], "tasks without an image are left out"


def test_tasks_are_rows_of_columns(vit_backbone, two, test_split):
    method = Columns(vit_backbone)
    assert method.fit_tasks(two) is method
    assert method.tasks == {"pets": ("cat", "dog", "fish"), "road signs": ("stop", "dog")} and method.seen == (two, {})
    assert method.class_names == ("cat", "dog", "fish", "stop", "dog") and method.logits(test_split).shape[1] == 5
    signs = method.for_task("road signs")
    assert signs.class_names == ("stop", "dog") and signs.logits(test_split)[0].tolist() == [3, 4]
    assert signs.for_classes(["dog"]).logits(test_split)[0].tolist() == [4]
    split = two["road signs"]
    assert signs.score(split) == (split.labels == 1).double().mean().item()
    assert method.for_task("pets").for_task("road signs").logits(test_split)[0].tolist() == [3, 4]
    for call in (lambda: method.score(split), lambda: method.for_classes(["dog"])):
        with pytest.raises(ValueError, match=r"call for_task\(name\) first; names are \['pets', 'road signs'\]"):
            call()


def test_fit_is_one_task_named_after_its_split(vit_backbone, train, val):
    method = Columns(vit_backbone).fit(train, val)
    assert method.tasks == {"train": train.class_names} and method.task == "train"
    assert method.seen == ({"train": train}, {"train": val}) and 0 <= method.score(train) <= 1
    train.name = "road_signs/train/16-shot/seed1"
    assert list(Columns(vit_backbone).fit(train).tasks) == ["road signs"]
    assert list(Columns(vit_backbone, task_name="traffic").fit(train).tasks) == ["traffic"]
    assert len(method.fit_tasks({"a": train, "b": train}).class_names) == 8 and method.task is None


def test_mistakes_are_named(vit_backbone, two, train, val):
    method = Columns(vit_backbone)
    with pytest.raises(RuntimeError, match="fit"):
        method.for_task("pets")
    for wrong in (train, [train], {"a": 3}, {1: train}, {" ": train}):
        with pytest.raises(TypeError, match="train must be {name: Split}"):
            method.fit_tasks(wrong)
    with pytest.raises(TypeError, match="val must be"):
        method.fit_tasks(two, [val])
    with pytest.raises(ValueError, match="at least one task"):
        method.fit_tasks({})
    with pytest.raises(ValueError, match=r"val\['pets'\]"):
        method.fit_tasks(two, {"pets": val})
    with pytest.raises(ValueError, match="task_name=''"):
        Columns(vit_backbone, task_name="")
    with pytest.raises(ValueError, match="name='cars' is not a fitted task"):
        method.fit_tasks(two).for_task("cars")
    with pytest.raises(NotImplementedError, match="_fit_tasks"):
        MultiTask(vit_backbone).fit(train)
