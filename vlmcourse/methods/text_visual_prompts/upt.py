"""UPT: Unified Vision and Language Prompt Learning, Zang, Li, Zhou, Huang, Loy, arXiv 2210.07225 (2022).

One set of tokens that belongs to neither modality goes through a tiny transformer and is then split in two:

    Z = LN_1(U + drop(Attention(U)))                        U (n, D) learned, n = 2 M; one head
    Y = Z + drop(W_2 drop(ReLU(W_1 LN_2(Z) + b_1)) + b_2)   (n, D)
    T = Y[:M]                              (M, D)           text prompts:   [SOS | T | name_c . EOT]
    V = Y[M:] W_v + b_v                    (M, Dv)          visual prompts: ln_pre([CLS ; patches ; V]), shallow
    logits = s f(V) W(T)^T, loss = CE      (B, C)           U, the transformer and W_v, b_v are learned; CLIP is frozen

The paper's case for it: prompts in the text alone fail where the images of a class differ much, prompts in the image
tower alone where the class names are hard to tell apart.

Paper and released code, as far as they are known (the public code is a later commit of the author; the paper's own
equations could not be checked):
- In the released code the attention does not mix anything (see prompt_attention.py): T does not depend on U[M:] nor V
  on U[:M]. Here tokens attend to each other, as the idea asks for; `release_compat=True` gives the released behaviour,
  with its two passes, one for T and one for V, that see different dropout.
- `block="paper"`: U' = Attention(U) + LN_1(U), Y = FFN(LN_2(U')) + LN_2(U'), the form attributed to the paper
  (unverified). The default is the block of the code, above.
- `depth` > 1: the released form is shallow; n = (1 + J) M tokens for prompts at the first J layers are our extension.
Recipe: M = 4, U ~ N(0, 0.02^2), SGD 0.002 as in CoOp, batch 32, dropout 0.1; 50, 100 or 200 epochs, ViT-B/16. After
training nothing depends on the image: T, V and W(T) are constants.
"""

import torch
import torch.nn.functional as F
from torch import nn

from vlmcourse.methods.base import MethodCard, register
from vlmcourse.methods.context import ClassPrompts, random_context
from vlmcourse.methods.prompt_attention import PromptAttention, dropped, seeded
from vlmcourse.methods.visual_prompt_tuning import VisualPromptTuning

BLOCKS = ("release", "paper")


class UnifiedTransformer(nn.Module):
    """U (n, D) to Y (n, D), and by `to_vision` from D to Dv; see above for `block`."""

    def __init__(self, width, vision_width, *, mix=True, block="release", dropout=0.1):
        super().__init__()
        self.block, self.dropout = block, dropout
        self.attention = PromptAttention(width, mix=mix, dropout=dropout)
        self.ln_1, self.ln_2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.linear_1, self.linear_2 = nn.Linear(width, width), nn.Linear(width, width)
        self.to_vision = nn.Linear(width, vision_width)

    def forward(self, u, draw=None):
        """draw: generator of the dropout in training; None: no dropout."""
        p = 0.0 if draw is None else self.dropout

        def feed_forward(z):
            return dropped(self.linear_2(dropped(F.relu(self.linear_1(z)), p, draw)), p, draw)

        attended = dropped(self.attention(u, draw), p, draw)
        if self.block == "paper":
            normed = self.ln_2(attended + self.ln_1(u))
            return feed_forward(normed) + normed
        z = self.ln_1(u + attended)
        return z + feed_forward(self.ln_2(z))


@register
class UPT(VisualPromptTuning):
    """n_ctx: M, for each modality. dropout: inside the transformer. release_compat, block, depth: see above. The rest
    as in VisualPromptTuning, without n_ctx_vision and init."""

    card = MethodCard(
        name="upt",
        title="Unified Vision and Language Prompt Learning",
        venue="arXiv",
        year=2022,
        url="https://arxiv.org/abs/2210.07225",
        family="text-visual prompt",
        setup="few-shot supervised",
        learned="unified tokens (2 M, D) and the tiny transformer that writes prompts for both towers",
        idea="Let the prompts of both towers come from one set of tokens that a tiny transformer mixes and splits.",
        acts_on="text and image input",
        needs="internals",
    )

    def __init__(
        self,
        backbone,
        *,
        n_ctx=4,
        release_compat=False,
        block="release",
        dropout=0.1,
        epochs=200,
        lr=2e-3,
        init_std=0.02,
        before_ln_pre=True,
        **visual,
    ):
        for name in ("n_ctx_vision", "init"):
            if name in visual:
                raise ValueError(f"{name}={visual[name]!r} is not for UPT: n_ctx and init_std decide it")
        if not isinstance(n_ctx, int) or n_ctx < 1:
            raise ValueError(f"n_ctx={n_ctx!r} must be a whole number >= 1")
        if block not in BLOCKS:
            raise ValueError(f"block={block!r} must be one of {BLOCKS}")
        options = {"dropout": dropout, "epochs": epochs, "lr": lr, "before_ln_pre": before_ln_pre}
        super().__init__(backbone, n_ctx_vision=n_ctx, **options, **visual)
        self.n_ctx, self.release_compat, self.block, self.init_std = n_ctx, release_compat, block, init_std

    def _start(self):
        backbone = self.backbone
        self.prompts = ClassPrompts(backbone, self.class_names, self.n_ctx)
        n = (1 + self.depth) * self.n_ctx
        self.uni_ctx = random_context(backbone, n, seed=self.seed, std=self.init_std)  # (n, D)
        options = {"mix": not self.release_compat, "block": self.block, "dropout": self.dropout}
        self.transformer = seeded(
            lambda: UnifiedTransformer(backbone.text_width, backbone.vision_width, **options), self.seed, backbone
        )

    def _parameters(self):
        return {"uni_ctx": self.uni_ctx, **dict(self.transformer.named_parameters())}

    def modal_prompts(self):
        """T (M, D) and V (J, M, Dv), differentiable in all that is learned."""
        draw = self.draw if self.training else None
        first = second = self.transformer(self.uni_ctx, draw)  # (n, D)
        if self.release_compat and self.training:
            second = self.transformer(self.uni_ctx, draw)
        visual = self.transformer.to_vision(second[self.n_ctx :])
        return first[: self.n_ctx], visual.unflatten(0, (self.depth, self.n_ctx))

    def _loss(self, tokens, labels, indices):
        text, visual = self.modal_prompts()
        features, classes = self.image_features(tokens, visual), self.prompts.encode(text)
        return F.cross_entropy(self.backbone.logit_scale * features @ classes.T, labels)

    def visual_prompts(self):
        return self.modal_prompts()[1]

    @torch.no_grad()
    def attention(self):
        """(n, n), rows sum to one: what each unified token takes from each; the first M are the text's."""
        self._require_fit()
        return self.transformer.attention.weights(self.uni_ctx)

    def _freeze(self):
        super()._freeze()
        with torch.no_grad():
            self.text = self.prompts.encode(self.modal_prompts()[0])  # (C, E)

    def for_classes(self, class_names, templates=None):
        moved = self._moved(class_names, templates)
        moved.prompts = ClassPrompts(moved.backbone, moved.class_names, moved.n_ctx)
        moved._freeze()
        return moved
