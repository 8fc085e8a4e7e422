"""Zero-shot CLIP: Learning Transferable Visual Models From Natural Language Supervision, Radford et al., ICML 2021,
arXiv 2103.00020, section 3.1.

    w_c    = normalise(mean_k normalise(Text(template_k(name_c))))   (C, E), see class_text.py
    logits = s f W^T                   (B, C); f (B, E) L2-normalised image features, s = exp(logit_scale)
"""

from vlmcourse.methods.base import Method, MethodCard, register
from vlmcourse.methods.class_text import check_templates, class_features


@register
class ZeroShot(Method):
    """templates: one sentence with a {}, or several, which are ensembled; None: those of the split given to fit."""

    card = MethodCard(
        name="zero_shot",
        title="Learning Transferable Visual Models From Natural Language Supervision",
        venue="ICML",
        year=2021,
        url="https://arxiv.org/abs/2103.00020",
        family="baseline",
        setup="zero-shot",
        learned="nothing",
        idea="A sentence about each class is a classifier: compare its feature with the image's.",
        acts_on="text only",
        needs="outputs",
    )

    def __init__(self, backbone, *, templates=None, seed=0, progress=False):
        super().__init__(backbone, seed=seed, progress=progress)
        self.own_templates = None if templates is None else check_templates(templates)

    def _fit(self, train, val):
        self.templates = self.own_templates or self.templates
        self.text = class_features(self.backbone, self.class_names, self.templates)  # (C, E)

    def _logits(self, features):
        return self.backbone.logit_scale * features @ self.text.T

    def for_classes(self, class_names, templates=None):
        moved = self._moved(class_names, templates)
        moved.text = class_features(moved.backbone, moved.class_names, moved.templates)
        return moved
