"""PLOT: Prompt Learning with Optimal Transport for Vision-Language Models, Chen et al., ICLR 2023, arXiv 2210.01253.

N prompts per class meet the P local features of an image; which prompt explains which part is a transport plan.

    G_c = (G_1c ... G_Nc)  (N, E)   text features of class c under N contexts (N, M, D), F (P, E) features of positions
    S_c = F G_c^T          (P, N)   cosines; cost C_c = 1 - S_c
    inner problem   T_c = argmin <T, C_c> - eps H(T)  over plans with uniform margins 1/P and 1/N     (transport.py)
    outer problem   min CE(s <T_c, S_c>, y) over the contexts, with T_c as a constant

so every step solves the inner problem for all B C pairs, then moves the prompts. With N = 1, equal prompts or
eps = inf the plan is uniform, and the score is the mean cosine of all pairs: the ablation "mean of prompts".

Official recipe: RN50, M = 16, N = 4, eps 0.1, batch 128 (32 for some data sets), CoOp's epochs; the local features are
the attention pool with every position as a query (path "full"); on ImageNet alone s <f, normalise(mean_n G_n)> is added
(`pooled_term`; G not normalised there). Official code ends Sinkhorn by a mean over the whole batch: `stop="batch"`.
The default ends each problem by itself, so that a prediction does not depend on its neighbours. The authors report that
patch tokens of a ViT do not serve PLOT, hence PLOT++ (plot_pp.py); here a ViT may be used, by any path.
"""

import torch
import torch.nn.functional as F

from vlmcourse.backbone.features import POOLED, local
from vlmcourse.methods.base import MethodCard, register
from vlmcourse.methods.context import nearest_words, random_context, words_context
from vlmcourse.methods.text_prompts.coop import CoOp
from vlmcourse.methods.transport import check_sinkhorn, sinkhorn

PAIRS = 2**24  # entries of the plans (b, C, P, N) that are formed at once
TEST_BATCH = 100


@register
class PLOT(CoOp):
    """n_prompts: N. ctx_init: starts in words in place of noise, the first N of a list; equally many tokens each, which
    are M. path: where local features come from, see Backbone.dense_features; "global" takes the pooled feature alone,
    P = 1. eps, max_iter, tolerance, stop: of `transport.sinkhorn`. pooled_term: see above. Other arguments are CoOp's;
    csc and class_token_position, which fail in the official code, work."""

    card = MethodCard(
        name="plot",
        title="PLOT: Prompt Learning with Optimal Transport for Vision-Language Models",
        venue="ICLR",
        year=2023,
        url="https://arxiv.org/abs/2210.01253",
        family="text prompt",
        setup="few-shot supervised",
        learned="N contexts (N, M, D), shared by all classes",
        idea="Several prompts per class share out the parts of an image by optimal transport, so they stay different.",
        acts_on="text input",
        needs="internals",
    )

    def __init__(
        self,
        backbone,
        *,
        n_prompts=4,
        n_ctx=16,
        ctx_init=None,
        csc=False,
        eps=0.1,
        max_iter=100,
        tolerance=1e-2,
        stop="each",
        path="full",
        pooled_term=False,
        batch_size=128,
        **coop,
    ):
        super().__init__(backbone, n_ctx=n_ctx, csc=csc, batch_size=batch_size, **coop)
        check_sinkhorn(eps, max_iter, tolerance, stop)
        if not isinstance(n_prompts, int) or n_prompts < 1:
            raise ValueError(f"n_prompts={n_prompts!r} must be a whole number >= 1")
        self.n_prompts, self.pooled_term, self.eps = n_prompts, pooled_term, eps
        self.inner = {"max_iter": max_iter, "tolerance": tolerance, "stop": stop}
        if ctx_init is not None:
            self._start_from_words(ctx_init)
        self._choose_encoder(path)

    def _choose_encoder(self, path):
        self.path = path
        paths = ("global", "value", "full") + ("value+residual",) * self.backbone.is_vit
        if self.path not in paths:
            raise ValueError(f"path={path!r} must be one of {paths} for this image tower")
        self.encoder = POOLED if self.path == "global" else local(self.path, with_pooled=self.pooled_term)

    def _start_from_words(self, ctx_init):
        if self.csc:
            raise ValueError(f"csc=True and ctx_init={ctx_init!r} exclude each other: words are shared by all classes")
        chosen = () if isinstance(ctx_init, str) else tuple(ctx_init)[: self.n_prompts]
        if len(set(chosen)) != self.n_prompts:
            raise ValueError(
                f"ctx_init={ctx_init!r} must be a list of n_prompts={self.n_prompts} different starts: "
                "equal prompts would get equal gradients for ever"
            )
        starts = [words_context(self.backbone, words) for words in chosen]  # N of (M, D)
        if len({len(start) for start in starts}) != 1:
            raise ValueError(f"ctx_init={chosen!r} must have equally many tokens each, not {[*map(len, starts)]}")
        self.start, self.ctx_init, self.n_ctx = torch.stack(starts), chosen, len(starts[0])

    def _initial_context(self):
        if self.start is not None:
            return self.start.clone()
        shape = (self.n_prompts, len(self.class_names)) if self.csc else (self.n_prompts,)
        return random_context(self.backbone, *shape, self.n_ctx, seed=self.seed, std=self.init_std)

    def text_features(self):
        """(N, C, E) of the present contexts, not L2-normalised: the pooled term averages first. Differentiable."""
        ctx = self.ctx if self.csc else self.ctx.unsqueeze(1)  # (N, C or 1, M, D)
        return self.prompts.encode(ctx, share_prefix=self.share_prefix, normalise=False)

    def _views(self, features):
        """What the encoder made of the images as (B, P, E) local and (B, E) pooled features, both L2-normalised."""
        if features.ndim == 2:
            return features[:, None], features
        return (features[:, 1:], features[:, 0]) if self.pooled_term else (features, None)

    def _match(self, local_features, text, eps=None):
        """Plans and cosines, (B, C, P, N) each, of local features (B, P, E) and text (N, C, E)."""
        cosine = torch.einsum("bpe,nce->bcpn", local_features, F.normalize(text, dim=-1).to(local_features))
        return sinkhorn(1 - cosine.detach(), self.eps if eps is None else eps, **self.inner), cosine

    def _scores(self, features, text):
        """(B, C) logits, differentiable in text but for the plan."""
        local_features, pooled = self._views(features)
        plan, cosine = self._match(local_features, text)
        scores = (plan * cosine).sum(dim=(-2, -1))
        if self.pooled_term:
            scores = scores + pooled @ F.normalize(text.mean(dim=0), dim=-1).to(pooled).T
        return self.backbone.logit_scale * scores

    def _loss(self, features, labels):
        return F.cross_entropy(self._scores(features, self.text_features()), labels)

    def _batches(self, features):
        """features in batches whose plans fit into memory."""
        positions = features.shape[1] if features.ndim == 3 else 1
        size = PAIRS // (positions * self.text.shape[0] * self.text.shape[1])
        return features.split(min(max(size, 1), TEST_BATCH))

    def _logits(self, features):
        return torch.cat([self._scores(part, self.text) for part in self._batches(features)])

    @torch.no_grad()
    def transport(self, x, eps=None):
        """(plans, cosines), (B, C, P, N) each, for a Split, images, or local features (B, P, E). Give few images.

        P counts the positions row by row. N P times a plan is 1 on average: how much a prompt looks where. eps: another
        than in training.
        """
        self._require_fit()
        return self._match(self._views(self.inputs(x))[0], self.text, eps)

    def nearest_words(self, k=5, prompt=0, class_name=None):
        """The k vocabulary tokens nearest to each vector of one prompt's context: M lists of (token, distance)."""
        self._require_fit()
        if not 0 <= prompt < self.n_prompts:
            raise ValueError(f"prompt={prompt!r} must be 0 to {self.n_prompts - 1}")
        if self.csc and class_name not in self.class_names:
            raise ValueError(
                f"class_name={class_name!r} must be one of {list(self.class_names)}: csc has a context for each"
            )
        ctx = self.ctx[prompt, self.class_names.index(class_name)] if self.csc else self.ctx[prompt]
        return nearest_words(self.backbone, ctx, k)
