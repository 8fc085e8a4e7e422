"""KgCoOp: Visual-Language Prompt Tuning with Knowledge-guided Context Optimization, Yao et al., CVPR 2023,
arXiv 2303.13283.

    w_c     = normalise(Text([v_1 ... v_M, name_c .]))     (C, E), v (M, D) learned, as in CoOp
    g_c     = normalise(Text(hand prompt of name_c))       (C, E), frozen, computed once: the "general knowledge"
    L_kg    = 1 - mean_c <w_c, g_c>                        distance "cosine", as the official code has it
            = mean_c |w_c - g_c|^2                         distance "squared", as the paper is quoted: twice the above
    loss    = CE(s f W^T, y) + weight L_kg                 weight: lambda of the paper, W of the code, 8

So weight = 8 of the code is lambda = 4 in the paper's formula. Without cross-entropy the best context is the hand
prompt itself: the larger the weight, the closer the classifier stays to zero-shot CLIP, for new class names too.
Recipe: v starts at "a photo of a" (M = 4), SGD 2e-3 as in CoOp, batch 128, 100 epochs, 16 shots, ViT-B/16. The official
code keeps g in half precision; here it has the precision of the rest. In training L_kg costs no more than a product of
two (C, E) matrices, at inference nothing: there the method is CoOp.
"""

import torch
import torch.nn.functional as F

from vlmcourse.methods.base import MethodCard, register
from vlmcourse.methods.class_text import check_templates, class_features
from vlmcourse.methods.text_prompts.coop import CoOp

DISTANCES = ("cosine", "squared")


@register
class KgCoOp(CoOp):
    """weight: of the distance to the hand prompts; 0 is CoOp. distance: "cosine" or "squared", see above. templates:
    the hand prompt, or several, whose features are averaged; None: those of the split given to fit.
    The rest as in CoOp. History: "loss", its two parts "cross_entropy" and "distance" (before the weight), "lr"."""

    card = MethodCard(
        name="kgcoop",
        title="Visual-Language Prompt Tuning with Knowledge-guided Context Optimization",
        venue="CVPR",
        year=2023,
        url="https://arxiv.org/abs/2303.13283",
        family="text prompt",
        setup="few-shot supervised",
        learned="context vectors (M, D)",
        idea="Keep the class features of the learned prompt close to those of the hand-written one.",
        acts_on="text input",
        needs="inputs",
    )

    def __init__(
        self,
        backbone,
        *,
        weight=8.0,
        distance="cosine",
        templates=None,
        ctx_init="a photo of a",
        epochs=100,
        batch_size=128,
        **coop,
    ):
        super().__init__(backbone, ctx_init=ctx_init, epochs=epochs, batch_size=batch_size, **coop)
        if isinstance(weight, bool) or not isinstance(weight, int | float) or not 0 <= weight < float("inf"):
            raise ValueError(f"weight={weight!r} must be a number >= 0")
        if distance not in DISTANCES:
            raise ValueError(f"distance={distance!r} must be one of {DISTANCES}")
        self.weight, self.distance = weight, distance
        self.own_templates = None if templates is None else check_templates(templates)

    def _fit(self, train, val):
        self.templates = self.own_templates or self.templates
        self.hand = class_features(self.backbone, self.class_names, self.templates)  # (C, E)
        super()._fit(train, val)

    def distance_to_hand(self, text):
        """The mean distance of class features (C, E), L2-normalised, to those of the hand prompts; a scalar tensor."""
        cosine = 1 - (text * self.hand).sum(dim=-1).mean()
        return cosine if self.distance == "cosine" else 2 * cosine  # |a - b|^2 = 2 (1 - <a, b>) for unit vectors

    def _loss(self, features, labels):
        text = self.text_features()  # (C, E)
        cross_entropy = F.cross_entropy(self.backbone.logit_scale * features @ text.T, labels)
        distance = self.distance_to_hand(text)
        return cross_entropy + self.weight * distance, {"cross_entropy": cross_entropy, "distance": distance}

    @torch.no_grad()
    def hand_distance(self):
        """Distance of what was learned to the hand prompts of the present class names, as a number."""
        self._require_fit()
        return self.distance_to_hand(self.text).item()

    def for_classes(self, class_names, templates=None):
        moved = super().for_classes(class_names, templates)
        moved.hand = class_features(moved.backbone, moved.class_names, moved.templates)
        return moved
