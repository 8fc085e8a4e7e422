"""CoCoOp: Conditional Prompt Learning for Vision-Language Models, Zhou et al., CVPR 2022, arXiv 2203.05557.

    pi(x)     = W_2 ReLU(W_1 f + b_1) + b_2      f (B, E) normalised image features, pi (B, D): see meta_net.py
    v_m(x)    = v_m + pi(x)                      one shift per image, for all M context tokens: (B, M, D)
    t_c(x)    = [v_1(x) ... v_M(x), name_c .]    B x C prompts
    w_c(x)    = normalise(Text(t_c(x)))          (B, C, E), every image has its own classifier
    logits_bc = s <f_b, w_c(x_b)>                (B, C), s = exp(logit_scale);   loss = CE(logits, y)

v starts at the words "a photo of a" (M = 4), the net at PyTorch's start: pi is not zero at the first step. Recipe of
the paper: SGD 2e-3 as in CoOp, batch 1, 10 epochs, 16 shots, ViT-B/16. The official code loops over the images of a
batch, one text pass each; here all B x C prompts run together, cut behind the longest one, start token and context once
per image instead of once per prompt, in chunks of images whose activations are not kept but computed again (all exact).
"""

import torch
import torch.nn.functional as F
from torch.utils.checkpoint import checkpoint

from vlmcourse.methods.base import MethodCard, register
from vlmcourse.methods.meta_net import MetaNet
from vlmcourse.methods.text_prompts.coop import CoOp


@register
class CoCoOp(CoOp):
    """hidden: width of the net's hidden layer, None for E // 16. zero_start: the net's last layer starts at zero, so
    that training starts where CoOp's does (not in the paper). max_prompts: prompts in the text tower at a time, whole
    images, at least one: it bounds the memory. The rest as in CoOp; the paper has neither CSC nor other positions."""

    card = MethodCard(
        name="cocoop",
        title="Conditional Prompt Learning for Vision-Language Models",
        venue="CVPR",
        year=2022,
        url="https://arxiv.org/abs/2203.05557",
        family="text prompt",
        setup="few-shot supervised",
        learned="context vectors (M, D) and a two-layer net from image features to shifts, E -> E // 16 -> D",
        idea="Shift the learned context by what a small net reads from each image, to generalise to unseen classes.",
        acts_on="text input",
        needs="inputs",
    )

    def __init__(
        self,
        backbone,
        *,
        ctx_init="a photo of a",
        hidden=None,
        zero_start=False,
        epochs=10,
        batch_size=1,
        max_prompts=2048,
        **coop,
    ):
        super().__init__(backbone, ctx_init=ctx_init, epochs=epochs, batch_size=batch_size, **coop)
        if not isinstance(max_prompts, int) or max_prompts < 1:
            raise ValueError(f"max_prompts={max_prompts!r} must be a whole number >= 1")
        self.hidden, self.zero_start, self.max_prompts = hidden, zero_start, max_prompts
        self.meta_net = self._initial_meta_net()

    def _fit(self, train, val):
        self.meta_net = self._initial_meta_net()
        super()._fit(train, val)

    def _initial_meta_net(self):
        backbone = self.backbone
        return MetaNet(
            backbone.embed_dim,
            backbone.text_width,
            self.hidden,
            seed=self.seed + 2_000_003,  # another stream than a random context's
            zero_start=self.zero_start,
            device=backbone.device,
            dtype=torch.promote_types(backbone.dtype, torch.float32),
        )

    def _parameters(self):
        return [self.ctx, *self.meta_net.parameters()]

    def shifts(self, features):
        """pi (B, D) of normalised image features (B, E)."""
        return self.meta_net(features)

    def text_features(self, features):
        """(B, C, E) L2-normalised: for every image the class features of its own context, differentiable."""
        ctx = self.ctx + self.shifts(features)[:, None, None]  # (B, 1, M, D), or (B, C, M, D) with CSC
        return self.prompts.encode(ctx, share_prefix=self.share_prefix)

    def _image_logits(self, features):
        return self.backbone.logit_scale * torch.einsum("be,bce->bc", features, self.text_features(features))

    def _logits(self, features):
        """(B, C), a few images at a time; with more than one chunk, gradients run the text tower a second time."""
        chunks = features.split(max(1, self.max_prompts // len(self.class_names)))
        if len(chunks) > 1 and torch.is_grad_enabled():
            return torch.cat([checkpoint(self._image_logits, chunk, use_reentrant=False) for chunk in chunks])
        return torch.cat([self._image_logits(chunk) for chunk in chunks])

    def _loss(self, features, labels):
        return F.cross_entropy(self._logits(features), labels)

    def _freeze(self):
        self.ctx = self.ctx.detach()
        self.meta_net.requires_grad_(False)  # and nothing to cache: the text depends on the image

    def learned_parameters(self):
        if not self._fitted:
            return {}
        net = {f"meta_net.{name}": tensor.detach() for name, tensor in self.meta_net.named_parameters()}
        return super().learned_parameters() | net
