"""TaskRes: Task Residual for Tuning Vision-Language Models, Yu et al., CVPR 2023, arXiv 2211.10277.

    t      = mean over templates of the raw text features of each class       (C, E), frozen: the base
    t'     = t + alpha x                       x (C, E) learned, from 0: what the task adds to prior knowledge
    logits = s f n(t')^T                       (B, C); f (B, E) normalised image features, n: L2-normalise
    loss   = CE(logits, y)

The residual does not depend on the base: prompt tuning rewrites the classifier through the text tower, an adapter can
only say functions of old features. After training, t' is a classifier like any other, at the cost of zero-shot.

base "enhanced": the text projection P (D, E) is tuned first on the same images by cross-entropy, then frozen:
    t = mean over templates of u P,            u (C, K, D) states in front of the projection, computed once
The authors offer tuned projections, but not the code that tuned them: this step is our reconstruction.

residual "image" learns one shared x (1, E) that is added to the image features, f' = n(m f + alpha x), m the mean
length of the raw training features; "both" learns both. The released code has the image form as a comment.

Recipe: Adam 2e-3 (2e-4 for ImageNet) with weight decay 5e-4, cosine with one warm-up epoch, batch 256, 100 epochs for
1, 2, 4 shots, 200 for more, alpha = 0.5 (1.0 for Flowers102). Weight decay is added to the gradient, as Adam does and
AdamW does not, so it pulls x to 0: here it is the term weight_decay / 2 |x|^2 of the loss, with the same gradient.

alpha acts relative to the length of t: normalised_base=True takes n(t) in its place, and is another recipe.
"""

import torch
import torch.nn.functional as F

from vlmcourse import training
from vlmcourse.backbone.features import image_features
from vlmcourse.methods.augment import TrainingFeatures
from vlmcourse.methods.base import Method, MethodCard, full_precision, register
from vlmcourse.methods.class_text import check_templates, template_features
from vlmcourse.methods.tuned_tower import with_own_parameters

BASES, RESIDUALS = ("regular", "enhanced"), ("text", "image", "both")


def residual_logits(features, base, residual, alpha, scale):
    """scale n(f) n(t + alpha x)^T: features f (B, E), base t (C, E), residual x (C, E) -> (B, C)."""
    return scale * F.normalize(features, dim=-1) @ F.normalize(base + alpha * residual, dim=-1).T


@register
class TaskRes(Method):
    """alpha: scale of the residual. base: "regular" or "enhanced". residual: "text", "image" or "both". templates: None
    takes the split's. epochs: None takes the paper's number for the shots. base_epochs, base_lr: of the projection of
    the enhanced base. normalised_base: see above. views: see augment.TrainingFeatures. History: "cross_entropy" and
    "loss", which has the weight decay in it; that of the projection is `base_history`."""

    card = MethodCard(
        name="taskres",
        title="Task Residual for Tuning Vision-Language Models",
        venue="CVPR",
        year=2023,
        url="https://arxiv.org/abs/2211.10277",
        family="other",
        setup="few-shot supervised",
        learned="a residual for each class (C, E), added to the text features",
        idea="Keep the text classifier as it is and learn what has to be added to it.",
        acts_on="features",
        needs="outputs",
    )

    def __init__(
        self, backbone, *, alpha=0.5, base="regular", residual="text", templates=None, epochs=None, lr=2e-3,
        weight_decay=5e-4, batch_size=256, warmup_epochs=1, base_epochs=50, base_lr=2e-4, normalised_base=False,
        views=1, crop_scale=(0.08, 1.0), seed=0, progress=False,
    ):  # fmt: skip
        super().__init__(backbone, seed=seed, progress=progress)
        for name, value, known in (("base", base, BASES), ("residual", residual, RESIDUALS)):
            if value not in known:
                raise ValueError(f"{name}={value!r} must be one of {known}")
        for name, value in (("alpha", alpha), ("weight_decay", weight_decay)):
            if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < float("inf"):
                raise ValueError(f"{name}={value!r} must be a number >= 0")
        self.alpha, self.base_kind, self.residual, self.normalised_base = alpha, base, residual, normalised_base
        self.own_templates = None if templates is None else check_templates(templates)
        self.epochs, self.lr, self.base_epochs, self.base_lr = epochs, lr, base_epochs, base_lr
        self.weight_decay, self.views, self.crop_scale = weight_decay, views, crop_scale
        self.recipe = {"batch_size": batch_size, "warmup_epochs": warmup_epochs, "optimizer": "adamw", "seed": seed}
        self.recipe |= {"weight_decay": 0.0, "progress": progress}  # the loss has the decay, see above

    def _fit(self, train, val):
        self.templates = self.own_templates or self.templates
        self.features = TrainingFeatures(
            self.backbone, train, views=self.views, crop_scale=self.crop_scale, seed=self.seed
        )
        self.projection, self.base_history = None, {}
        self.base = self._base()  # (C, E)
        self.image_norm = full_precision(image_features(self.backbone, train, normalise=False)).norm(dim=-1).mean()
        self.x = torch.zeros_like(self.base)
        self.x_image = torch.zeros_like(self.base[:1])
        learned = [self.x] * (self.residual != "image") + [self.x_image] * (self.residual != "text")

        def loss(indices, step):
            logits = self._logits(self.features(indices))
            cross_entropy = F.cross_entropy(logits, self.features.labels[indices])
            decay = self.weight_decay / 2 * sum((x**2).sum() for x in learned)
            return cross_entropy + decay, {"cross_entropy": cross_entropy}

        epochs = (100 if int(train.counts.max()) <= 4 else 200) if self.epochs is None else self.epochs
        self.history = self._optimise(learned, loss, epochs, self.lr)
        del self.features

    def _optimise(self, tensors, loss, epochs, lr):
        for tensor in tensors:
            tensor.requires_grad_()
        history = training.fit(tensors, loss, len(self.features.labels), epochs=epochs, lr=lr, **self.recipe)
        for tensor in tensors:
            tensor.requires_grad_(False)
        return history

    def _base(self):
        """The frozen base t (C, E)."""
        if self.base_kind == "regular":
            base = template_features(self.backbone, self.class_names, self.templates, normalise=False).mean(dim=1)
        else:
            base = self._enhanced()
        return F.normalize(base, dim=-1) if self.normalised_base else base

    def _enhanced(self):
        """The base behind a text projection that is tuned on the training images."""
        if not isinstance(self.backbone.model.text_projection, torch.Tensor):
            raise ValueError(
                f"base='enhanced' needs a text projection that is a matrix; {self.backbone.name!r} has none"
            )
        twin, own = with_own_parameters(self.backbone, ["text_projection"])
        start = full_precision(own["text_projection"].detach().clone())  # (D, E)
        own["text_projection"].data = torch.eye(len(start)).to(own["text_projection"])
        states = template_features(twin, self.class_names, self.templates, normalise=False).mean(dim=1)  # (C, D)
        self.projection = start

        def loss(indices, step):
            text = F.normalize(states @ self.projection, dim=-1)
            logits = self.backbone.logit_scale * self.features(indices) @ text.T
            return F.cross_entropy(logits, self.features.labels[indices])

        self.base_history = self._optimise([self.projection], loss, self.base_epochs, self.base_lr)
        return states @ self.projection

    def _logits(self, features):
        if self.residual != "text":
            features = self.image_norm * features + self.alpha * self.x_image.to(features)
        base, x = self.base.to(features), self.x.to(features)
        return residual_logits(features, base, x, self.alpha, self.backbone.logit_scale)

    @torch.no_grad()
    def text_features(self):
        """(C, E) L2-normalised class features with the residual: all that inference needs."""
        self._require_fit()
        return F.normalize(self.base + self.alpha * self.x, dim=-1)

    @torch.no_grad()
    def residual_norms(self):
        """(C,) how long the scaled residual of each class is, |alpha x_c| / |t_c|."""
        self._require_fit()
        return self.alpha * self.x.norm(dim=-1) / self.base.norm(dim=-1)

    def learned_parameters(self):
        if not self._fitted:
            return {}
        parts = {"x": self.x} if self.residual != "image" else {}
        parts |= {"x_image": self.x_image} if self.residual != "text" else {}
        return parts | ({"text_projection": self.projection} if self.projection is not None else {})
