"""CAVPT, the method DPT: Dual Modality Prompt Tuning for Vision-Language Pre-Trained Model, Xing et al., IEEE TMM 2023,
arXiv 2208.08340.

Text prompts as in CoOp, deep visual prompts as in VPT, and in the last layers of the image tower prompts that are made
for each image: the texts of its k likeliest classes (by frozen CLIP) look at its tokens, and what they find joins them.

    T = Text([v_1 ... v_n, name_c .])   (C, E) not normalised;   W0 (C, E) hand prompts, f0 (B, E) frozen image features
    blocks 1 ... bottom_limit - 1       M learned prompts each join behind ln_pre, at the end, and are dropped again
    class-aware blocks, x (B, 1 + P, Dv) the tokens in front of the block, detached:
        q = T[top k of f0 W0^T] W_meta + b     (B, k, Dv)        H = [x ; G]     (B, 1 + P + 10, Dv), G learned
        A = softmax(q W_q (H W_k)^T / sqrt 32) (B, k, 1 + P + 10)   o = A H W_v     (B, k, Dv)
        prompts = LN_b(o + q)  join x for this block            aux = LN_a(o) W_cls     (B, k, C), training only
    z  = s f n(T)^T   both prompted;   z1 = s f0 n(T)^T;   z2 = s f n(W0)^T
    loss = CE(z1) + CE(z2) + 0.1 CE(z) in the first `pretrain_epochs`, then CE(z); always + alpha CE(aux, y) over those
    candidates that are the true class (images whose class is not among the k have none)

Inference uses z, and needs two passes per image, one of them frozen. Recipe of the official script, ViT-B/32: batch 32,
60 epochs (1 shot), SGD; visual parts 0.01 with 10 warm-up epochs, text 0.002 with one. Its alpha is 0.3 (1.0 is the
code's default). The official code divides by zero where no image of a batch has its class among the k; here that batch
has no auxiliary loss. `branches` leaves parts out: ("text",) is CoOp, ("visual",) deep VPT, both VLP of the same code.
"""

from typing import NamedTuple

import torch
import torch.nn.functional as F

from vlmcourse.backbone.features import image_features
from vlmcourse.methods.base import MethodCard, full_precision, register
from vlmcourse.methods.class_text import check_templates, class_features
from vlmcourse.methods.context import ClassPrompts, random_context, words_context
from vlmcourse.methods.vision_prompts import encode_prompted, normal_prompts
from vlmcourse.methods.visual_prompt_tuning import VisualPromptTuning

BRANCHES = ("text", "visual", "class_aware")


class ClassAware(NamedTuple):
    """What the class-aware layers saw and made, for N such layers."""

    classes: torch.Tensor  # (B, k) candidates, likeliest first
    shares: torch.Tensor  # (N, B, k, 1 + P + G) attention over CLS, positions row by row, learned tokens
    prompts: torch.Tensor  # (N, B, k, Dv)
    logits: torch.Tensor  # (N, B, k, C') of the auxiliary classifier, C' the classes it was trained on
    n_extra: int  # G

    @property
    def on_positions(self):
        """(N, B, k, P), the shares of the positions alone."""
        return self.shares[..., 1 : self.shares.shape[-1] - self.n_extra]


@register
class CAVPT(VisualPromptTuning):
    """branches: which parts are learned, see above. n_ctx, ctx_init, class_token_position: of the text, as in CoOp.
    n_ctx_vision: M. n_class_prompts: k. n_extra: learned tokens in H. attention_width: 32 above. bottom_limit: number
    of the first class-aware layer, counted from 1; None: the last layer alone. alpha: of the auxiliary loss.
    pretrain_epochs: see above. lr, warmup_epochs: of the visual parts, text_lr, text_warmup_epochs of the text.
    templates: hand prompt; None takes the split's. The rest as in VisualPromptTuning, without depth and init.
    History: "loss", and in it "cross_entropy" of z and "auxiliary" (before alpha)."""

    card = MethodCard(
        name="cavpt",
        title="Dual Modality Prompt Tuning for Vision-Language Pre-Trained Model",
        venue="IEEE TMM",
        year=2023,
        url="https://arxiv.org/abs/2208.08340",
        family="text-visual prompt",
        setup="few-shot supervised",
        learned="a text context (n, D), visual prompts (J, M, Dv), and a cross-attention per class-aware layer",
        idea="In the last layer, make the visual prompts from what the texts of the likely classes see in the image.",
        acts_on="text and image input, inner layers",
        needs="internals",
    )

    def __init__(
        self,
        backbone,
        *,
        branches=BRANCHES,
        n_ctx=16,
        ctx_init=None,
        class_token_position="end",
        n_ctx_vision=10,
        n_class_prompts=10,
        n_extra=10,
        attention_width=32,
        bottom_limit=None,
        alpha=0.3,
        pretrain_epochs=30,
        epochs=60,
        lr=0.01,
        warmup_epochs=10,
        text_lr=2e-3,
        text_warmup_epochs=1,
        templates=None,
        **vpt,
    ):
        super().__init__(
            backbone, n_ctx_vision=n_ctx_vision, depth=None, init="normal", epochs=epochs, lr=lr,
            warmup_epochs=warmup_epochs, **vpt,
        )  # fmt: skip
        branches, layers = (branches,) if isinstance(branches, str) else tuple(branches), self.depth
        bottom_limit = layers if bottom_limit is None else bottom_limit
        if not branches or not set(branches) <= set(BRANCHES):
            raise ValueError(f"branches={branches!r} must be one or more of {BRANCHES}")
        if not isinstance(bottom_limit, int) or not 1 <= bottom_limit <= layers:
            raise ValueError(
                f"bottom_limit={bottom_limit!r} must be a whole number from 1 to the tower's {layers} layers"
            )
        sizes = {
            "n_ctx": n_ctx,
            "n_class_prompts": n_class_prompts,
            "n_extra": n_extra,
            "pretrain_epochs": pretrain_epochs,
        }
        for name, value in {**sizes, "attention_width": attention_width}.items():
            least = int(name in ("n_ctx", "attention_width"))
            if not isinstance(value, int) or value < least:
                raise ValueError(f"{name}={value!r} must be a whole number >= {least}")
        if not 0 <= alpha < float("inf"):
            raise ValueError(f"alpha={alpha!r} must be a number >= 0")
        for name, value in {"lr": lr, "text_lr": text_lr}.items():
            if not 0 < value < float("inf"):
                raise ValueError(f"{name}={value!r} must be a positive number")
        self.start = None if ctx_init is None else words_context(backbone, ctx_init)  # (n, D)
        self.n_ctx = n_ctx if self.start is None else len(self.start)
        self.branches, self.class_token_position, self.alpha = branches, class_token_position, alpha
        self.n_class_prompts, self.n_extra, self.attention_width = n_class_prompts, n_extra, attention_width
        self.first_aware = bottom_limit - 1 if "class_aware" in branches else layers
        self.n_aware, self.depth = layers - self.first_aware, self.first_aware if "visual" in branches else 0
        self.pretrain_epochs, self.text_lr, self.text_warmup_epochs = pretrain_epochs, text_lr, text_warmup_epochs
        self.own_templates = None if templates is None else check_templates(templates)

    def _fit(self, train, val):
        one_view = self.views == 1  # then f0 of a training image is always the same
        self.train_pooled = image_features(self.backbone, train) if one_view else None
        super()._fit(train, val)

    def _start(self):
        self.templates, self.epoch = self.own_templates or self.templates, 0
        self._read_classes()
        self.ctx_vision = normal_prompts(self.backbone, self.depth, self.n_ctx_vision, seed=self.seed)  # (J, M, Dv)
        self.ctx = (
            random_context(self.backbone, self.n_ctx, seed=self.seed) if self.start is None else self.start.clone()
        )
        self.weights = self._start_of_attention() if self.n_aware else {}

    def _read_classes(self):
        self.text = class_features(self.backbone, self.class_names, self.templates)  # W0 (C, E)
        learned = "text" in self.branches
        self.frozen_text = None if learned else self.text  # T, where it does not change any more
        if learned:
            self.prompts = ClassPrompts(self.backbone, self.class_names, self.n_ctx, self.class_token_position)

    def _start_of_attention(self):
        """{name: (N, ...)} for N class-aware layers; linear layers are uniform in +-1 / sqrt(fan_in), as PyTorch's."""
        N, width, A = self.n_aware, self.backbone.vision_width, self.attention_width
        E, C, draw = (
            self.backbone.embed_dim,
            len(self.class_names),
            torch.Generator().manual_seed(self.seed + 1_000_033),
        )
        shapes = {"meta": (E, width), "query": (width, A), "key": (width, A), "value": (width, width)}
        shapes |= {"classifier": (width, C)} if self.alpha else {}
        weights = {n: (2 * torch.rand(N, *s, generator=draw) - 1) / s[0] ** 0.5 for n, s in shapes.items()}
        weights["meta_bias"] = (2 * torch.rand(N, width, generator=draw) - 1) / E**0.5
        weights["extra"] = 0.02 * torch.randn(N, self.n_extra, width, generator=draw)
        for name in ("norm_a", "norm_b") if self.alpha else ("norm_b",):
            weights |= {name: torch.ones(N, width), f"{name}_bias": torch.zeros(N, width)}
        return {name: w.to(self.text) for name, w in weights.items()}

    def _parameters(self):
        text = {"ctx": self.ctx} if "text" in self.branches else {}
        return text | ({"ctx_vision": self.ctx_vision} if self.depth else {}) | self.weights

    def _groups(self):
        visual = [tensor for name, tensor in self._parameters().items() if name != "ctx"]
        text = {"lr_scale": self.text_lr / self.recipe["lr"], "warmup_epochs": self.text_warmup_epochs}
        groups = [{"params": [self.ctx]} | text] if "text" in self.branches else []
        return [*groups, *([{"params": visual}] if visual else [])]

    def _after_epoch(self, epoch, history):
        self.epoch = epoch + 1

    def class_text(self):
        """T (C, E), not normalised: of the learned context, differentiable; without it the hand prompts' features."""
        return self.prompts.encode(self.ctx, normalise=False) if self.frozen_text is None else self.frozen_text

    def text_features(self):
        return F.normalize(self.class_text(), dim=-1)

    @torch.no_grad()
    def candidates(self, tokens, pooled=None):
        """Frozen features f0 (B, E) of image tokens, and their k likeliest classes (B, k), likeliest first. pooled: f0,
        where it is known."""
        pooled = encode_prompted(self.backbone, tokens) if pooled is None else full_precision(pooled)
        k = min(self.n_class_prompts, len(self.text))
        return pooled, (pooled @ self.text.T).topk(k, dim=-1).indices

    def class_prompts(self, layer, tokens, asked):
        """Prompts (B, k, Dv), aux logits (B, k, C), shares (B, k, 1 + P + G), for the texts asked (B, k, E)."""
        w = {name: tensor[layer] for name, tensor in self.weights.items()}
        tokens = full_precision(tokens.detach())
        query = asked @ w["meta"] + w["meta_bias"]  # (B, k, Dv)
        seen = torch.cat([tokens, w["extra"].expand(len(tokens), -1, -1)], dim=1)  # H (B, 1 + P + G, Dv)
        affinity = (query @ w["query"]) @ (seen @ w["key"]).transpose(1, 2)
        shares = (affinity / self.attention_width**0.5).softmax(dim=-1)
        found = shares @ seen @ w["value"]

        def norm(name, x):
            return F.layer_norm(x, x.shape[-1:], w[name], w[f"{name}_bias"])

        aux = norm("norm_a", found) @ w["classifier"] if self.alpha else found.new_zeros(*found.shape[:2], 0)
        return norm("norm_b", found + query), aux, shares

    def _prompted(self, tokens, text, classes):
        """Features f (B, E), and a list of (prompts, aux logits, shares), one for each class-aware layer."""
        made = []

        def aware(x):
            made.append(self.class_prompts(len(made), x, text[classes]))
            return made[-1][0]

        layers = range(self.first_aware, self.first_aware + self.n_aware)
        deep = dict(enumerate(self.visual_prompts())) | dict.fromkeys(layers, aware)
        shallow = deep.pop(0) if self.depth else None
        features = encode_prompted(self.backbone, tokens, shallow, deep, before_ln_pre=self.before_ln_pre)
        return features, made

    def image_features(self, tokens):
        classes = self.candidates(tokens)[1] if self.n_aware else None
        return self._prompted(tokens, self.class_text(), classes)[0]

    def _loss(self, tokens, labels, indices):
        scale, text, pretrain = self.backbone.logit_scale, self.class_text(), self.epoch < self.pretrain_epochs
        unit = F.normalize(text, dim=-1)
        known = None if self.train_pooled is None else self.train_pooled[indices]
        pooled, classes = self.candidates(tokens, known) if pretrain or self.n_aware else (None, None)
        features, made = self._prompted(tokens, text, classes)
        loss = cross_entropy = F.cross_entropy(scale * features @ unit.T, labels)
        if pretrain:
            by_text = F.cross_entropy(scale * pooled @ unit.T, labels)
            by_image = F.cross_entropy(scale * features @ self.text.T, labels)
            loss = by_text + by_image + 0.1 * cross_entropy
        auxiliary = self._auxiliary([aux for _, aux, _ in made], classes, labels)
        return loss + self.alpha * auxiliary, {"cross_entropy": cross_entropy, "auxiliary": auxiliary}

    def _auxiliary(self, logits, classes, labels):
        """Cross-entropy of aux logits, a list of (B, k, C), over the candidates (B, k) that are the true class."""
        if not (self.alpha and logits):
            return labels.new_zeros((), dtype=torch.float32)
        true = classes == labels[:, None]  # (B, k)
        rows = torch.cat([each[true] for each in logits])
        if not len(rows):
            return rows.new_zeros(())
        return F.cross_entropy(rows, labels[:, None].expand_as(true)[true].repeat(len(logits)))

    @torch.no_grad()
    def _freeze(self):
        super()._freeze()
        self.frozen_text = self.class_text()
        self.train_pooled = None

    @torch.no_grad()
    def look(self, x):
        """ClassAware of a Split, images or image tokens: candidates, attention, prompts. Give few images."""
        self._require_fit()
        if not self.n_aware:
            raise ValueError(f"branches={self.branches!r} have no class-aware prompts to look at")
        tokens = self.inputs(x)
        classes = self.candidates(tokens)[1]
        prompts, logits, shares = map(
            torch.stack, zip(*self._prompted(tokens, self.class_text(), classes)[1], strict=True)
        )
        return ClassAware(classes, shares, prompts, logits, self.n_extra)

    def for_classes(self, class_names, templates=None):
        moved = self._moved(class_names, templates)
        moved._read_classes()
        moved._freeze()
        return moved
