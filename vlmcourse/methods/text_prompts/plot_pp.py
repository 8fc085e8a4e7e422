"""PLOT++: PLOT with prompts in both towers (release of the PLOT authors, Chen et al., ICLR 2023, arXiv 2210.01253).

The patch tokens of a ViT do not serve PLOT, so the "local" features are learned: the image tower runs once for each of
V sets of visual prompts, and the V class tokens that come out stand where PLOT has P positions.

    F_v = normalise(Image([tokens ; vctx_v]))  (V, B, E)   vctx (V, M_v, Dv), joins behind the patches, before ln_pre
    G_n = normalise(Text([ctx_n, name .]))     (N, C, E)   ctx (N, M, D), starts from N hand-written phrases
    score = <T, F G^T>, T (V, N) entropic transport as in PLOT

    stage 1 (vision)   CE(s score + s <normalise(mean_v F), normalise(mean_n G)>, y) over vctx; the text is fixed
    stage 2 (joint)    CE(s score, y) over vctx and ctx, from the end of stage 1            (means before normalising)

Official recipe: ViT-B/16, V = N = 4, M_v = 2, M = 4 words, vctx ~ N(0, 0.02^2), batch 32, CoOp's epochs in each stage.
There stage 1 runs for seed 1 only and serves all seeds; here each fit runs its own. The phrases are data set by data
set in the official code; the default is the set of Caltech101, Cars and SUN397.
"""

import torch
import torch.nn.functional as F

from vlmcourse import training
from vlmcourse.methods.augment import TrainingFeatures
from vlmcourse.methods.base import MethodCard, register
from vlmcourse.methods.text_prompts.coop import epochs_for
from vlmcourse.methods.text_prompts.plot import PLOT, TEST_BATCH
from vlmcourse.methods.vision_prompts import TOKENS, encode_prompted, normal_prompts

PHRASES = ("a photo of a", "this is a photo", "this is picture of", "one picture of a")
STAGES = {"vision": True, "joint": False}  # whether the pooled term is added (TRADE_OFF in the official code)


@register
class PLOTPlusPlus(PLOT):
    """n_vision_prompts: V. n_ctx_vision: M_v. ctx_init: phrases, the first N are used, or None: noise (n_ctx tokens).
    stages: both in turn, or one of them. vision_epochs: of stage 1 (None: as many as stage 2). Other arguments are
    PLOT's."""

    card = MethodCard(
        name="plot_pp",
        title="PLOT: Prompt Learning with Optimal Transport for Vision-Language Models (PLOT++)",
        venue="ICLR",
        year=2023,
        url="https://arxiv.org/abs/2210.01253",
        family="text prompt",
        setup="few-shot supervised",
        learned="N contexts (N, M, D) and V sets of visual prompts (V, M_v, Dv)",
        idea="On a ViT, learn what the prompts are compared with: several prompted views of the image, then transport.",
        acts_on="text and image input",
        needs="internals",
        notebook="notebooks/*_text_prompts/*_plot.ipynb",
    )

    def __init__(
        self,
        backbone,
        *,
        n_prompts=4,
        n_vision_prompts=4,
        n_ctx_vision=2,
        n_ctx=4,
        ctx_init=PHRASES,
        stages=("vision", "joint"),
        vision_epochs=None,
        batch_size=32,
        **plot,
    ):
        backbone.require_vit("PLOT++")
        for name in ("path", "pooled_term"):
            if name in plot:
                raise ValueError(f"{name}={plot[name]!r} is not for PLOT++: visual prompts and stages decide it")
        for name, value in (("n_vision_prompts", n_vision_prompts), ("n_ctx_vision", n_ctx_vision)):
            if not isinstance(value, int) or value < 1:
                raise ValueError(f"{name}={value!r} must be a whole number >= 1")
        if tuple(stages) not in (("vision", "joint"), ("vision",), ("joint",)):
            raise ValueError(f"stages={stages!r} must be ('vision', 'joint') or one of them")
        super().__init__(backbone, n_prompts=n_prompts, n_ctx=n_ctx, ctx_init=ctx_init, batch_size=batch_size, **plot)
        self.n_vision_prompts, self.n_ctx_vision = n_vision_prompts, n_ctx_vision
        self.stages, self.vision_epochs = tuple(stages), vision_epochs

    def _choose_encoder(self, path):
        self.encoder = TOKENS

    def _fit(self, train, val):
        self.prompts, self.ctx = self._prompts(self.class_names), self._initial_context()
        shape = (self.n_vision_prompts, self.n_ctx_vision)
        self.ctx_vision = normal_prompts(self.backbone, *shape, seed=self.seed + 1, std=self.init_std).requires_grad_()
        options = {"views": self.views, "crop_scale": self.crop_scale, "seed": self.seed, "encoder": self.encoder}
        features = TrainingFeatures(self.backbone, train, **options)
        epochs = epochs_for(train) if self.epochs is None else self.epochs
        for stage in self.stages:
            self.pooled_term = STAGES[stage]
            if stage == "vision":
                self._freeze_text()
                learned, prefix = [self.ctx_vision], "vision_"
                rounds = epochs if self.vision_epochs is None else self.vision_epochs
            else:
                learned, prefix, rounds = [self.ctx.requires_grad_(), self.ctx_vision], "", epochs

            def loss(indices, step):
                text = self.text_features() if self.ctx.requires_grad else self.text
                return F.cross_entropy(self._scores(features(indices), text), features.labels[indices])

            history = training.fit(
                learned, loss, len(train), epochs=rounds, seed=self.seed, progress=self.progress, **self.recipe
            )
            self.history |= {prefix + name: values for name, values in history.items()}
        self._freeze()

    @torch.no_grad()
    def _freeze_text(self):
        self.text = self.text_features()

    def _freeze(self):
        super()._freeze()
        self.ctx_vision = self.ctx_vision.detach()

    def _views(self, features):
        """Image tokens (B, 1 + P, Dv) as (B, V, E) prompted views and their (B, E) mean."""
        sets = self.ctx_vision.unsqueeze(1)  # (V, 1, M_v, Dv)
        views = encode_prompted(self.backbone, features, sets, normalise=False).transpose(0, 1)  # (B, V, E)
        return F.normalize(views, dim=-1), F.normalize(views.mean(dim=1), dim=-1)

    def _batches(self, features):
        return features.split(max(1, TEST_BATCH // self.n_vision_prompts))

    def learned_parameters(self):
        return {"ctx": self.ctx, "ctx_vision": self.ctx_vision} if self._fitted else {}
