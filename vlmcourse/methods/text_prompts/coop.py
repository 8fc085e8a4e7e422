"""CoOp: Learning to Prompt for Vision-Language Models, Zhou et al., IJCV 2022, arXiv 2109.01134, equations 2 to 4.

    t_c(v) = [v_1 ... v_M, name_c .]      v (M, D): free vectors in token-embedding space, shared by all classes,
                                          or (C, M, D), one set per class (CSC)
    w_c(v) = normalise(Text(t_c(v)))      (C, E); the text tower is frozen, the gradient passes through it to v
    logits = s f W(v)^T                   (B, C); f (B, E) normalised frozen image features, s = exp(logit_scale)
    loss   = CE(logits, y)

Recipe of the paper: M = 16, v ~ N(0, 0.02^2), SGD 2e-3 with momentum and weight decay, batch 32, cosine with one
warm-up epoch, last epoch. Three savings over the official trainer: image features are computed once (see `views` in
augment.py for what that changes about augmentation), and, exactly, prompts are cut behind the longest one, and what all
classes share (start token and context) runs once per step instead of once per class.
"""

import torch
import torch.nn.functional as F

from vlmcourse import training
from vlmcourse.methods.augment import TrainingFeatures
from vlmcourse.methods.base import Method, MethodCard, register
from vlmcourse.methods.context import ClassPrompts, nearest_words, random_context, words_context


def epochs_for(split):
    """The paper's epochs: 50 for 1 shot, 100 for 2 and 4, 200 for 8 and 16 (but 50 for ImageNet at any shots)."""
    shots = int(split.counts.max())
    return 50 if shots <= 1 else 100 if shots <= 4 else 200


@register
class CoOp(Method):
    """n_ctx: M. ctx_init: words to start from instead of noise; then M is their number of BPE tokens, n_ctx is not used
    and csc is refused. csc: class-specific context. class_token_position: "end", "middle" or "front", where the name
    stands. epochs: None takes the paper's number for the shots. views: see augment.TrainingFeatures. share_prefix:
    False runs every prompt in full, with equal results."""

    card = MethodCard(
        name="coop",
        title="Learning to Prompt for Vision-Language Models",
        venue="IJCV",
        year=2022,
        url="https://arxiv.org/abs/2109.01134",
        family="text prompt",
        setup="few-shot supervised",
        learned="context vectors (M, D), or (C, M, D) with CSC",
        idea="Replace the words around the class name by free vectors and fit them by cross-entropy.",
        acts_on="text input",
        needs="inputs",
    )

    def __init__(
        self,
        backbone,
        *,
        n_ctx=16,
        ctx_init=None,
        csc=False,
        class_token_position="end",
        epochs=None,
        lr=2e-3,
        batch_size=32,
        momentum=0.9,
        weight_decay=5e-4,
        warmup_epochs=1,
        init_std=0.02,
        views=1,
        crop_scale=(0.08, 1.0),
        share_prefix=True,
        seed=0,
        progress=False,
    ):
        super().__init__(backbone, seed=seed, progress=progress)
        if ctx_init is None and (not isinstance(n_ctx, int) or n_ctx < 1):
            raise ValueError(f"n_ctx={n_ctx!r} must be a whole number >= 1")
        if ctx_init is not None and csc:
            raise ValueError(
                f"csc=True and ctx_init={ctx_init!r} exclude each other: words give one context for all classes"
            )
        self.start = None if ctx_init is None else words_context(backbone, ctx_init)  # (M, D)
        self.n_ctx = n_ctx if self.start is None else len(self.start)
        self.ctx_init, self.csc, self.class_token_position = ctx_init, csc, class_token_position
        self.epochs, self.init_std, self.share_prefix = epochs, init_std, share_prefix
        self.views, self.crop_scale = views, crop_scale
        self.recipe = {"lr": lr, "batch_size": batch_size, "momentum": momentum, "weight_decay": weight_decay}
        self.recipe["warmup_epochs"] = warmup_epochs

    def _fit(self, train, val):
        self.prompts = self._prompts(self.class_names)
        self.ctx = self._initial_context().requires_grad_()
        options = {"views": self.views, "crop_scale": self.crop_scale, "seed": self.seed, "encoder": self.encoder}
        features = TrainingFeatures(self.backbone, train, **options)

        def loss(indices, step):
            return self._loss(features(indices), features.labels[indices])

        epochs = epochs_for(train) if self.epochs is None else self.epochs
        self.history = training.fit(
            self._parameters(), loss, len(train), epochs=epochs, seed=self.seed, progress=self.progress,
            on_epoch=self._after_epoch, **self.recipe,
        )  # fmt: skip
        self._freeze()

    def _after_epoch(self, epoch, history):
        """Called after every epoch, for a descendant that watches its training; True ends it."""

    def _parameters(self):
        """What training.fit changes; a descendant of CoOp adds its own."""
        return [self.ctx]

    def _loss(self, features, labels):
        """Loss of one batch, features (b, E), labels (b,); a descendant of CoOp adds its term."""
        logits = self.backbone.logit_scale * self._image_features(features) @ self.text_features().T  # (b, C)
        return F.cross_entropy(logits, labels)

    def _image_features(self, x):
        """(b, E) from what `encoder` makes of images; a descendant that changes the image tower runs it here."""
        return x

    def _prompts(self, class_names):
        return ClassPrompts(self.backbone, class_names, self.n_ctx, self.class_token_position)

    def _initial_context(self):
        if self.start is not None:
            return self.start.clone()
        shape = (len(self.class_names), self.n_ctx) if self.csc else (self.n_ctx,)
        return random_context(self.backbone, *shape, seed=self.seed, std=self.init_std)

    def text_features(self, prompts=None):
        """(C, E) L2-normalised class features of the present context, differentiable with respect to it. prompts: those
        of other names, from _prompts."""
        return (prompts or self.prompts).encode(self.ctx, share_prefix=self.share_prefix)

    @torch.no_grad()
    def _freeze(self):
        self.ctx = self.ctx.detach()
        self.text = self.text_features()  # after training the text tower is no longer needed

    def _logits(self, features):
        features = torch.cat([self._image_features(part) for part in features.split(256)])
        return self.backbone.logit_scale * features @ self.text.to(features).T

    def for_classes(self, class_names, templates=None):
        if self.csc:  # a class-specific context cannot move to other names
            return super().for_classes(class_names, templates)
        moved = self._moved(class_names, templates)
        moved.prompts = moved._prompts(moved.class_names)
        moved._freeze()
        return moved

    def learned_parameters(self):
        return {"ctx": self.ctx.detach()} if self._fitted else {}

    def nearest_words(self, k=5, class_name=None):
        """The k vocabulary tokens nearest to each context vector: M lists of (token, distance)."""
        self._require_fit()
        if self.csc and class_name not in self.class_names:
            raise ValueError(
                f"class_name={class_name!r} must be one of {list(self.class_names)}: csc has a context for each"
            )
        return nearest_words(self.backbone, self.ctx[self.class_names.index(class_name)] if self.csc else self.ctx, k)
