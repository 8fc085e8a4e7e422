"""Tip-Adapter: Training-free Adaption of CLIP for Few-shot Classification, Zhang et al., ECCV 2022, arXiv 2207.09519,
equations 1 to 6.

    K = normalise(mean over 10 augmented views of the raw training features)   (N, E), N = shots x classes
    V = one-hot training labels                                                (N, C)
    logits = s f W^T + alpha exp(-beta (1 - f K^T)) V                          (B, C), W (C, E) from templates

Tip-Adapter learns nothing. Tip-Adapter-F starts from K and fits the keys by cross-entropy, without normalising them
again. alpha (weight of the cache) and beta (sharpness of its votes) are searched on validation after that.

Choices, where they matter:
- s: the official code writes 100, which is exp(logit_scale) of the released CLIPs: their zero-shot logits are meant.
  Here s is the backbone's own (logit_scale=None), so that alpha = 0 is zero-shot exactly, probabilities included, for
  a backbone of any scale; logit_scale=100.0 gives the constant. For the training-free form only alpha / s decides; for
  -F, s is also the temperature of the cross-entropy.
- the official -F keeps the epoch that is best on *test* images and reports the better of it and the search; its author
  calls that a mistake (issue 11). Here the last epoch is kept, or with keep_best=True the best on validation.
- the official grid has no alpha = 0; search_zero=True adds it, so that the search can say "no cache".
"""

import torch
import torch.nn.functional as F

from vlmcourse import training
from vlmcourse.methods.augment import TrainingFeatures, raw_views
from vlmcourse.methods.base import Method, MethodCard, full_precision, register
from vlmcourse.methods.cache_model import cache_keys, cache_values, cache_vote, search_grid, search_on_validation
from vlmcourse.methods.class_text import check_templates, class_features

TITLE = "Tip-Adapter: Training-free Adaption of CLIP for Few-shot Classification"


@register
class TipAdapter(Method):
    """templates: None takes the split's. augment_epochs: views averaged into a key (0: the plain test view).
    alpha, beta: used where there is no validation, or search=False. search_scale, search_step: ends and steps of the
    grid, for (beta, alpha). logit_scale: s, None for the backbone's own."""

    card = MethodCard(
        name="tip_adapter",
        title=TITLE,
        venue="ECCV",
        year=2022,
        url="https://arxiv.org/abs/2207.09519",
        family="adapter",
        setup="few-shot supervised, training-free",
        learned="nothing; a cache of N keys (N, E) and labels is stored",
        idea="Let the few labelled images vote by similarity and add their vote to the zero-shot logits.",
        acts_on="features",
        needs="outputs",
    )

    def __init__(
        self,
        backbone,
        *,
        templates=None,
        augment_epochs=10,
        crop_scale=(0.5, 1.0),
        alpha=1.17,
        beta=1.0,
        search=True,
        search_scale=(7.0, 3.0),
        search_step=(200, 20),
        search_zero=False,
        logit_scale=None,
        seed=0,
        progress=False,
    ):
        super().__init__(backbone, seed=seed, progress=progress)
        if not isinstance(augment_epochs, int) or augment_epochs < 0:
            raise ValueError(f"augment_epochs={augment_epochs!r} must be a whole number >= 0")
        if logit_scale is not None and not logit_scale > 0:
            raise ValueError(f"logit_scale={logit_scale!r} must be positive, or None for the backbone's own")
        self.grid = search_grid(search_scale, search_step, search_zero)
        self.own_templates = None if templates is None else check_templates(templates)
        self.augment_epochs, self.crop_scale, self.search = augment_epochs, crop_scale, search
        self.initial_alpha, self.initial_beta = float(alpha), float(beta)
        self.scale = backbone.logit_scale if logit_scale is None else logit_scale

    def _fit(self, train, val):
        self.templates = self.own_templates or self.templates
        self.text = class_features(self.backbone, self.class_names, self.templates)  # (C, E)
        views = raw_views(self.backbone, train, self.augment_epochs, self.crop_scale, self.seed)  # (views, N, E)
        self.keys = cache_keys(full_precision(views))  # (N, E)
        self.values = cache_values(train.labels, len(self.class_names), like=self.keys)  # (N, C)
        self.alpha, self.beta, self.search_result = self.initial_alpha, self.initial_beta, None
        self._tune(train, val)
        if val is not None and self.search:
            f = self.inputs(val)
            self.search_result = search_on_validation(
                f @ self.keys.T, self.values, self._zero_shot(f), val.labels, *self.grid
            )
            self.alpha, self.beta = self.search_result.alpha, self.search_result.beta

    def _tune(self, train, val):
        """Tip-Adapter leaves the cache as it is."""

    def _zero_shot(self, features):
        return self.scale * features @ self.text.to(features).T  # (B, C)

    def _logits(self, features):
        affinity = features @ self.keys.to(features).T  # (B, N)
        return self._zero_shot(features) + self.alpha * cache_vote(affinity, self.values.to(features), self.beta)

    @torch.no_grad()
    def affinity(self, x):
        """(B, N) similarity of images, features or a Split to the keys, in the order of the training split."""
        self._require_fit()
        return self.inputs(x) @ self.keys.T


@register
class TipAdapterF(TipAdapter):
    """As TipAdapter, with `epochs` of AdamW on the keys, at the given alpha and beta, before the search. views: see
    augment.TrainingFeatures (None: fresh augmentation, as the official code). keep_best: keep the epoch that is best on
    validation instead of the last."""

    card = MethodCard(
        name="tip_adapter_f",
        title=TITLE,
        venue="ECCV",
        year=2022,
        url="https://arxiv.org/abs/2207.09519",
        family="adapter",
        setup="few-shot supervised",
        learned="the cache keys (N, E)",
        idea="The cache is a linear layer that starts as the training features: fine-tune it.",
        acts_on="features",
        needs="outputs",
    )

    def __init__(
        self,
        backbone,
        *,
        epochs=20,
        lr=1e-3,
        eps=1e-4,
        weight_decay=0.01,
        batch_size=256,
        views=10,
        keep_best=False,
        **tip_adapter,
    ):
        super().__init__(backbone, **tip_adapter)
        self.views, self.keep_best = views, keep_best
        self.recipe = {"epochs": epochs, "lr": lr, "eps": eps, "weight_decay": weight_decay, "batch_size": batch_size}

    def _tune(self, train, val):
        if self.keep_best and val is None:
            raise ValueError("keep_best=True needs a validation split: fit(train, val)")
        features = TrainingFeatures(self.backbone, train, views=self.views, crop_scale=self.crop_scale, seed=self.seed)
        self.keys = self.keys.clone().requires_grad_()
        best = {"accuracy": -1.0}

        def loss(indices, step):
            return F.cross_entropy(self._logits(features(indices)), features.labels[indices])

        @torch.no_grad()
        def judge(epoch, history):
            accuracy = (self._logits(f_val).argmax(dim=-1).cpu() == val.labels).double().mean().item()
            history["val_accuracy"].append(accuracy)
            if accuracy > best["accuracy"]:
                best.update(accuracy=accuracy, keys=self.keys.detach().clone())

        f_val = self.inputs(val) if self.keep_best else None
        self.history = training.fit(
            [self.keys], loss, len(train), optimizer="adamw", schedule="cosine_per_step", drop_last=False,
            seed=self.seed, progress=self.progress, on_epoch=judge if self.keep_best else None, **self.recipe,
        )  # fmt: skip
        self.keys = best.get("keys", self.keys.detach())

    def learned_parameters(self):
        return {"keys": self.keys} if self._fitted else {}
