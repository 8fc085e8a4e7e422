"""CALIP: Zero-Shot Enhancement of CLIP with Parameter-free Attention, Guo et al., AAAI 2023, arXiv 2209.14169.

Image positions and class texts live in one space, so they can attend to each other without any learned projection.
All L2-normalised: f (B, E) pooled feature, X (B, P, E) features of P positions, T (C, E) class texts.

    A   = X T^T / temperature                                    (B, P, C)
    T_a = softmax over positions(A)^T X                          (B, C, E)   texts, guided by the image
    X_a = softmax over classes(A) T                              (B, P, E)   positions, blended with texts
    f_a = mean over positions(X_a) + max over positions(X_a)     (B, E)      the maximum for each element
    logits = s (f T^T + beta2 f T_a^T + beta3 f_a T^T)           (B, C)      T_a and f_a are not normalised again

Official code: X are all tokens behind ln_post and projection (ViT), or the attention pool with every position as a
query (ResNet), here path "full". It multiplies the affinity by 2 (temperature 0.5); a later re-implementation divides
by 2, as the paper's modulation can be read (temperature 2). beta2 and beta3 are searched in 200 x 200 steps *on the
test labels* in the official code; here on validation, or they stay at the paper's values for ImageNet. s is the
backbone's own scale (100 in the official code); for the answer only the betas count.

CALIP-FS, the few-shot form: the paper puts small linear layers into the attention; its code was never released. What
stands here is a reconstruction: maps I + D (D starts at 0) of f, X and T in front of step A, normalised again, and,
with `post_maps`, of T_a and f_a behind it; cross-entropy of the logits with fixed betas. Before the first step it is
CALIP.
"""

from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F

from vlmcourse import training
from vlmcourse.backbone.features import local
from vlmcourse.methods.augment import TrainingFeatures
from vlmcourse.methods.base import Method, MethodCard, register
from vlmcourse.methods.class_text import check_templates, class_features
from vlmcourse.methods.search import accuracy_grid, first_best

TITLE = "CALIP: Zero-Shot Enhancement of CLIP with Parameter-free Attention"
MAPS = ("pooled", "positions", "text")  # f, X, T, in the order of _mapped
ENTRIES = 2**24  # of the affinities and the blended positions that are formed at once


class BetaSearch(NamedTuple):
    """What the search saw: accuracy[i, j] belongs to betas2[i], betas3[j]; beta2, beta3 are the first of the best."""

    beta2: float
    beta3: float
    accuracy: np.ndarray  # (betas2, betas3)
    betas2: np.ndarray
    betas3: np.ndarray


def attention(positions, text, temperature):
    """Both softmaxes of X T^T / temperature, each (B, P, C): over the positions P, and over the classes C."""
    affinity = positions @ text.T / temperature
    return affinity.softmax(dim=1), affinity.softmax(dim=2)


def blended(over_classes, text):
    """f_a (B, E): positions replaced by mixtures of the class texts, mean plus maximum over the positions."""
    mixed = over_classes @ text  # (B, P, E)
    return mixed.mean(dim=1) + mixed.amax(dim=1)


@register
class CALIP(Method):
    """templates: None takes the split's. temperature, path: see above and Backbone.dense_features. beta2, beta3: used
    where there is no validation, or search=False. search_scale, search_steps: ends and steps of the grid 0.001 + i (end
    - 0.001) / steps, i < steps, for (beta2, beta3). search_zero: tries 0 as well, so that the search can say "CLIP".
    logit_scale: s, None for the backbone's own."""

    card = MethodCard(
        name="calip",
        title=TITLE,
        venue="AAAI",
        year=2023,
        url="https://arxiv.org/abs/2209.14169",
        family="other",
        setup="zero-shot; labels of validation images choose two weights",
        learned="nothing",
        idea="Image positions and class texts share a space: let them attend to each other without projections.",
        acts_on="features",
        needs="internals",
    )

    def __init__(
        self,
        backbone,
        *,
        templates=None,
        temperature=0.5,
        path="full",
        beta2=1.12,
        beta3=0.02,
        search=True,
        search_scale=(2.0, 0.1),
        search_steps=200,
        search_zero=False,
        logit_scale=None,
        seed=0,
        progress=False,
    ):
        super().__init__(backbone, seed=seed, progress=progress)
        paths = ("full", "value") + ("value+residual",) * backbone.is_vit
        if path not in paths:
            raise ValueError(f"path={path!r} must be one of {paths} for this image tower")
        positive = {"temperature": temperature, "logit_scale": 1 if logit_scale is None else logit_scale}
        for name, value in positive.items():
            if not 0 < value < float("inf"):
                raise ValueError(f"{name}={value!r} must be a positive number")
        if len(tuple(search_scale)) != 2 or not all(end > 0.001 for end in search_scale):
            raise ValueError(f"search_scale={search_scale!r} must be two numbers > 0.001, for beta2 and beta3")
        if not isinstance(search_steps, int) or search_steps < 1:
            raise ValueError(f"search_steps={search_steps!r} must be a whole number >= 1")
        self.own_templates = None if templates is None else check_templates(templates)
        self.temperature, self.search, self.path = temperature, search, path
        self.initial_betas = float(beta2), float(beta3)
        steps = np.arange(search_steps) / search_steps
        zero = [0.0] * search_zero
        self.grid = [np.concatenate([zero, 0.001 + steps * (end - 0.001)]) for end in search_scale]
        self.scale = backbone.logit_scale if logit_scale is None else logit_scale
        self.encoder = local(path, with_pooled=True)

    def _fit(self, train, val):
        self.templates = self.own_templates or self.templates
        self.text = class_features(self.backbone, self.class_names, self.templates)  # (C, E)
        (self.beta2, self.beta3), self.search_result = self.initial_betas, None
        self._tune(train)
        if val is not None and self.search:
            one, two, three = self.terms(val)
            pairs = ((one + float(beta) * two, three) for beta in self.grid[0])
            accuracy = accuracy_grid(pairs, val.labels, self.grid[1])
            i, j = first_best(accuracy)
            self.beta2, self.beta3 = float(self.grid[0][i]), float(self.grid[1][j])
            self.search_result = BetaSearch(self.beta2, self.beta3, accuracy, *self.grid)

    def _tune(self, train):
        """CALIP learns nothing."""

    def _mapped(self, features):
        """f (B, E), X (B, P, E), T (C, E) of what the encoder made of the images."""
        return features[:, 0], features[:, 1:], self.text.to(features)

    def _output(self, name, x):
        """A map behind the attention; CALIP has none."""
        return x

    def _terms(self, features):
        """(3, B, C): s times f T^T, f T_a^T and f_a T^T. Differentiable."""
        pooled, positions, text = self._mapped(features)
        over_positions, over_classes = attention(positions, text, self.temperature)
        asked = self._output("guided", pooled)  # f (T_a M)^T = (f M^T) T_a^T: a map of T_a can act on f instead
        guided = (over_positions * (positions @ asked[:, :, None])).sum(dim=1)  # f T_a^T without forming T_a (B, C, E)
        image = self._output("blended", blended(over_classes, text))
        return self.scale * torch.stack([pooled @ text.T, guided, image @ text.T])

    def _in_parts(self, features):
        """The terms, computed in parts whose affinities and blended positions fit into memory."""
        size = max(1, ENTRIES // (features.shape[1] * (features.shape[2] + len(self.text))))
        return torch.cat([self._terms(part) for part in features.split(size)], dim=1)

    def _weighted(self, terms):
        return terms[0] + self.beta2 * terms[1] + self.beta3 * terms[2]

    def _logits(self, features):
        return self._weighted(self._in_parts(features))

    @torch.no_grad()
    def terms(self, x):
        """(3, B, C), the three summands of the logits before the betas, for what `logits` takes."""
        return torch.cat([self._in_parts(self.inputs(part)) for part in self._parts(x)], dim=1)

    @torch.no_grad()
    def attention(self, x):
        """The two attentions (B, P, C), over positions and over classes; P row by row. Give few images."""
        self._require_fit()
        _, positions, text = self._mapped(self.inputs(x))
        return attention(positions, text, self.temperature)

    def for_classes(self, class_names, templates=None):
        moved = self._moved(class_names, templates)
        moved.text = class_features(moved.backbone, moved.class_names, moved.templates)
        return moved


@register
class CALIPFS(CALIP):
    """A reconstruction, see above. maps: which of "pooled" (f), "positions" (X) and "text" (T) get a map. post_maps:
    also map T_a and f_a. epochs, lr, weight_decay (it pulls the maps to the identity), batch_size: of AdamW with a
    cosine per step. views, crop_scale: see augment.TrainingFeatures. Training uses beta2 and beta3 as given; the search
    comes after it. Other arguments are CALIP's."""

    card = MethodCard(
        name="calip_fs",
        title=TITLE,
        venue="AAAI",
        year=2023,
        url="https://arxiv.org/abs/2209.14169",
        family="other",
        setup="few-shot supervised",
        learned="linear maps (E, E) of pooled feature, positions and texts",
        idea="Start the parameter-free attention with identity maps and fit them to a few labelled images.",
        acts_on="features",
        needs="internals",
    )

    def __init__(
        self,
        backbone,
        *,
        maps=MAPS,
        post_maps=False,
        epochs=20,
        lr=1e-3,
        weight_decay=1e-2,
        batch_size=32,
        views=1,
        crop_scale=(0.5, 1.0),
        **calip,
    ):
        super().__init__(backbone, **calip)
        maps = (maps,) if isinstance(maps, str) else tuple(maps)
        if not set(maps) <= set(MAPS) or not (maps or post_maps):
            raise ValueError(f"maps={maps!r} must be some of {MAPS}; without any, post_maps must be True")
        self.learned_maps = (*maps, *(("guided", "blended") if post_maps else ()))
        self.views, self.crop_scale = views, crop_scale
        self.recipe = {"epochs": epochs, "lr": lr, "weight_decay": weight_decay, "batch_size": batch_size}

    def _tune(self, train):
        options = {"views": self.views, "crop_scale": self.crop_scale, "seed": self.seed, "encoder": self.encoder}
        features = TrainingFeatures(self.backbone, train, **options)
        E = self.text.shape[1]
        self.shifts = {name: torch.zeros(E, E, device=self.text.device) for name in self.learned_maps}  # D of each map
        learned = [shift.requires_grad_() for shift in self.shifts.values()]

        def loss(indices, step):
            return F.cross_entropy(self._weighted(self._terms(features(indices))), features.labels[indices])

        self.history = training.fit(
            learned, loss, len(train), optimizer="adamw", schedule="cosine_per_step", drop_last=False, seed=self.seed,
            progress=self.progress, **self.recipe,
        )  # fmt: skip
        self.shifts = {name: shift.detach() for name, shift in self.shifts.items()}

    def _output(self, name, x):
        return x + x @ self.shifts[name] if name in self.shifts else x

    def _mapped(self, features):
        parts = zip(MAPS, super()._mapped(features), strict=True)
        return tuple(F.normalize(self._output(name, x), dim=-1) if name in self.shifts else x for name, x in parts)

    def learned_parameters(self):
        return dict(self.shifts) if self._fitted else {}
