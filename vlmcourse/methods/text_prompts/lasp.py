"""LASP: Text-to-Text Optimization for Language-Aware Soft Prompting of Vision & Language Models, Bulat and
Tzimiropoulos, CVPR 2023, arXiv 2210.01115.

    t_c(v) = normalise(Text([v, name_c .]) + b)           v (M, D) starts at "a photo of a", b (E,) at zero
    L_VL   = CE(s f T^T, y)                               f (B, E): image features, LayerNorms of the tower tuned too
    h_kc   = normalise(Text(template_k(name_c)))          (K, C, E), hand-written, computed once
    L_TT   = mean over k, c of CE between learned t and hand-written h_k:  Z_k = s T H_k^T  (C, C), targets: diagonal
    loss   = L_VL + alpha L_TT

A cross-entropy between texts: the learned prompt of a class must match the hand-written prompts of its class, and no
other's. It needs names only, so names without images ("virtual classes") may join. Re-calibration: the bias b, and the
weights and biases of ln_1 and ln_2 in all blocks of the image tower, at 0.1 of the rate. Grouped prompts: G contexts,
each with its own part of the templates in L_TT; the classifier averages their class features.

Choices, where they matter:
- softmax: the released code normalises Z over the *learned* prompts, for each hand-written one ("learned", default);
  the abstract describes learned prompts classified among hand-written ones ("hand").
- virtual_names: the released code always takes all names of the data set, so the new ones in base-to-new too, as its
  logs show. Here none unless given. In its logs they join L_TT only; virtual_negatives=True lets them compete in L_VL.
- with probability 0.5 a step adds N(0, 0.05^2) noise to h, which is not normalised again; so does the released code.
- G > 1 is not in the released code: that templates are dealt in turn, that all contexts start from the same words, and
  that normalised features are averaged and normalised again, is a reconstruction.
- templates: the released list has 34, some made for one data set; ours has 34 general ones.
"""

import torch
import torch.nn.functional as F
from torch.utils.checkpoint import checkpoint

from vlmcourse.methods.base import MethodCard, register
from vlmcourse.methods.class_text import GENERAL_TEMPLATES, check_templates, template_features
from vlmcourse.methods.context import nearest_words
from vlmcourse.methods.text_prompts.coop import CoOp
from vlmcourse.methods.tuned_tower import block_norms, with_own_parameters
from vlmcourse.methods.vision_prompts import TOKENS, encode_prompted

SOFTMAX = ("learned", "hand")
LARGEST = 2**25  # numbers of Z held at once


def text_to_text(learned, hand, logit_scale, softmax="learned"):
    """L_TT of class features learned (C, E) against hand (K, C, E), a scalar; both have unit length.

    softmax: "learned" for each (k, hand-written j) over learned i; "hand" for each (k, learned i) over hand-written j.
    """
    K, C, _ = hand.shape
    target = torch.arange(C, device=hand.device)

    def part(learned, hand):  # (k, C, E)
        Z = logit_scale * learned @ hand.transpose(1, 2)  # (k, C learned, C hand)
        Z = Z.transpose(1, 2) if softmax == "learned" else Z
        return F.cross_entropy(Z.flatten(0, 1), target.repeat(len(hand)), reduction="sum")

    parts = hand.split(max(1, LARGEST // C**2))  # a thousand classes make (K, 1000, 1000)
    if len(parts) == 1:
        return part(learned, hand) / (K * C)
    return sum(checkpoint(part, learned, h, use_reentrant=False) for h in parts) / (K * C)


@register
class LASP(CoOp):
    """CoOp's arguments (csc excepted), and alpha: weight of L_TT. hand_templates: None takes the 34 of class_text.
    virtual_names: names without images. groups: G. text_bias, tune_norms: the two re-calibrations (tune_norms needs a
    ViT). noise, noise_probability: of h. epochs, lr, batch_size, warmup_epochs, clip_norm: of the released
    configuration for middle-sized data sets; norm_lr_scale: multiple of lr for the LayerNorms."""

    card = MethodCard(
        name="lasp",
        title="LASP: Text-to-Text Optimization for Language-Aware Soft Prompting of Vision & Language Models",
        venue="CVPR",
        year=2023,
        url="https://arxiv.org/abs/2210.01115",
        family="text prompt",
        setup="few-shot supervised",
        learned="G contexts (G, M, D), a text bias (E,), LayerNorms of the image tower's blocks",
        idea="A second cross-entropy between learned and hand-written prompts, for which class names alone are enough.",
        acts_on="text input and the image tower's LayerNorms",
        needs="weights",
    )

    def __init__(
        self,
        backbone,
        *,
        ctx_init="a photo of a",
        alpha=5.0,
        hand_templates=None,
        virtual_names=(),
        virtual_negatives=False,
        groups=1,
        softmax="learned",
        text_bias=True,
        tune_norms=True,
        norm_lr_scale=0.1,
        noise=0.05,
        noise_probability=0.5,
        epochs=25,
        lr=0.032,
        batch_size=32,
        warmup_epochs=3,
        clip_norm=1.0,
        **coop,
    ):
        recipe = {"epochs": epochs, "lr": lr, "batch_size": batch_size, "warmup_epochs": warmup_epochs}
        super().__init__(backbone, ctx_init=ctx_init, **recipe, **coop)
        self.hand_templates = check_templates(GENERAL_TEMPLATES if hand_templates is None else hand_templates)
        if self.csc:
            raise ValueError("csc=True must be False: the text-to-text loss keeps one context for all names")
        if isinstance(virtual_names, str) or not all(isinstance(name, str) for name in virtual_names):
            raise ValueError(f"virtual_names={virtual_names!r} must be a list of class names")
        if not isinstance(groups, int) or not 1 <= groups <= len(self.hand_templates):
            raise ValueError(f"groups={groups!r} must be a whole number from 1 to {len(self.hand_templates)}, one each")
        if softmax not in SOFTMAX:
            raise ValueError(f"softmax={softmax!r} must be one of {SOFTMAX}")
        for name, value in (("alpha", alpha), ("noise", noise), ("norm_lr_scale", norm_lr_scale)):
            if not value >= 0:
                raise ValueError(f"{name}={value!r} must be >= 0")
        if not 0 <= noise_probability <= 1:
            raise ValueError(f"noise_probability={noise_probability!r} must be between 0 and 1")
        if tune_norms:
            backbone.require_vit("LASP with tune_norms=True")
            self.encoder = TOKENS
        self.alpha, self.virtual_names, self.virtual_negatives = alpha, tuple(virtual_names), virtual_negatives
        self.groups, self.softmax, self.use_bias, self.tune_norms = groups, softmax, text_bias, tune_norms
        self.norm_lr_scale, self.noise, self.noise_probability = norm_lr_scale, noise, noise_probability
        self.recipe["clip_norm"] = clip_norm

    def _fit(self, train, val):
        virtual = [name for name in self.virtual_names if name not in self.class_names]
        names = (*self.class_names, *virtual)
        self.all_prompts = self._prompts(names)
        self.hand = template_features(self.backbone, names, self.hand_templates).transpose(0, 1)  # (K, C_all, E)
        self.bias = torch.zeros(self.backbone.embed_dim, device=self.backbone.device, requires_grad=self.use_bias)
        self.tower, self.norms = self.backbone, {}
        if self.tune_norms:
            self.tower, self.norms = with_own_parameters(self.backbone, block_norms(self.backbone))
        self.draw = torch.Generator().manual_seed(self.seed + 2_000_003)
        super()._fit(train, val)

    def _initial_context(self):
        ctx = super()._initial_context()  # (M, D)
        return ctx.expand(self.groups, 1, -1, -1).clone()  # (G, 1, M, D)

    def _parameters(self):
        own = [self.ctx, self.bias] if self.use_bias else [self.ctx]
        norms = {"params": list(self.norms.values()), "lr_scale": self.norm_lr_scale}
        return [*own, norms] if self.norms else own

    def _encode(self, prompts):
        """(G, C, E) L2-normalised features of every group, bias added before."""
        text = prompts.encode(self.ctx, share_prefix=self.share_prefix, normalise=False)
        return F.normalize(text + self.bias, dim=-1)

    def _loss(self, features, labels):
        text = self._encode(self.all_prompts)  # (G, C_all, E), real names first
        C = text.shape[1] if self.virtual_negatives else len(self.class_names)
        features = self._image_features(features)
        image_text = F.cross_entropy(self.backbone.logit_scale * features @ _average(text[:, :C]).T, labels)
        text_text = self._text_to_text(text)
        return image_text + self.alpha * text_text, {"ce": image_text, "text_to_text": text_text}

    def _text_to_text(self, text):
        """L_TT, the mean over all templates; group g has templates g, g + G, g + 2 G, ..."""
        hand = self.hand
        if torch.rand((), generator=self.draw) < self.noise_probability:
            hand = hand + self.noise * torch.randn(hand.shape, generator=self.draw).to(hand)
        scale, K = self.backbone.logit_scale, len(hand)
        parts = [(t, hand[g :: self.groups]) for g, t in enumerate(text)]
        return sum(text_to_text(t, h, scale, self.softmax) * len(h) for t, h in parts) / K

    def group_features(self):
        """(G, C, E) L2-normalised class features of every group."""
        return self._encode(self.prompts)

    def text_features(self):
        return _average(self.group_features())

    def _freeze(self):
        self.bias = self.bias.detach()
        self.norms = {name: tensor.requires_grad_(False) for name, tensor in self.norms.items()}
        super()._freeze()

    def inputs(self, x):
        """As Method.inputs; with tuned LayerNorms the tokens in front of the blocks, and ValueError for features."""
        if self.tune_norms and isinstance(x, torch.Tensor) and x.ndim == 2:
            raise ValueError(
                f"x={tuple(x.shape)} are features of the frozen tower, but LASP tuned its LayerNorms: give images or a "
                "Split (or fit with tune_norms=False)"
            )
        return super().inputs(x)

    def _image_features(self, x):
        return encode_prompted(self.tower, x) if self.tune_norms else x

    def learned_parameters(self):
        if not self._fitted:
            return {}
        bias = {"text_bias": self.bias} if self.use_bias else {}
        return {"ctx": self.ctx, **bias, **{name: tensor.detach() for name, tensor in self.norms.items()}}

    def nearest_words(self, k=5, group=0):
        """The k vocabulary tokens nearest to each context vector of one group: M lists of (token, distance)."""
        self._require_fit()
        return nearest_words(self.backbone, self.ctx[group, 0], k)


def _average(text):
    """(G, C, E) unit features to (C, E): their mean, normalised again; one group is itself."""
    return text[0] if len(text) == 1 else F.normalize(text.mean(dim=0), dim=-1)
