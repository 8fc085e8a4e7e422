"""VT-CLIP: Enhancing Vision-Language Models with Visual-guided Texts, Qiu et al., 2021, arXiv 2112.02399.

Every class text asks the positions of the image what it should look for, so the classifier depends on the image:

    f (B, E) pooled feature, X (B, P, E) features of P positions in the joint space, T (C, E) class texts, h heads
    Z_h = softmax(LN(T) W_q (LN(X) W_k)^T / sqrt(E / h)) LN(X) W_v       (B, C, E / h), the heads side by side
    T'  = T + gamma Z W_o                                               (B, C, E)
    T'  = T' + W_2 GELU(W_1 LN(T'))                                     only with ffn=True
    logits = s f . normalise(T')                                        (B, C), loss = CE

The encoders are frozen, only the attention is learned. Classes do not look at each other, so class names can be added,
left out or changed.

No official code is known. Established, from abstract and reviews: frozen encoders, class texts as queries, spatial
image features before pooling as keys and values, a residual around the text, the global image feature matched with the
result, cross-entropy on few shots. The rest is a reconstruction: number of heads (E / 64), normalisation, feed-forward
part, optimiser. W_o and W_2 start at zero, so training starts at zero-shot CLIP.
"""

import torch
import torch.nn.functional as F

from vlmcourse import training
from vlmcourse.backbone.features import local
from vlmcourse.methods.augment import TrainingFeatures
from vlmcourse.methods.base import Method, MethodCard, register
from vlmcourse.methods.class_text import check_templates, class_features

ENTRIES = 2**24  # of the texts (b, C, E) and attentions (b, h, C, P) that are formed at once


@register
class VTCLIP(Method):
    """gamma: weight of what the texts hear from the image; 0 without ffn is zero-shot. n_heads: None takes E // 64 (at
    least 1). layer_norm: False leaves out the LN. ffn: with the feed-forward part, 4 E wide. templates: None takes the
    split's. path: see Backbone.dense_features. epochs, lr, weight_decay, batch_size: of AdamW with a cosine per step.
    views, crop_scale: see augment.TrainingFeatures."""

    card = MethodCard(
        name="vt_clip",
        title="VT-CLIP: Enhancing Vision-Language Models with Visual-guided Texts",
        venue="arXiv",
        year=2021,
        url="https://arxiv.org/abs/2112.02399",
        family="other",
        setup="few-shot supervised",
        learned="a cross-attention: four (E, E) matrices and two layer norms, optionally a feed-forward part",
        idea="Let every class text look at the image before it is compared with it.",
        acts_on="features",
        needs="internals",
    )

    def __init__(
        self,
        backbone,
        *,
        gamma=1.0,
        n_heads=None,
        layer_norm=True,
        ffn=False,
        templates=None,
        path="full",
        epochs=50,
        lr=1e-4,
        weight_decay=1e-2,
        batch_size=32,
        views=1,
        crop_scale=(0.5, 1.0),
        seed=0,
        progress=False,
    ):
        super().__init__(backbone, seed=seed, progress=progress)
        paths, E = ("full", "value") + ("value+residual",) * backbone.is_vit, backbone.embed_dim
        if path not in paths:
            raise ValueError(f"path={path!r} must be one of {paths} for this image tower")
        if isinstance(gamma, bool) or not isinstance(gamma, int | float) or not 0 <= gamma < float("inf"):
            raise ValueError(f"gamma={gamma!r} must be a number >= 0")
        n_heads = max(1, E // 64) if n_heads is None else n_heads
        if not isinstance(n_heads, int) or n_heads < 1 or E % n_heads:
            raise ValueError(f"n_heads={n_heads!r} must be a whole number >= 1 that divides the width {E}")
        self.own_templates = None if templates is None else check_templates(templates)
        self.gamma, self.n_heads, self.layer_norm, self.ffn = gamma, n_heads, layer_norm, ffn
        self.views, self.crop_scale = views, crop_scale
        self.recipe = {"epochs": epochs, "lr": lr, "weight_decay": weight_decay, "batch_size": batch_size}
        self.encoder = local(path, with_pooled=True)

    def _fit(self, train, val):
        self.templates = self.own_templates or self.templates
        self.text = class_features(self.backbone, self.class_names, self.templates)  # (C, E)
        self.weights = self._start()
        options = {"views": self.views, "crop_scale": self.crop_scale, "seed": self.seed, "encoder": self.encoder}
        features = TrainingFeatures(self.backbone, train, **options)

        def loss(indices, step):
            return F.cross_entropy(self._scores(features(indices)), features.labels[indices])

        self.history = training.fit(
            [w.requires_grad_() for w in self.weights.values()], loss, len(train), optimizer="adamw",
            schedule="cosine_per_step", drop_last=False, seed=self.seed, progress=self.progress, **self.recipe,
        )  # fmt: skip
        self.weights = {name: w.detach() for name, w in self.weights.items()}

    def _start(self):
        """{name: weights}. Matrices are uniform in +-1 / sqrt(fan_in), as PyTorch's; what is added to T starts at 0."""
        E, draw = self.text.shape[1], torch.Generator().manual_seed(self.seed)
        weights = {name: self._uniform(draw, E, E) for name in ("query", "key", "value")} | {"out": torch.zeros(E, E)}
        norms = ["text_norm", "image_norm"] * self.layer_norm
        if self.ffn:
            weights |= {"expand": self._uniform(draw, E, 4 * E), "expand_bias": torch.zeros(4 * E)}
            weights |= {"contract": torch.zeros(4 * E, E), "contract_bias": torch.zeros(E)}
            norms += ["ffn_norm"] * self.layer_norm
        weights |= {name: torch.ones(E) for name in norms} | {f"{name}_bias": torch.zeros(E) for name in norms}
        return {name: w.to(self.text) for name, w in weights.items()}

    @staticmethod
    def _uniform(draw, fan_in, fan_out):
        return (2 * torch.rand(fan_in, fan_out, generator=draw) - 1) / fan_in**0.5

    def _norm(self, name, x):
        """LN, with learned scale and shift; x itself where the norms are left out."""
        w = self.weights
        return F.layer_norm(x, x.shape[-1:], w[name], w[f"{name}_bias"]) if name in w else x

    def _heads(self, x):
        return x.unflatten(-1, (self.n_heads, -1)).transpose(-3, -2)  # (..., n, E) -> (..., h, n, E / h)

    def _attend(self, positions):
        """Weights (B, h, C, P) of the positions, and what the texts hear (B, C, E), before W_o."""
        w, image = self.weights, self._norm("image_norm", positions)
        query = self._heads(self._norm("text_norm", self.text.to(positions)) @ w["query"])  # (h, C, E / h)
        key, value = self._heads(image @ w["key"]), self._heads(image @ w["value"])  # (B, h, P, E / h)
        shares = (query @ key.transpose(-2, -1) / query.shape[-1] ** 0.5).softmax(dim=-1)
        return shares, (shares @ value).transpose(-3, -2).flatten(-2)

    def _guided(self, positions):
        """(B, C, E) the class texts T' for each image, not normalised. Differentiable."""
        w, (_, heard) = self.weights, self._attend(positions)
        text = self.text.to(positions) + self.gamma * (heard @ w["out"])
        if self.ffn:
            inner = F.gelu(self._norm("ffn_norm", text) @ w["expand"] + w["expand_bias"])
            text = text + inner @ w["contract"] + w["contract_bias"]
        return text

    def _scores(self, features):
        """(B, C) logits of pooled feature and positions (B, 1 + P, E)."""
        text = F.normalize(self._guided(features[:, 1:]), dim=-1)  # (B, C, E)
        return self.backbone.logit_scale * (text @ features[:, 0, :, None]).squeeze(-1)

    def _logits(self, features):
        C, E, width = *self.text.shape, features.shape[1] * self.n_heads
        return torch.cat([self._scores(part) for part in features.split(max(1, ENTRIES // (C * (E + width))))])

    @torch.no_grad()
    def attention(self, x):
        """(B, h, C, P) how much each class text looks at each position, row by row. Give few images."""
        self._require_fit()
        return self._attend(self.inputs(x)[:, 1:])[0]

    @torch.no_grad()
    def guided_text(self, x):
        """(B, C, E) the L2-normalised class texts for each image. Give few images."""
        self._require_fit()
        return F.normalize(self._guided(self.inputs(x)[:, 1:]), dim=-1)

    def for_classes(self, class_names, templates=None):
        moved = self._moved(class_names, templates)
        moved.text = class_features(moved.backbone, moved.class_names, moved.templates)
        return moved

    def learned_parameters(self):
        return dict(self.weights) if self._fitted else {}
