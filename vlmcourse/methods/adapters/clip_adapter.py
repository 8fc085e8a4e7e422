"""CLIP-Adapter: Better Vision-Language Models with Feature Adapters, Gao et al., IJCV 2024 (2021), arXiv 2110.04544.

    A(x) = ReLU(W_2 ReLU(W_1 x))              W_1 (E/r, E), W_2 (E, E/r), no biases, r = 4
    f'   = alpha A_v(f) + (1 - alpha) f       image adapter, f (B, E)
    W'   = beta  A_t(W) + (1 - beta) W        text adapter, W (C, E) from templates
    logits = s n(f') n(W')^T                  (B, C); n: L2-normalise; loss = CE(logits, y)

alpha = beta = 0 is zero-shot CLIP. Both encoders stay frozen and are not even run in training: a step costs two small
matrix products. `adapt` chooses the side: "image" (the default of the paper, and all that the released code has),
"text" or "both" (in the paper; the text side is built from its formula, there is no code to compare with).

Notes: the released code adapts raw features. As A has no biases and ReLU lets positive factors through, A(c x) = c A(x)
for c > 0, and the length of f or of a row of W cancels in n: raw or normalised features give the same logits and the
same gradients. The last ReLU makes A(x) >= 0: an adapter alone (ratio 1) only knows features in the positive corner.
The code fixes alpha = 0.2 and says to train with CoOp's recipe; the paper chooses the ratio for each data set. Give
several values to have each trained and the best on validation kept.
"""

from itertools import product

import torch
import torch.nn.functional as F

from vlmcourse import training
from vlmcourse.methods.augment import TrainingFeatures
from vlmcourse.methods.base import Method, MethodCard, register
from vlmcourse.methods.class_text import check_templates, class_features
from vlmcourse.methods.text_prompts.coop import epochs_for

SIDES = {"image": ("image",), "text": ("text",), "both": ("image", "text")}


def new_adapter(width, reduction, generator, like):
    """{"down" (width/reduction, width), "up" (width, width/reduction)}: uniform in +-1 / sqrt(fan_in), as PyTorch's."""
    hidden = max(1, width // reduction)
    shapes = {"down": (hidden, width), "up": (width, hidden)}
    return {
        name: ((2 * torch.rand(shape, generator=generator) - 1) * shape[1] ** -0.5).to(like.device)
        for name, shape in shapes.items()
    }


def adapt_features(x, adapter, ratio):
    """(..., E) L2-normalised: ratio A(x) + (1 - ratio) x for features x (..., E)."""
    bottleneck = F.relu(F.relu(x @ adapter["down"].T) @ adapter["up"].T)
    return F.normalize(ratio * bottleneck + (1 - ratio) * x, dim=-1)


@register
class CLIPAdapter(Method):
    """adapt: "image", "text" or "both". alpha, beta: residual ratio of the image and the text adapter, a number in 0..1
    or several: then each (for "both", each pair) is trained, the first of the best on validation is kept, and
    `searched` lists (alpha, beta, validation accuracy). reduction: r. templates: None takes the split's. epochs: None
    takes CoOp's number for the shots. views: see augment.TrainingFeatures."""

    card = MethodCard(
        name="clip_adapter",
        title="CLIP-Adapter: Better Vision-Language Models with Feature Adapters",
        venue="IJCV",
        year=2024,
        url="https://arxiv.org/abs/2110.04544",
        family="adapter",
        setup="few-shot supervised",
        learned="a bottleneck of two matrices, (E/4, E) and (E, E/4), behind a frozen encoder",
        idea="Leave the prompts alone: bend the output features a little, and keep a share of the old ones.",
        acts_on="features",
        needs="outputs",
    )

    def __init__(
        self, backbone, *, adapt="image", alpha=0.2, beta=0.2, reduction=4, templates=None, epochs=None, lr=2e-3,
        batch_size=32, momentum=0.9, weight_decay=5e-4, warmup_epochs=1, views=1, crop_scale=(0.08, 1.0), seed=0,
        progress=False,
    ):  # fmt: skip
        super().__init__(backbone, seed=seed, progress=progress)
        if adapt not in SIDES:
            raise ValueError(f"adapt={adapt!r} must be one of {tuple(SIDES)}")
        if isinstance(reduction, bool) or not isinstance(reduction, int) or not 1 <= reduction <= backbone.embed_dim:
            raise ValueError(f"reduction={reduction!r} must be a whole number from 1 to {backbone.embed_dim}")
        self.adapt, self.reduction, self.epochs = adapt, reduction, epochs
        self.candidates = {"image": _ratios("alpha", alpha), "text": _ratios("beta", beta)}
        self.own_templates = None if templates is None else check_templates(templates)
        self.views, self.crop_scale = views, crop_scale
        self.recipe = {"lr": lr, "batch_size": batch_size, "momentum": momentum, "weight_decay": weight_decay}
        self.recipe["warmup_epochs"] = warmup_epochs

    def _fit(self, train, val):
        self.templates = self.own_templates or self.templates
        self.text = class_features(self.backbone, self.class_names, self.templates)  # (C, E)
        pairs = list(product(*(self.candidates[side] for side in SIDES[self.adapt])))
        if len(pairs) > 1 and val is None:
            raise ValueError(f"alpha and beta have {len(pairs)} candidates: to choose, give fit(train, val)")
        features = TrainingFeatures(self.backbone, train, views=self.views, crop_scale=self.crop_scale, seed=self.seed)
        self.searched, best = [], None
        for pair in pairs:
            self.ratios = dict(zip(SIDES[self.adapt], pair, strict=True))
            self._train(features, epochs_for(train) if self.epochs is None else self.epochs)
            if val is not None:
                right = self._logits(self.inputs(val)).argmax(dim=-1).cpu() == val.labels
                self.searched.append((self.alpha, self.beta, right.double().mean().item()))
            if best is None or self.searched[-1][-1] > best[0]:
                accuracy = self.searched[-1][-1] if self.searched else 0.0
                best = accuracy, self.ratios, self.adapters, self.history
        _, self.ratios, self.adapters, self.history = best

    def _train(self, features, epochs):
        draw = torch.Generator().manual_seed(self.seed)
        width = self.backbone.embed_dim
        self.adapters = {side: new_adapter(width, self.reduction, draw, self.text) for side in self.ratios}
        weights = [w.requires_grad_() for adapter in self.adapters.values() for w in adapter.values()]

        def loss(indices, step):
            return F.cross_entropy(self._logits(features(indices)), features.labels[indices])

        self.history = training.fit(
            weights, loss, len(features.labels), epochs=epochs, seed=self.seed, progress=self.progress, **self.recipe
        )
        for weight in weights:
            weight.requires_grad_(False)

    @property
    def alpha(self):
        """The ratio of the image adapter; 0 where there is none."""
        return self.ratios.get("image", 0.0)

    @property
    def beta(self):
        """The ratio of the text adapter; 0 where there is none."""
        return self.ratios.get("text", 0.0)

    def _adapted(self, side, x):
        return adapt_features(x, self.adapters[side], self.ratios[side]) if side in self.adapters else x

    def _logits(self, features):
        text = self._adapted("text", self.text).to(features)
        return self.backbone.logit_scale * self._adapted("image", features) @ text.T

    @torch.no_grad()
    def adapted_images(self, x):
        """(B, E) L2-normalised adapted features of images, features or a Split."""
        self._require_fit()
        return self._adapted("image", self.inputs(x))

    @torch.no_grad()
    def adapted_text(self):
        """(C, E) L2-normalised adapted class features."""
        self._require_fit()
        return self._adapted("text", self.text)

    def for_classes(self, class_names, templates=None):
        moved = self._moved(class_names, templates)
        moved.text = class_features(moved.backbone, moved.class_names, moved.templates)
        return moved

    def learned_parameters(self):
        if not self._fitted:
            return {}
        return {f"{side}.{name}": w for side, adapter in self.adapters.items() for name, w in adapter.items()}


def _ratios(name, values):
    """The candidates as a tuple. ValueError unless all lie in 0..1."""
    several = tuple(values) if isinstance(values, list | tuple) else (values,)
    for value in several:
        if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= 1:
            raise ValueError(f"{name}={values!r} must be a number in 0..1, or several of them")
    if not several:
        raise ValueError(f"{name}={values!r} must have at least one number in 0..1")
    return several
