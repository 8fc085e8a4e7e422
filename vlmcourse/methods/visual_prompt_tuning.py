"""VPT: Visual Prompt Tuning, Jia et al., ECCV 2022, arXiv 2203.12119, as the course's prompted image tower.

    x_0 = [CLS ; patches ; drop(P_0)]                        (B, 1 + P + M, Dv)  prompts carry no position
    x_i = Block_i([CLS ; patches ; drop(P_{i-1})])           deep: what block i-1 made of its prompts is thrown away
    x_i = Block_i(x_{i-1})                                   from block J on, and everywhere in the shallow form (J = 1)
    f   = normalise(Proj(ln_post(x_L[CLS])))                 (B, E)
    logits = s f W^T, loss = CE                              W (C, E) frozen text features of the hand-written prompt

P_0 ... P_{J-1} (J, M, Dv) are all that is learned; they start uniform in (-v, v), v = sqrt(6 / (3 p^2 + Dv)). The paper
tunes a ViT without a text tower and learns a linear head beside the prompts; here, as in the code bases that bring it
to CLIP, the text features are the head. These code bases differ in where prompts join: `before_ln_pre` matters (ln_pre
brings a small prompt to unit scale), the order within the sequence does not, as attention has no mask.

The paper searches rate, weight decay and M for each data set, with SGD, 100 epochs, 10 of them warm-up. The recipe here
is the one of the CLIP code bases: SGD with momentum, one warm-up epoch, cosine. Patch tokens are computed once; the
blocks run forwards and backwards at every step, which makes this the expensive half of text and image prompts.
"""

import torch
import torch.nn.functional as F

from vlmcourse import training
from vlmcourse.methods.augment import TrainingFeatures
from vlmcourse.methods.base import Method, MethodCard, register
from vlmcourse.methods.class_text import class_features
from vlmcourse.methods.prompt_attention import dropped
from vlmcourse.methods.vision_prompts import TOKENS, encode_prompted, normal_prompts, uniform_prompts

TEST_BATCH = 256  # images that pass the prompted tower at once outside of training
INITS = {"uniform": uniform_prompts, "normal": normal_prompts}


@register
class VisualPromptTuning(Method):
    """n_ctx_vision: M prompts per layer. depth: J, the number of layers with prompts of their own; 1 is shallow, None
    all of them (deep). init: "uniform" (the paper's) or "normal" (std 0.02, as in MaPLe's family). before_ln_pre: True
    lets ln_pre normalise the prompts of the first layer. dropout: of the prompts, in training. views, crop_scale: see
    augment.TrainingFeatures.

    A descendant with another source of prompts overrides `_start`, `_parameters` and `visual_prompts` (and
    `text_features`, where it learns the text side too); one with another loss, `_loss`."""

    card = MethodCard(
        name="visual_prompt_tuning",
        title="Visual Prompt Tuning",
        venue="ECCV",
        year=2022,
        url="https://arxiv.org/abs/2203.12119",
        family="visual prompt",
        setup="few-shot supervised",
        learned="visual prompts (J, M, Dv), for the first layer or for every layer of the image tower",
        idea="Let a few learned tokens join the patches of a frozen vision transformer.",
        acts_on="image tower",
        needs="internals",
        test="tests/methods/test_visual_prompt_tuning.py",
        notebook="notebooks/*_text_visual_prompts/*_upt.ipynb",
    )
    encoder = TOKENS

    def __init__(
        self,
        backbone,
        *,
        n_ctx_vision=5,
        depth=1,
        init="uniform",
        before_ln_pre=False,
        dropout=0.0,
        epochs=100,
        lr=2.5e-3,
        batch_size=32,
        momentum=0.9,
        weight_decay=5e-4,
        warmup_epochs=1,
        views=1,
        crop_scale=(0.08, 1.0),
        seed=0,
        progress=False,
    ):
        super().__init__(backbone, seed=seed, progress=progress)
        backbone.require_vit(type(self).__name__)
        layers = len(backbone.model.visual.transformer.resblocks)
        depth = layers if depth is None else depth
        if not isinstance(n_ctx_vision, int) or n_ctx_vision < 0:
            raise ValueError(f"n_ctx_vision={n_ctx_vision!r} must be a whole number >= 0")
        if not isinstance(depth, int) or not 1 <= depth <= layers:
            raise ValueError(f"depth={depth!r} must be a whole number from 1 to the tower's {layers} layers, or None")
        if init not in INITS:
            raise ValueError(f"init={init!r} must be one of {tuple(INITS)}")
        if not 0 <= dropout < 1:
            raise ValueError(f"dropout={dropout!r} must be at least 0 and less than 1")
        self.n_ctx_vision, self.depth, self.init, self.before_ln_pre = n_ctx_vision, depth, init, before_ln_pre
        self.dropout, self.epochs, self.views, self.crop_scale = dropout, epochs, views, crop_scale
        self.recipe = {"lr": lr, "batch_size": batch_size, "momentum": momentum, "weight_decay": weight_decay}
        self.recipe["warmup_epochs"] = warmup_epochs
        self.training = False  # True inside fit: prompts are then dropped at random

    def _fit(self, train, val):
        self._start()
        options = {"views": self.views, "crop_scale": self.crop_scale, "seed": self.seed, "encoder": self.encoder}
        images = TrainingFeatures(self.backbone, train, **options)
        self.draw = torch.Generator().manual_seed(self.seed + 2_000_003)  # of the dropout
        learned = [tensor.requires_grad_() for tensor in self._parameters().values()]

        def loss(indices, step):
            return self._loss(images(indices), images.labels[indices], indices)

        self.training = True
        try:
            if any(tensor.numel() for tensor in learned):
                self.history = training.fit(
                    self._groups(), loss, len(train), epochs=self.epochs, seed=self.seed, progress=self.progress,
                    on_epoch=self._after_epoch, **self.recipe,
                )  # fmt: skip
        finally:
            self.training = False
        self._freeze()

    def _start(self):
        """What is frozen, and the first values of what is learned."""
        self.text = class_features(self.backbone, self.class_names, self.templates)  # (C, E)
        self.ctx_vision = INITS[self.init](self.backbone, self.depth, self.n_ctx_vision, seed=self.seed)  # (J, M, Dv)

    def _parameters(self):
        """{name: leaf tensor} of all that is learned."""
        return {"ctx_vision": self.ctx_vision}

    def _groups(self):
        """The same for training.fit, for a descendant with groups that have settings of their own."""
        return list(self._parameters().values())

    def _after_epoch(self, epoch, history):
        """Called after every epoch, for a descendant that counts them; True ends the training."""

    def _loss(self, tokens, labels, indices):
        """Loss of one batch: image tokens (b, 1 + P, Dv), labels (b,), their places in the training split (b,)."""
        return F.cross_entropy(self._scores(self.image_features(tokens)), labels)

    def _scores(self, features):
        return self.backbone.logit_scale * features @ self.text_features().to(features).T  # (b, C)

    def visual_prompts(self):
        """(J, M, Dv), or (J, b, M, Dv) with prompts for each image: row i joins before block i."""
        return dropped(self.ctx_vision, self.dropout if self.training else 0.0, self.draw)

    def text_features(self):
        """(C, E) L2-normalised class features: here the frozen ones of the hand-written prompts."""
        return self.text

    def image_features(self, tokens, prompts=None):
        """(b, E) L2-normalised features of image tokens with prompts (J, M, Dv) or (J, b, M, Dv); None: the learned."""
        shallow, *deep = self.visual_prompts() if prompts is None else prompts
        return encode_prompted(
            self.backbone, tokens, shallow, dict(enumerate(deep, start=1)), before_ln_pre=self.before_ln_pre
        )

    def _freeze(self):
        """Called after training: what was learned stays as it is."""
        for tensor in self._parameters().values():
            tensor.requires_grad_(False).grad = None

    def _logits(self, tokens):
        return torch.cat([self._scores(self.image_features(part)) for part in tokens.split(TEST_BATCH)])

    def for_classes(self, class_names, templates=None):
        moved = self._moved(class_names, templates)
        moved.text = class_features(moved.backbone, moved.class_names, moved.templates)
        return moved

    def learned_parameters(self):
        return {name: tensor.detach() for name, tensor in self._parameters().items()} if self._fitted else {}
