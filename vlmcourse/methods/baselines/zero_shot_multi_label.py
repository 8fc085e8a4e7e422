"""Zero-shot CLIP with several labels per image, the reference of DualCoOp and TaI-DPT.

    w_c  (E,)    class text from templates, as in single-label zero-shot CLIP
    pooled       score_c = s cos(f, w_c)                                          f the feature of the whole image
    regions      score_c = s sum_i a_ci cos(v_i, w_c),  a_c = softmax_i(beta cos(v_i, w_c)); v_0 = f, then N regions

These scores rank images. A probability needs something to compare with; `negative` names it, a template such as "a
picture without a {}": score_c becomes the difference of both scores (the regions weighted by w_c for both), and
sigmoid(score_c) the probability. Text towers know little about "without", which is what DualCoOp starts from.
"""

from vlmcourse.methods.base import MethodCard, register
from vlmcourse.methods.class_text import check_templates, class_features
from vlmcourse.methods.multi_label import MultiLabelMethod, cosines
from vlmcourse.methods.regions import pool_regions


@register
class ZeroShotMultiLabel(MultiLabelMethod):
    """templates: None: those of the split. negative: template(s) of "not there", or None. pooled: only the whole image.
    spatial_scale: beta. path: of the regions, see regions.py."""

    card = MethodCard(
        name="zero_shot_multi_label",
        title="Learning Transferable Visual Models From Natural Language Supervision",
        venue="ICML",
        year=2021,
        url="https://arxiv.org/abs/2103.00020",
        family="baseline",
        setup="multi-label, zero-shot",
        learned="nothing",
        idea="Compare a sentence about each class with the image and with its regions, without competition of classes.",
        acts_on="text only",
        needs="internals",
        notebook="notebooks/*_text_prompts/*_dualcoop.ipynb",
    )

    def __init__(self, backbone, *, templates=None, negative=None, pooled=False, spatial_scale=20.0, path=None, seed=0,
                 progress=False):  # fmt: skip
        super().__init__(backbone, path=path, seed=seed, progress=progress)
        if isinstance(spatial_scale, bool) or not isinstance(spatial_scale, int | float) or spatial_scale < 0:
            raise ValueError(f"spatial_scale={spatial_scale!r} must be a number >= 0")
        self.own_templates = None if templates is None else check_templates(templates)
        self.negative = None if negative is None else check_templates(negative)
        self.pooled, self.spatial_scale = pooled, spatial_scale
        self.gives_probabilities = negative is not None

    def _fit(self, train, val):
        self.templates = self.own_templates or self.templates
        self._encode_text()

    def _encode_text(self):
        self.text = class_features(self.backbone, self.class_names, self.templates)  # (C, E)
        self.text_without = None
        if self.negative is not None:
            self.text_without = class_features(self.backbone, self.class_names, self.negative)

    def _logits(self, features):
        features = features[:, :1] if self.pooled else features
        present = cosines(features, self.text)  # (B, C, 1 + N)
        score, _ = pool_regions(present, self.spatial_scale)
        if self.text_without is not None:
            score = score - pool_regions(cosines(features, self.text_without), self.spatial_scale, by=present)[0]
        return self.backbone.logit_scale * score

    def for_classes(self, class_names, templates=None):
        moved = self._moved(class_names, templates)
        moved._encode_text()
        return moved
