"""Linear probe: equal to scikit-learn, searched as documented, two classes, missing classes, errors."""

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression

from vlmcourse.backbone.features import image_features
from vlmcourse.methods.baselines.linear_probe import COARSE, LinearProbe
from vlmcourse.tasks.base import Split


def test_fixed_penalty_equals_scikit_learn(tower, train, test_split):
    method = LinearProbe(tower, C=10.0).fit(train)
    x, queries = image_features(tower, train).double().numpy(), image_features(tower, test_split).numpy()
    reference = LogisticRegression(C=10.0, max_iter=1000).fit(x, train.labels.numpy())
    np.testing.assert_allclose(method.probabilities(test_split).numpy(), reference.predict_proba(queries), atol=2e-3)
    assert method.n_learned == 4 * (tower.embed_dim + 1) and method.chosen_C == 10.0


def test_the_gradient_of_the_stated_objective_vanishes(vit_backbone, train):
    method = LinearProbe(vit_backbone, C=1.0).fit(train)
    x, (w, b) = image_features(vit_backbone, train), (t.clone().requires_grad_() for t in (method.weight, method.bias))
    loss = 0.5 * (w**2).sum() + torch.nn.functional.cross_entropy(x @ w.T + b, train.labels, reduction="sum")
    loss.backward()
    assert w.grad.abs().max() < 1e-2 and b.grad.abs().max() < 1e-2


def test_without_validation_the_default_is_used(vit_backbone, train):
    method = LinearProbe(vit_backbone).fit(train)
    assert method.chosen_C == 31.6 and method.searched == []


def test_search_follows_the_documented_steps(vit_backbone, splits, monkeypatch):
    train, val = splits(4, seed=1), splits(4, seed=2)
    peak = 2.3  # log10 of the C that this fake accuracy prefers

    class Fake:
        def __init__(self, C):
            self.C, self.classes_ = C, np.arange(4)
            self.coef_, self.intercept_ = np.zeros((4, 16)), np.zeros(4)

        def predict(self, x):
            right = int(16 - 3 * min(5, abs(np.log10(self.C) - peak)))
            return np.where(np.arange(16) < right, val.labels.numpy(), -1)

    monkeypatch.setattr(LinearProbe, "_regress", lambda self, x, y, C: Fake(C))
    method = LinearProbe(vit_backbone, search_steps=6).fit(train, val)
    tried = np.log10([C for C, _ in method.searched])
    assert tuple(C for C, _ in method.searched[:7]) == COARSE and len(tried) == 7 + 2 * 6
    np.testing.assert_allclose(tried[7:9], [1, 3])  # a decade around 1e2
    widths = tried[8::2] - tried[7::2]
    np.testing.assert_allclose(widths, 2.0 / 2 ** np.arange(6))
    best = max(accuracy for _, accuracy in method.searched)
    last_of_the_best = [C for C, accuracy in method.searched if accuracy == best][-1]
    assert method.chosen_C == last_of_the_best and abs(np.log10(method.chosen_C) - peak) < 0.4


def test_search_never_does_worse_on_validation_than_any_single_penalty(vit_backbone, train, val):
    method = LinearProbe(vit_backbone, search_steps=2).fit(train, val)
    assert method.score(val) == max(accuracy for _, accuracy in method.searched)
    fixed = LinearProbe(vit_backbone, C=1e-4).fit(train)
    assert method.score(val) >= fixed.score(val)


def test_two_classes_and_a_missing_class(vit_backbone, train, test_split):
    two = LinearProbe(vit_backbone, C=5.0).fit(train.keep_classes([0, 1]))
    x = image_features(vit_backbone, train.keep_classes([0, 1])).double().numpy()
    reference = LogisticRegression(C=5.0, max_iter=1000).fit(x, train.keep_classes([0, 1]).labels.numpy())
    queries = image_features(vit_backbone, test_split)
    np.testing.assert_allclose(two.probabilities(queries).numpy(), reference.predict_proba(queries.numpy()), atol=2e-3)
    keep = train.labels != 2
    missing = LinearProbe(vit_backbone).fit(Split(train.images[keep], train.labels[keep], train.class_names))
    probabilities = missing.probabilities(test_split)
    assert not probabilities[:, 2].any() and torch.isfinite(probabilities).all()


def test_it_fits_the_training_images(tower, splits):
    train = splits(per_class=3, seed=5)
    assert LinearProbe(tower, C=1e6).fit(train).score(train) == 1.0


def test_it_cannot_move_and_names_bad_arguments(vit_backbone, train):
    with pytest.raises(ValueError, match="linear_probe cannot move to classes it was not fitted on, such as 'a'"):
        LinearProbe(vit_backbone).fit(train).for_classes(["dog", "a"])
    for arguments, name in (
        ({"C": 0}, "C=0"),
        ({"search_steps": -1}, "search_steps=-1"),
        ({"max_iter": 0}, "max_iter=0"),
    ):
        with pytest.raises(ValueError, match=name):
            LinearProbe(vit_backbone, **arguments)
