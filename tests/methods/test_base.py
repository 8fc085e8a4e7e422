"""The registry, the cards, and what every classification method must do: shapes, errors, determinism."""

import dataclasses
import inspect
from pathlib import Path

import pytest
import torch

import vlmcourse.methods.base as base
from vlmcourse.backbone.features import POOLED, image_features
from vlmcourse.methods import Method, MethodCard, get_method, list_methods, register
from vlmcourse.tasks.base import Split

ROOT = Path(__file__).parents[2]
CLASSIFIERS = [n for n, m in list_methods().items() if m.card.setup.startswith(("zero-shot", "few-shot supervised"))]
# the logit of a class depends on which others compete: probabilities are averaged over prompts (vpt), or the image
# looks at all class texts (calip) or at those of the likeliest classes (cavpt)
SEES_THE_OTHER_CLASSES = {"vpt", "calip", "calip_fs", "cavpt"}
CARD = MethodCard("toy", "t", "v", 2000, "https://x", "baseline", "none", "nothing", "i")


def quick(name, backbone, **arguments):
    """A method with two epochs of training, if it has epochs at all; skips where it needs a ViT and says so."""
    cls = get_method(name)
    takes_epochs = any("epochs" in inspect.signature(c.__init__).parameters for c in cls.__mro__[:-1])
    try:
        return cls(backbone, **({"epochs": 2} if takes_epochs else {}), **arguments)
    except ValueError as error:
        if "needs a ViT" in str(error) and not backbone.is_vit:
            pytest.skip(str(error))
        raise


@pytest.fixture
def empty_registry(monkeypatch):
    monkeypatch.setattr(base, "_REGISTRY", {})


def test_methods_are_found_by_walking_the_package():
    methods = list_methods()
    assert {"zero_shot", "linear_probe", "coop", "tip_adapter", "tip_adapter_f"} <= set(methods)
    assert list(methods) == sorted(methods)
    assert get_method("coop").__name__ == "CoOp"
    assert set(list_methods(family="baseline")) == {n for n, m in methods.items() if m.card.family == "baseline"}


def test_unknown_names_get_close_matches():
    with pytest.raises(ValueError, match="name='koop'.*'coop'"):
        get_method("koop")
    with pytest.raises(ValueError, match="family='magic'.*'adapter'"):
        list_methods(family="magic")


@pytest.mark.parametrize("name", list_methods())
def test_cards_are_complete_and_lead_to_files(name):
    card = get_method(name).card
    assert card.name == name and all(value not in ("", None) for value in dataclasses.astuple(card))
    assert card.needs in base.NEEDS
    assert (ROOT / card.module).is_file() and (ROOT / card.test).is_file()
    stem = Path(card.module).stem
    assert card.notebook.startswith("notebooks/") and Path(card.test).name == f"test_{stem}.py"
    assert card.url.startswith("https://") and 1990 < card.year < 2100
    assert get_method(name).__init__.__kwdefaults__ is not None, "hyper-parameters are keyword arguments with defaults"


def test_a_name_can_be_taken_once_but_a_module_may_be_reloaded(empty_registry):
    @register
    class Toy(Method):
        card = CARD

    assert register(Toy) is Toy

    with pytest.raises(ValueError, match="card.name='toy' is taken"):

        @register
        class Other(Method):
            card = CARD


def test_a_method_must_say_how_it_fits_and_scores(vit_backbone, train):
    with pytest.raises(NotImplementedError, match="_fit"):
        Method(vit_backbone).fit(train)
    with pytest.raises(NotImplementedError, match="_logits"):
        Method(vit_backbone)._logits(torch.zeros(1, 16))
    assert Method(vit_backbone).learned_parameters() == {} and Method(vit_backbone).n_learned == 0


@pytest.mark.parametrize("name", CLASSIFIERS)
def test_before_fit_there_is_an_error_that_says_what_to_do(vit_backbone, test_split, name):
    method = quick(name, vit_backbone)
    for call in (method.logits, method.predict, method.score, method.probabilities):
        with pytest.raises(RuntimeError, match=r"call fit\(train, val\) first"):
            call(test_split)
    with pytest.raises(RuntimeError, match="fit"):
        method.for_classes(["a", "b"])
    assert method.learned_parameters() == {}


@pytest.mark.parametrize("name", CLASSIFIERS)
def test_every_classifier_keeps_the_contract(tower, train, val, test_split, name):
    method = quick(name, tower)
    assert method.fit(train, val) is method
    logits = method.logits(test_split)
    assert logits.shape == (len(test_split), 4) and logits.dtype == torch.float32 and not logits.requires_grad
    assert torch.isfinite(logits).all()
    assert torch.equal(method.predict(test_split), logits.argmax(-1))
    torch.testing.assert_close(method.probabilities(test_split).sum(-1), torch.ones(len(test_split)))
    accuracy = (logits.argmax(-1) == test_split.labels).double().mean().item()
    assert method.score(test_split) == accuracy
    pooled = image_features(tower, test_split)
    for x in (test_split.images, *((pooled, 7 * pooled) if method.encoder is POOLED else ())):
        torch.testing.assert_close(method.logits(x), logits, atol=1e-4, rtol=1e-4)
    assert method.n_learned == sum(t.numel() for t in method.learned_parameters().values())
    assert not any(t.requires_grad for t in method.learned_parameters().values())
    assert all(p.grad is None and not p.requires_grad for p in tower.model.parameters())
    assert isinstance(method.history, dict)
    again = quick(name, tower).fit(train, val)
    assert torch.equal(again.logits(test_split), logits), "equal seeds, equal results"


@pytest.mark.parametrize("name", CLASSIFIERS)
def test_a_split_with_some_of_the_classes_lets_only_those_compete(vit_backbone, train, test_split, name):
    method = quick(name, vit_backbone).fit(train)
    part = test_split.keep_classes([2, 0])
    logits = method.logits(part)[:, [2, 0]]
    assert method.score(part) == (logits.argmax(-1) == part.labels).double().mean().item()
    restricted = method.for_classes(part.class_names)
    once_more = restricted.for_classes(part.class_names[::-1]).for_classes(part.class_names)
    torch.testing.assert_close(once_more.logits(part), restricted.logits(part), atol=1e-4, rtol=1e-4)
    if name not in SEES_THE_OTHER_CLASSES:
        torch.testing.assert_close(restricted.logits(part), logits, atol=1e-4, rtol=1e-4)
    assert method.logits(part).shape[1] == 4


def test_wrong_splits_and_inputs_are_named(vit_backbone, train, val, splits):
    method = quick("zero_shot", vit_backbone)
    with pytest.raises(TypeError, match="train=Tensor must be a Split"):
        method.fit(train.images)
    with pytest.raises(TypeError, match="val=list must be a Split"):
        method.fit(train, [1])
    with pytest.raises(ValueError, match="val has other class names"):
        method.fit(train, val.keep_classes([0, 1]))
    method.fit(train)
    with pytest.raises(TypeError, match="split=Tensor"):
        method.score(train.images)
    with pytest.raises(ValueError, match="classes unknown here, such as 'yak': call for_classes"):
        method.score(splits(names=("dog", "yak")))
    with pytest.raises(ValueError, match=r"x=\(3, 5\).*features \(B, 16\)"):
        method.logits(torch.zeros(3, 5))
    with pytest.raises(ValueError, match="x="):
        method.logits(torch.zeros(3, 16, dtype=torch.long))


def test_a_failed_second_fit_leaves_no_half_fitted_method(vit_backbone, train):
    method = quick("linear_probe", vit_backbone).fit(train)
    one_class = Split(train.images[:4], train.labels[:4], train.class_names)
    with pytest.raises(ValueError, match="at least 2"):
        method.fit(one_class)
    with pytest.raises(RuntimeError, match="fit"):
        method.logits(train)


def test_half_precision_backbones_give_float32_logits(vit_backbone, train, val):
    half = vit_backbone.to(dtype=torch.bfloat16)
    for name in CLASSIFIERS:
        method = quick(name, half).fit(train, val)
        assert method.logits(val).dtype == torch.float32 and torch.isfinite(method.logits(val)).all()
