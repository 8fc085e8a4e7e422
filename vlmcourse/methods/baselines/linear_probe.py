"""Linear probe: logistic regression on frozen image features, as in CLIP (Radford et al., ICML 2021, arXiv 2103.00020,
appendix A.3) and as the baseline of CoOp (Zhou et al., IJCV 2022, arXiv 2109.01134).

    min_{W,b}  1/2 |W|^2 + C sum_i CE(W f_i + b, y_i)          f (N, E) L2-normalised, W (C, E), L-BFGS
    logits = f W^T + b                                          (B, C); class names are never read

The penalty is searched on validation, from coarse to fine:
    1. fit with C = 1e6, 1e4, 1e2, 1, 1e-2, 1e-4, 1e-6;  take the best, open the interval [C/10, 10 C] around it;
    2. eight times: fit both ends, keep the half (in log C) beside the better end.
Of all fits the one with the best validation accuracy stays; of equals the last, which is the finest.
"""

import warnings

import numpy as np
import torch
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression
from threadpoolctl import threadpool_limits

from vlmcourse.methods.base import Method, MethodCard, register

COARSE = (1e6, 1e4, 1e2, 1.0, 1e-2, 1e-4, 1e-6)


@register
class LinearProbe(Method):
    """C: inverse penalty; None: searched on val. Without val it is 31.6: CLIP's example value 0.316 was for raw
    features, whose norm is about 10; unit features need weights 10 times as large, hence 100 times the C."""

    card = MethodCard(
        name="linear_probe",
        title="Learning Transferable Visual Models From Natural Language Supervision",
        venue="ICML",
        year=2021,
        url="https://arxiv.org/abs/2103.00020",
        family="baseline",
        setup="few-shot supervised",
        learned="a linear classifier, weight (C, E) and bias (C,)",
        idea="Forget the text tower: how far do the image features alone go?",
        acts_on="features",
        needs="outputs",
    )

    def __init__(self, backbone, *, C=None, search_steps=8, max_iter=1000, seed=0, progress=False):
        super().__init__(backbone, seed=seed, progress=progress)
        if C is not None and not 0 < C < float("inf"):
            raise ValueError(f"C={C!r} must be a positive number, or None to search it on validation")
        if search_steps < 0 or max_iter < 1:
            raise ValueError(f"search_steps={search_steps!r} must be >= 0 and max_iter={max_iter!r} >= 1")
        self.C, self.search_steps, self.max_iter = C, search_steps, max_iter

    def _fit(self, train, val):
        x, y = self.inputs(train).double().cpu().numpy(), train.labels.numpy()
        if len(np.unique(y)) < 2:
            raise ValueError(f"train has images of {len(np.unique(y))} class(es); a linear probe needs at least 2")
        self.searched = []  # (C, validation accuracy) of every fit, in order
        if self.C is None and val is not None:
            model = self._search(x, y, self.inputs(val).double().cpu().numpy(), val.labels.numpy())
        else:
            model = self._regress(x, y, 31.6 if self.C is None else self.C)
        self.chosen_C = model.C
        weight, bias = model.coef_, model.intercept_
        if len(model.classes_) == 2:  # scikit-learn keeps one row z for two classes; softmax of (0, z) is the same
            weight, bias = np.vstack([0 * weight, weight]), np.hstack([0 * bias, bias])
        C = len(self.class_names)
        self.weight, self.bias = (
            torch.zeros(C, x.shape[1]),
            torch.full((C,), -torch.inf),
        )  # no training image: never predicted
        self.weight[model.classes_] = torch.from_numpy(weight).float()
        self.bias[model.classes_] = torch.from_numpy(bias).float()
        self.weight, self.bias = self.weight.to(self.backbone.device), self.bias.to(self.backbone.device)

    def _regress(self, x, y, C):
        # matrices this small are slower in several threads: beside other work they wait for each other, 30 times longer
        with threadpool_limits(1), warnings.catch_warnings():  # weak penalties stop at max_iter by design
            warnings.simplefilter("ignore", ConvergenceWarning)
            return LogisticRegression(C=C, max_iter=self.max_iter).fit(x, y)

    def _search(self, x, y, x_val, y_val):
        """The best regression on validation, by the two steps above."""
        best = {"accuracy": -1.0, "model": None}

        def accuracy(C):
            model = self._regress(x, y, C)
            value = float((model.predict(x_val) == y_val).mean())
            self.searched.append((C, value))
            if value >= best["accuracy"]:
                best.update(accuracy=value, model=model)
            return value

        peak = COARSE[int(np.argmax([accuracy(C) for C in COARSE]))]
        low, high = np.log10(peak) - 1, np.log10(peak) + 1
        for _ in range(self.search_steps):
            left, right = accuracy(10**low), accuracy(10**high)
            low, high = ((low + high) / 2, high) if left < right else (low, (low + high) / 2)
        return best["model"]

    def _logits(self, features):
        return features.to(self.weight) @ self.weight.T + self.bias

    def learned_parameters(self):
        return {"weight": self.weight, "bias": self.bias} if self._fitted else {}
