"""TPT: Test-Time Prompt Tuning for Zero-Shot Generalization in Vision-Language Models, Shu et al., NeurIPS 2022,
arXiv 2209.07511, section 3.

No training set. For one test image x, and then again for the next, from the same start:
    x_0 the test view, x_1 ... x_{V-1} random resized crops of the image             f (V, E), computed once
    p(c | x_v) = softmax_c s f_v w_c(v)       v (M, D) starts at the words "a photo of a", or at a fitted context
    kept: the share rho of the views whose prediction has the least entropy
    loss  = H(mean over kept of p(. | x_v))   entropy of the mean, not mean of the entropies
    v <- one AdamW step on the loss; answer with x_0 alone and the new v; forget v

Published setting: V = 64, rho = 0.1, one step at 5e-3. AdamW's first step is close to lr sign(gradient): the rate alone
decides how far v goes. With more steps the views stay those of the first. `augmix=True` adds AugMix to the crops, as
the paper does for fine-grained sets, not for ImageNet's relatives. Official code: int(rho V), which keeps no view
at all for V < 10; here at least one is kept. It draws views from one stream for all images, so its answers depend on
their order; here an image's views depend on its pixels and the seed only. Many images run together: B contexts
(B, M, D), B C prompts, a sum of losses that share nothing, so the answer to an image does not depend on the others.

+CoCoOp: the context that its net computes from x_0 is the start. The official code gives the net the unnormalised
feature, though it was trained on normalised ones; here it gets the normalised one. Not here: the paper's second
experiment, visual reasoning on Bongard-HOI, whose class tokens are learned from a support set.
"""

import math
from typing import NamedTuple

import torch
import torch.nn.functional as F

from vlmcourse import training
from vlmcourse.methods.base import Method, MethodCard, full_precision, register
from vlmcourse.methods.context import ClassPrompts, words_context
from vlmcourse.methods.views import view_features


def entropy(logits):
    """(...,) entropy in nats of softmax(logits), logits (..., C)."""
    log_p = logits.log_softmax(-1)
    return -(log_p.exp() * log_p).sum(-1)


def confident(logits, fraction):
    """(..., k) the k = max(1, int(fraction V)) views of least entropy, logits (..., V, C)."""
    keep = max(1, int(fraction * logits.shape[-2]))
    return entropy(logits).argsort(dim=-1, stable=True)[..., :keep]


def marginal_entropy(logits):
    """(...,) entropy in nats of the mean over the views of softmax(logits), logits (..., V, C)."""
    log_p = logits.log_softmax(-1).logsumexp(-2) - math.log(logits.shape[-2])  # (..., C)
    log_p = log_p.clamp(min=torch.finfo(log_p.dtype).min)
    return -(log_p.exp() * log_p).sum(-1)


class Episode(NamedTuple):
    """What happened to N images: logits (N, C) of the answer; view_logits (N, V, C) before tuning; kept (N, k) views;
    context (N, M, D) after tuning; text (N, C, E); before and after (N,), the loss in nats."""

    logits: torch.Tensor
    view_logits: torch.Tensor
    kept: torch.Tensor
    context: torch.Tensor
    text: torch.Tensor
    before: torch.Tensor
    after: torch.Tensor


@register
class TPT(Method):
    """n_views: V, the test view included. selection: rho. steps, lr: of AdamW; steps = 0 is zero-shot with ctx_init.
    init: another start than ctx_init's words: a fitted CoOp or CoCoOp (its name position counts then), a context
    (M, D), or a function from features of x_0 (B, E) to contexts (B, M, D).
    max_prompts: images run together in chunks of at most this many prompts, at least one image."""

    card = MethodCard(
        name="tpt",
        title="Test-Time Prompt Tuning for Zero-Shot Generalization in Vision-Language Models",
        venue="NeurIPS",
        year=2022,
        url="https://arxiv.org/abs/2209.07511",
        family="text prompt",
        setup="test-time adaptation, one unlabelled image",
        learned="context vectors (M, D), anew for every test image, then forgotten",
        idea="Tune the prompt until the confident views of one image agree; no label and no training set is needed.",
        acts_on="text input",
        needs="inputs",
    )

    def __init__(
        self,
        backbone,
        *,
        n_views=64,
        selection=0.1,
        steps=1,
        lr=5e-3,
        weight_decay=0.01,
        ctx_init="a photo of a",
        init=None,
        class_token_position="end",
        augmix=False,
        crop_scale=(0.08, 1.0),
        max_prompts=256,
        seed=0,
        progress=False,
    ):
        super().__init__(backbone, seed=seed, progress=progress)
        for name, value, least in (("n_views", n_views, 1), ("steps", steps, 0), ("max_prompts", max_prompts, 1)):
            if not isinstance(value, int) or value < least:
                raise ValueError(f"{name}={value!r} must be a whole number >= {least}")
        if not 0 < selection <= 1:
            raise ValueError(f"selection={selection!r} must be a share of the views, above 0 and at most 1")
        context = words_context(backbone, ctx_init) if init is None else init
        if isinstance(init, Method):
            context = init.learned_parameters().get("ctx")
            class_token_position = getattr(init, "class_token_position", "end")
        if not callable(context) and (not isinstance(context, torch.Tensor) or context.ndim != 2):
            kind = tuple(context.shape) if isinstance(context, torch.Tensor) else type(context).__name__
            raise ValueError(f"init gives {kind}; it must be or hold one fitted context (M, D), or be a function")
        if hasattr(init, "shifts"):  # CoCoOp: a context for every image
            context = lambda features: init.learned_parameters()["ctx"] + init.shifts(features)[:, None]  # noqa: E731
        self.start, self.class_token_position, self.max_prompts = context, class_token_position, max_prompts
        self.n_views, self.selection, self.steps = n_views, selection, steps
        self.view_options = {"crop_scale": crop_scale, "augmix": augmix}
        self.recipe = {"optimizer": "adamw", "lr": lr, "weight_decay": weight_decay, "schedule": "constant"}

    def _fit(self, train, val):
        """Records the class names, nothing else; the prompts are made when the first context says how long they are."""
        self.prompts = None

    def inputs(self, x):
        """View features (N, V, E): those given, or those of a Split or of images."""
        if isinstance(x, torch.Tensor) and x.ndim == 3 and x.is_floating_point():
            if x.shape[-1] != self.backbone.embed_dim:
                raise ValueError(f"x={tuple(x.shape)} must be view features (N, V, {self.backbone.embed_dim})")
            return F.normalize(full_precision(x).to(self.backbone.device), dim=-1)
        if isinstance(x, torch.Tensor) and x.ndim == 2:
            raise ValueError(f"x={tuple(x.shape)}: TPT needs images, or features of their views (N, V, E) from `views`")
        return self.views(x)

    def views(self, x):
        """(N, V, E) L2-normalised features of the views of a Split or of images; view 0 is the test view."""
        return view_features(self.backbone, x, self.n_views, **self.view_options, seed=self.seed)

    def tune(self, x):
        """The Episode of a Split, of images, or of view features (N, V, E), every image by itself."""
        self._require_fit()
        return self._episodes(self.inputs(x))

    def _episodes(self, views):
        parts = [self._tune(part) for part in views.split(max(1, self.max_prompts // len(self.class_names)))]
        return Episode(*(torch.cat(tensors) for tensors in zip(*parts, strict=True)))

    def _tune(self, f):  # (B, V, E)
        start = self.start(f[:, 0]).detach() if callable(self.start) else self.start.expand(len(f), -1, -1)
        if self.prompts is None or self.prompts.n_ctx != start.shape[-2]:
            self.prompts = ClassPrompts(self.backbone, self.class_names, start.shape[-2], self.class_token_position)
        ctx = full_precision(start).clone().requires_grad_()  # (B, M, D): the copy that is thrown away
        with torch.no_grad():
            view_logits = self._view_logits(f, ctx)
        kept = confident(view_logits, self.selection)  # (B, k), of the first step for all steps
        few = f.gather(1, kept[..., None].expand(-1, -1, f.shape[-1]))  # (B, k, E)

        def loss(indices, step):
            return marginal_entropy(self._view_logits(few, ctx)).sum()

        training.fit([ctx], loss, 1, epochs=self.steps, batch_size=1, **self.recipe)
        with torch.no_grad():
            text = self._text(ctx)
            logits = self.backbone.logit_scale * torch.einsum("be,bce->bc", f[:, 0], text)
            before = marginal_entropy(view_logits.gather(1, kept[..., None].expand(-1, -1, view_logits.shape[-1])))
            after = marginal_entropy(self.backbone.logit_scale * few @ text.mT)
        return logits, view_logits, kept, ctx.detach(), text, before, after

    def _text(self, ctx):
        return self.prompts.encode(ctx[:, None])  # (B, C, E)

    def _view_logits(self, f, ctx):
        return self.backbone.logit_scale * f @ self._text(ctx).mT  # (B, V, C)

    def _logits(self, views):
        return self._episodes(views).logits

    def for_classes(self, class_names, templates=None):
        moved = self._moved(class_names, templates)
        moved.prompts = None
        return moved
