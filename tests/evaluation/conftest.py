"""A task of noisy colours, a backbone that is only an identity, and a method on pixels: sweeps need no CLIP.

`PixelMeans` is deterministic given the draw and its seed: class means of the drawn images plus seeded noise.
"""

import types

import pytest
import torch

from vlmcourse.methods import Method, MethodCard, base
from vlmcourse.tasks import Split, Task, registry

NAMES = ("ant", "bee", "cat", "dog", "elk")


def make_split(name: str, per_class: int, seed: int, names=NAMES, shift: int = 0) -> Split:
    labels = torch.arange(len(names)).repeat(per_class)
    noise = torch.randint(-110, 110, (len(labels), 3, 2, 2), generator=torch.Generator().manual_seed(seed))
    images = (40 + 40 * labels[:, None, None, None] + noise + shift).clamp(0, 255).to(torch.uint8)
    return Split(images, labels, names, name=name)


def make_task(name: str, names=NAMES, seed: int = 0) -> Task:
    train, val, test = (make_split(f"{name}/{part}", n, seed + i, names) for i, (part, n) in enumerate(SIZES.items()))
    dark = make_split(f"{name}/dark", 10, seed + 9, names, shift=-30)
    return Task(name, name, train, val, test, "CC0", domains={"dark": dark, "few": dark.keep_classes([0, 2], "few")})


SIZES = {"train": 12, "val": 4, "test": 20}


class PixelMeans(Method):
    """Class means of pixels; other classes get the means by their position (no meaning, but a number)."""

    card = MethodCard("pixels", "Pixels", "here", 2026, "", "baseline", "few-shot", "means (C, 12)", "Pixels.")

    def __init__(self, backbone, *, noise=5.0, movable=True, seed=0, progress=False):
        super().__init__(backbone, seed=seed, progress=progress)
        self.noise, self.movable = noise, movable

    def _fit(self, train, val):
        means = [train.images[train.labels == c].double().flatten(1).mean(0) for c in range(train.num_classes)]
        noise = torch.randn(len(means), 12, dtype=torch.float64, generator=torch.Generator().manual_seed(self.seed))
        self.means = torch.stack(means) + self.noise * noise

    def inputs(self, x):
        return x.images.double().flatten(1)

    def _logits(self, features):
        return -torch.cdist(features, self.means) / 10

    def for_classes(self, class_names, templates=None):
        if not self.movable:
            return super().for_classes(class_names)
        moved = self._moved(class_names, templates)
        moved.means = self.means[torch.arange(len(class_names)) % len(self.means)]
        return moved

    def learned_parameters(self):
        return {"means": self.means}


@pytest.fixture
def task() -> Task:
    return make_task("toy")


@pytest.fixture
def backbone():
    kind = {"name": "none", "dtype": torch.float32, "device": torch.device("cpu"), "fingerprint": "0" * 16}
    return types.SimpleNamespace(**kind)


@pytest.fixture
def pixels(monkeypatch, task):
    """Registers the method "pixels" and the tasks "toy" and "toy2" for one test; returns the method's class."""
    base.list_methods()
    registry.list_tasks()
    monkeypatch.setitem(base._REGISTRY, "pixels", PixelMeans)
    for name, built in (("toy", task), ("toy2", make_task("toy2", ("fig", "gum", "hay"), seed=50))):
        monkeypatch.setitem(registry._factories, name, lambda built=built: built)
        monkeypatch.setitem(registry._tasks, name, built)
    return PixelMeans
