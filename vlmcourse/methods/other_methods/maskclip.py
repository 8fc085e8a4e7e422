"""MaskCLIP: Extract Free Dense Labels from CLIP, Zhou et al., ECCV 2022, arXiv 2112.01071, section 3.2 and 3.3.
(Not the MaskCLIP of arXiv 2208.08984, another model.)

CLIP's pooled feature is an attention average of values that live in the joint space already. So query and key of the
last layer are dropped, and every value is compared with the class texts; nothing is trained.

    F      (B, E, h, w)   value path of the last layer, see backbone/vision.py
    T      (C, E)         class texts, an ensemble of many templates ("prompt engineering")
    S_ci = <F_i, T_c>     (B, C, h, w) cosine, no temperature; enlarged bilinearly, argmax

Two refinements at test time, P = softmax_c(s S), s the temperature (100 in the code, here the backbone's):
    prompt denoising  a class with max_i P_ci < pd is dropped from the image (S_c = -100)
    key smoothing     P'_ci = sum_j w_ij P_cj where max_c P_ci < ks;  w_ij = <k_i/|k_i|, k_j/|k_j|>, k the keys

Published defaults: pd = 0.5, ks = 1 where they are used; the released configurations leave both out, and so does this
class. Paper and code differ: the code normalises each *channel* of the keys over the positions, and its ViT keys have
passed the output projection. `faithful_to` chooses. In both, weights may be negative and rows do not sum to 1, and if
no class passes denoising, all scores are -100 and the first class wins. The code feeds CLIP with ImageNet's pixel
statistics, GELU and eps 1e-6; here the backbone's own are used.
"""

import torch
import torch.nn.functional as F
from open_clip import OPENAI_IMAGENET_TEMPLATES

from vlmcourse.backbone import vision
from vlmcourse.backbone.features import Encoder, image_features
from vlmcourse.methods.base import MethodCard, full_precision, register
from vlmcourse.methods.class_text import check_templates, class_features
from vlmcourse.methods.dense import DenseMethod, as_grid, local_encoder
from vlmcourse.tasks.split import Split

SCENE_TEMPLATES = (
    "there is a {} in the scene.", "there is the {} in the scene.", "this is a {} in the scene.",
    "this is the {} in the scene.", "this is one {} in the scene.",
)  # fmt: skip
PAPER_TEMPLATES = tuple(template("{}") for template in OPENAI_IMAGENET_TEMPLATES) + SCENE_TEMPLATES  # 85
SOURCES = ("paper", "code")
DROPPED = -100.0


def denoise(scores, pd, scale):
    """Prompt denoising: scores (B, C, P), where a class that nowhere reaches probability pd gets DROPPED."""
    likely = (scale * scores).softmax(dim=1).amax(dim=2, keepdim=True) >= pd  # (B, C, 1)
    return torch.where(likely, scores, torch.full_like(scores, DROPPED))


def smooth(scores, keys, ks, scale, faithful_to="paper"):
    """Key smoothing: probabilities (B, C, P) of scores (B, C, P), smoothed by keys (B, P, Dk) where none reaches ks."""
    probabilities = (scale * scores).softmax(dim=1)
    keys = F.normalize(keys.to(scores), dim=-1 if faithful_to == "paper" else -2)
    smoothed = probabilities @ (keys @ keys.transpose(1, 2))  # w is symmetric
    return torch.where(probabilities.amax(dim=1, keepdim=True) < ks, smoothed, probabilities)


def keys_encoder(faithful_to, side=None):
    """Keys of the image tower's last layer at every position, (n, P, Dk)."""

    def of_batch(backbone, pixels):
        visual = backbone.model.visual
        if not backbone.is_vit:
            x = visual.stem(pixels)
            for layer in (visual.layer1, visual.layer2, visual.layer3, visual.layer4):
                x = layer(x)
            return visual.attnpool.k_proj(x.flatten(2).transpose(1, 2))
        x = visual.ln_pre(vision.embed(visual, pixels)[0])
        *first, last = visual.transformer.resblocks
        for block in first:
            x = block(x)
        attn, rows = last.attn, slice(last.attn.embed_dim, 2 * last.attn.embed_dim)
        bias = None if attn.in_proj_bias is None else attn.in_proj_bias[rows]
        keys = F.linear(last.ln_1(x)[:, 1:], attn.in_proj_weight[rows], bias)
        return attn.out_proj(keys) if faithful_to == "code" else keys

    def encode(backbone, images, batch_size=256):
        ready = isinstance(images, torch.Tensor) and images.is_floating_point()
        pixels = (images if ready else backbone.preprocess(images)).to(backbone.device, backbone.dtype)
        if side is not None:
            pixels = F.interpolate(pixels, size=(side, side), mode="bicubic", align_corners=False, antialias=True)
        with vision.plain_attention(), torch.no_grad():
            return torch.cat([of_batch(backbone, part) for part in pixels.split(batch_size)])

    return Encoder(f"keys:{faithful_to}" + (f"@{side}" if side else ""), encode, ndim=3, unit=False)


@register
class MaskCLIP(DenseMethod):
    """path: None is the paper's form, "value+residual" for a ViT (the last block with attention = identity) and "value"
    for a ResNet; "value" drops residual and MLP too (ClearCLIP); "full" keeps attention: the reference. templates: None
    takes those of the split, PAPER_TEMPLATES are the paper's 85. pd, ks: thresholds of the refinements, 0 switches them
    off. faithful_to: "paper" or "code". scale: s, None: the backbone's. side: images are enlarged to side x side pixels
    for a finer grid."""

    card = MethodCard(
        name="maskclip",
        title="Extract Free Dense Labels from CLIP",
        venue="ECCV",
        year=2022,
        url="https://arxiv.org/abs/2112.01071",
        family="other",
        setup="dense, zero-shot",
        learned="nothing",
        idea="CLIP's pooled feature averages values that already live beside the words: classify each of them.",
        acts_on="last image layer",
        needs="internals",
    )

    def __init__(self, backbone, *, path=None, templates=None, pd=0.0, ks=0.0, faithful_to="paper", scale=None,
                 side=None, seed=0, progress=False):  # fmt: skip
        super().__init__(backbone, seed=seed, progress=progress)
        path = path or ("value+residual" if backbone.is_vit else "value")
        allowed = vision.PATHS if backbone.is_vit else ("value", "full")
        if path not in allowed:
            raise ValueError(f"path={path!r} must be one of {allowed} for {backbone.name!r}")
        for name, value in (("pd", pd), ("ks", ks)):
            if not isinstance(value, int | float) or not 0 <= value <= 1:
                raise ValueError(f"{name}={value!r} must be a probability in [0, 1]")
        if faithful_to not in SOURCES:
            raise ValueError(f"faithful_to={faithful_to!r} must be one of {SOURCES}")
        if side is not None and (not isinstance(side, int) or side < 1):
            raise ValueError(f"side={side!r} must be a number of pixels that the tower's stride divides, or None")
        self.path, self.pd, self.ks, self.side, self.faithful_to = path, pd, ks, side, faithful_to
        self.scale = backbone.logit_scale if scale is None else scale
        self.own_templates = None if templates is None else check_templates(templates)
        self.encoder, self.keys = local_encoder(path, side), keys_encoder(faithful_to, side)

    def _fit(self, train, val):
        self.templates = self.own_templates or self.templates
        self._write(self)

    @staticmethod
    def _write(method):
        method.text = class_features(method.backbone, method.class_names, method.templates)  # (C, E)

    def inputs(self, x):
        """(N, P, E) features, L2-normalised, and behind them the keys (N, P, Dk) where they are used."""
        given = isinstance(x, torch.Tensor) and x.ndim == 3 and x.is_floating_point()
        if given or not self.ks:
            return x if given and self.ks else super().inputs(x)
        keys = image_features(self.backbone, x, encoder=self.keys, normalise=False) if isinstance(x, Split) else (
            self.keys(self.backbone, x)
        )  # fmt: skip
        return torch.cat([super().inputs(x), full_precision(keys).to(self.backbone.device)], dim=-1)

    def _maps(self, features):
        width = self.backbone.embed_dim
        scores = self.text @ features[..., :width].transpose(1, 2)  # (B, C, P)
        return as_grid(self.refine(scores, features[..., width:]).transpose(1, 2))

    def refine(self, scores, keys):
        """Scores (B, C, P) after the refinements that are switched on: denoising first, as in the code."""
        if self.pd:
            scores = denoise(scores, self.pd, self.scale)
        return smooth(scores, keys, self.ks, self.scale, self.faithful_to) if self.ks else scores

    def for_classes(self, class_names, templates=None):
        moved = self._moved(class_names, templates)
        self._write(moved)
        return moved
