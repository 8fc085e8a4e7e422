"""What every method shares: its card, the registry, and fit / logits / predict / score.

A method is a class with a `card`, keyword arguments (the paper's names and defaults), and two functions to write:
    _fit(train, val)          learn or compute what it needs; class names and templates are already in self
    _logits(features) (B, C)  from L2-normalised image features (B, E)
A method that needs something else of an image than its pooled feature sets `encoder` (see backbone/features.py).
The registry is filled by importing every module below vlmcourse/methods when asked: a new method is a new file.
"""

import copy
import dataclasses
import difflib
import importlib
import pkgutil
from typing import ClassVar

import torch
import torch.nn.functional as F

from vlmcourse.backbone.features import LARGEST, POOLED, image_features
from vlmcourse.tasks.base import Split

NEEDS = {
    "outputs": "features of images and texts, as an API could serve them",
    "inputs": "gradients through a tower to its input",
    "internals": "what inner layers compute",
    "weights": "weights to change",
}


@dataclasses.dataclass(frozen=True)
class MethodCard:
    """Where a method comes from and what it does. `module`, `test`, `notebook` follow from the file's name."""

    name: str  # as in get_method(name)
    title: str  # of the paper
    venue: str
    year: int
    url: str
    family: str  # "baseline", "text prompt", "adapter", ...
    setup: str  # "zero-shot", "few-shot supervised", ...
    learned: str  # what is learned, with shapes
    idea: str  # the seed of the idea, one sentence
    acts_on: str = ""  # where in the model: "text input", "features", "image tower", ...
    needs: str = ""  # what it needs of the model, one of NEEDS
    module: str = ""
    test: str = ""
    notebook: str = ""  # a glob pattern: the number in front of the notebook's name is the course's business


_REGISTRY: dict[str, type["Method"]] = {}


def register(cls):
    """Class decorator: make a method known under `card.name`. ValueError if another class has that name."""
    card, (*_, folder, stem) = cls.card, cls.__module__.split(".")
    known = _REGISTRY.get(card.name)
    if known is not None and (known.__module__, known.__qualname__) != (cls.__module__, cls.__qualname__):
        raise ValueError(f"card.name={card.name!r} is taken by {known.__module__}.{known.__qualname__}")
    cls.card = dataclasses.replace(
        card,
        module=card.module or cls.__module__.replace(".", "/") + ".py",
        test=card.test or f"tests/methods/{folder}/test_{stem}.py",
        notebook=card.notebook or f"notebooks/*_{folder}/*_{stem}.ipynb",
    )
    _REGISTRY[card.name] = cls
    return cls


def list_methods(family=None):
    """{name: class} of all methods, sorted by name, or of one `family` (ValueError if there is none)."""
    package = importlib.import_module("vlmcourse.methods")
    for module in pkgutil.walk_packages(package.__path__, "vlmcourse.methods."):
        importlib.import_module(module.name)
    families = sorted({cls.card.family for cls in _REGISTRY.values()})
    if family is not None and family not in families:
        raise ValueError(f"family={family!r} is not known; there are {families}")
    return {name: cls for name, cls in sorted(_REGISTRY.items()) if family in (None, cls.card.family)}


def get_method(name):
    """The class of one method. ValueError, with close matches, for an unknown name."""
    methods = list_methods()
    if name not in methods:
        close = difflib.get_close_matches(str(name), methods, cutoff=0.4)
        raise ValueError(f"name={name!r} is not a method; did you mean {close or list(methods)}?")
    return methods[name]


class Method:
    """Base of all methods. `history` has one list per logged number (empty for training-free methods)."""

    card: ClassVar[MethodCard]
    encoder = POOLED

    def __init__(self, backbone, *, seed=0, progress=False):
        self.backbone, self.seed, self.progress = backbone, seed, progress
        self.class_names: tuple[str, ...] = ()
        self.templates: tuple[str, ...] = ()
        self.history: dict[str, list[float]] = {}
        self._fitted, self._columns = False, None  # columns of the logits that for_classes kept; None: all

    def fit(self, train, val=None):
        """Learn from `train` and its class names and templates; `val` only chooses hyper-parameters. Returns self."""
        for name, split in (("train", train), ("val", val)):
            if not isinstance(split, Split) and not (name == "val" and split is None):
                raise TypeError(
                    f"{name}={type(split).__name__} must be a Split, as task.{name} or task.few_shot(1, 0).{name}"
                )
        if val is not None and tuple(val.class_names) != tuple(train.class_names):
            raise ValueError("val has other class names than train; take both from the same task")
        self.class_names, self.templates = tuple(train.class_names), tuple(train.templates)
        self.history, self._fitted, self._columns = {}, False, None
        self._fit(train, val)
        self._fitted = True
        return self

    def _fit(self, train, val):
        raise NotImplementedError(f"{type(self).__name__} must define _fit(train, val)")

    def _logits(self, features):
        raise NotImplementedError(f"{type(self).__name__} must define _logits(features)")

    def inputs(self, x):
        """(B, E) features, L2-normalised, at least float32.

        x: a Split (its test view, cached), images as encode_image takes them, or features (B, E). A method with another
        `encoder` has what that computes in place of features.
        """
        encoder, width = self.encoder, self.backbone.embed_dim
        if isinstance(x, Split):
            x = image_features(self.backbone, x, encoder=encoder, normalise=False)
        elif isinstance(x, torch.Tensor) and x.ndim == 2 < encoder.ndim:
            raise ValueError(
                f"x={tuple(x.shape)} are features of the frozen tower, but {self.card.name} needs the {encoder.name} "
                "of images: give images or a Split"
            )
        elif not (isinstance(x, torch.Tensor) and x.ndim == encoder.ndim and (x.ndim < 3 or x.is_floating_point())):
            x = encoder(self.backbone, x)  # an image may have three axes, and then it holds whole numbers
        if encoder.unit and (x.shape[-1] != width or not x.is_floating_point()):
            shape = ", ".join(["B", "P"][: encoder.ndim - 1] + [str(width)])
            raise ValueError(f"x={tuple(x.shape)} {x.dtype} must be a Split, images or features ({shape})")
        x = full_precision(x).to(self.backbone.device)
        return F.normalize(x, dim=-1) if encoder.unit else x

    @torch.no_grad()
    def logits(self, x):
        """(B, C) float32 scores before the softmax. x: a Split, images, or features (B, E). RuntimeError before fit."""
        self._require_fit()
        logits = torch.cat([self._logits(self.inputs(part)).float() for part in self._parts(x)])
        return logits if self._columns is None else logits[:, self._columns]

    def _parts(self, x):
        """[x]; where what the encoder makes of a split would be too large to keep, its images in parts."""
        if isinstance(x, Split) and self.encoder.ndim > 2:
            size = max(1, LARGEST // self.encoder(self.backbone, x.images[:1]).nbytes)
            return [x] if size >= len(x) else x.images.split(size)
        return [x]

    def probabilities(self, x):
        """(B, C) softmax of the logits."""
        return self.logits(x).softmax(dim=-1)

    def predict(self, x):
        """(B,) long, the class of the highest logit."""
        return self.logits(x).argmax(dim=-1)

    def score(self, split):
        """Top-1 accuracy in [0, 1] on a split with these classes, or with some of them: then only those compete."""
        self._require_fit()
        if not isinstance(split, Split):
            raise TypeError(f"split={type(split).__name__} must be a Split; for other inputs use predict")
        foreign = sorted(set(split.class_names) - set(self.class_names))
        if foreign:
            raise ValueError(
                f"split={split.name!r} has classes unknown here, such as {foreign[0]!r}: call for_classes first"
            )
        columns = [self.class_names.index(name) for name in split.class_names]
        return (self.logits(split)[:, columns].argmax(dim=-1).cpu() == split.labels).double().mean().item()

    def for_classes(self, class_names, templates=None):
        """What was learned, under other class names, ready for logits.

        Methods whose knowledge is tied to their classes (caches, linear classifiers) can only be restricted to some of
        those, and raise a ValueError for others; methods that build their classifier from names override this.
        """
        moved = self._moved(class_names, templates)
        foreign = sorted(set(moved.class_names) - set(self.class_names))
        if foreign:
            raise ValueError(
                f"{self.card.name} cannot move to classes it was not fitted on, such as {foreign[0]!r}; "
                f"it is tied to its own by: {self.card.learned}"
            )
        columns = range(len(self.class_names)) if self._columns is None else self._columns
        moved._columns = [columns[self.class_names.index(name)] for name in moved.class_names]
        return moved

    def learned_parameters(self) -> dict[str, torch.Tensor]:
        """What was learned, by name, detached; empty for training-free methods."""
        return {}

    @property
    def n_learned(self):
        """Number of learned scalars."""
        return sum(tensor.numel() for tensor in self.learned_parameters().values())

    def _require_fit(self):
        if not self._fitted:
            raise RuntimeError(f"{type(self).__name__} is not fitted yet: call fit(train, val) first")

    def _moved(self, class_names, templates):
        """A shallow copy under other class names (and templates), for the subclass's for_classes to finish."""
        self._require_fit()
        if isinstance(class_names, str) or not class_names or not all(isinstance(name, str) for name in class_names):
            raise ValueError(f"class_names={class_names!r} must be a non-empty list of names")
        moved = copy.copy(self)
        moved.class_names = tuple(class_names)
        moved.templates = self.templates if templates is None else tuple(templates)
        return moved


def full_precision(x):
    """Half-precision tensors as float32, others unchanged: what follows the encoders needs at least float32."""
    return x.float() if x.dtype in (torch.float16, torch.bfloat16) else x
