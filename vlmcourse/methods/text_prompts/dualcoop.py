"""DualCoOp: Fast Adaptation to Multi-Label Recognition with Limited Annotations, Sun, Hu, Saenko, NeurIPS 2022,
arXiv 2206.09541.

Each class is a question of its own, asked by two prompts; each looks where the class most likely is.

    t+_c   = Text([ctx_pos, name_c .]), t-_c = Text([ctx_neg, name_c .])     (C, E); ctx (M, D), with csc (C, M, D)
    s+-_ci = cos(v_i, t+-_c)                         v_0 the whole image, v_1 ... v_N its regions, (B, C, 1 + N)
    a_c    = softmax_i(beta s+_ci)                   the positive prompt's map serves both prompts, beta = 20
    z+-_c  = s sum_i a_ci s+-_ci                     s: 100 in the paper
    p_c    = softmax(z-_c, z+_c)[1] = sigmoid(z+_c - z-_c)
    loss   = -w sum_known [y (1 - p)^g+ log p + (1 - y) (1 - q)^g- log q],  q = min(1 - p + 0.05, 1), g+ = 1, g- = 2

The loss is asymmetric (Ben-Baruch et al., ICCV 2021): a sum over images and known classes; what is unknown is left out,
the factors (1 - p)^g carry no gradient. New classes need names only, so a shared context also serves zero-shot
multi-label recognition. Recipe: SGD 2e-3 (COCO) or 1e-3, batch 32, 50 epochs, RN101 at 448 pixels; partial labels M =
16 and csc, w = 0.03; zero-shot M = 64, shared, w = 0.01, at most 100 random classes per batch.

Departures: s is the backbone's own (100 for released CLIPs; `logit_scale=100.0` gives the paper's); the official code
draws no seeds and selects the epoch on test data, here the last one counts. ViTs, which the official code does not
serve, take regions from windows (regions.py).
DualCoOp++ (Hu et al., arXiv 2308.01890) adds an evidence context and a winner-take-all gate. There is no official
release; `region_weight="evidence"` and `winner_take_all=True` are a reconstruction from what its authors' code is
believed to be:  a_c = softmax_i(beta cos(v_i, t^ev_c));  s+_ci is multiplied by u_ci / max_c u_ci with
u_i = softmax_c(200 s+_ci max_c s+_ci), so that within a region the classes compete. (Its temperature is learned; here
not.)
"""

import torch
from torch import Tensor

from vlmcourse import training
from vlmcourse.methods.augment import TrainingFeatures
from vlmcourse.methods.base import MethodCard, register
from vlmcourse.methods.context import ClassPrompts, random_context, words_context
from vlmcourse.methods.multi_label import MultiLabelMethod, cosines
from vlmcourse.methods.regions import pool_regions
from vlmcourse.tasks.multi_label import PRESENT, UNKNOWN

WINNER_SCALE = 200.0
TEST_BATCH = 256


def asymmetric_loss(margin: Tensor, labels: Tensor, gamma_pos=1.0, gamma_neg=2.0, clip=0.05, eps=1e-6) -> Tensor:
    """The sum above, w left out. margin (B, C): z+ - z-. labels (B, C) of 1, 0 and -1, unknown."""
    p = margin.sigmoid()
    q = (1 - p + clip).clamp(max=1)
    right = torch.where(labels == PRESENT, p, q)
    gamma = torch.where(labels == PRESENT, gamma_pos, gamma_neg)
    loss = -((1 - right).detach() ** gamma) * right.clamp(min=eps).log()
    return loss[labels != UNKNOWN].sum()


@register
class DualCoOp(MultiLabelMethod):
    """n_ctx: M of each context. ctx_init: (positive, negative) words in place of noise, one may be None. csc: contexts
    of each class by itself; then there are no new classes. spatial_scale: beta; logit_scale: s, None: the backbone's.
    gamma_pos, gamma_neg, clip, loss_weight: of the loss. region_weight: "positive", or "evidence" (adds a context).
    max_classes: random classes per batch, at most. path: of the regions. views: see augment.TrainingFeatures."""

    card = MethodCard(
        name="dualcoop",
        title="DualCoOp: Fast Adaptation to Multi-Label Recognition with Limited Annotations",
        venue="NeurIPS",
        year=2022,
        url="https://arxiv.org/abs/2206.09541",
        family="text prompt",
        setup="multi-label, partial labels or zero-shot",
        learned="a positive and a negative context (M, D), or (C, M, D) with CSC; as an option an evidence context",
        idea="Ask for each class by itself, with a prompt for its presence and one for its absence, where it may be.",
        acts_on="text input",
        needs="internals",
    )

    def __init__(
        self,
        backbone,
        *,
        n_ctx=16,
        ctx_init=None,
        csc=False,
        epochs=50,
        lr=2e-3,
        batch_size=32,
        momentum=0.9,
        weight_decay=5e-4,
        warmup_epochs=1,
        init_std=0.02,
        spatial_scale=20.0,
        logit_scale=None,
        loss_weight=0.03,
        gamma_pos=1.0,
        gamma_neg=2.0,
        clip=0.05,
        region_weight="positive",
        winner_take_all=False,
        max_classes=100,
        path=None,
        views=1,
        crop_scale=(0.08, 1.0),
        seed=0,
        progress=False,
    ):
        super().__init__(backbone, path=path, positions=True, seed=seed, progress=progress)
        if region_weight not in ("positive", "evidence"):
            raise ValueError(f"region_weight={region_weight!r} must be 'positive' or 'evidence'")
        for name, value in {"n_ctx": n_ctx, "max_classes": max_classes}.items():
            if isinstance(value, bool) or not isinstance(value, int) or value < 1:
                raise ValueError(f"{name}={value!r} must be a whole number >= 1")
        numbers = {"spatial_scale": spatial_scale, "loss_weight": loss_weight, "gamma_pos": gamma_pos,
                   "gamma_neg": gamma_neg, "clip": clip}  # fmt: skip
        numbers |= {} if logit_scale is None else {"logit_scale": logit_scale}
        for name, value in numbers.items():
            if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < float("inf"):
                raise ValueError(f"{name}={value!r} must be a number >= 0")
        self.n_ctx, self.csc, self.init_std, self.max_classes = n_ctx, csc, init_std, max_classes
        self.starts = self._words(ctx_init)
        self.spatial_scale, self.loss_weight = spatial_scale, loss_weight
        self.logit_scale = backbone.logit_scale if logit_scale is None else logit_scale
        self.asymmetry = {"gamma_pos": gamma_pos, "gamma_neg": gamma_neg, "clip": clip}
        self.region_weight, self.winner_take_all = region_weight, winner_take_all
        self.options = {"views": views, "crop_scale": crop_scale, "seed": seed, "encoder": self.encoder}
        self.recipe = {"epochs": epochs, "lr": lr, "batch_size": batch_size, "momentum": momentum,
                       "weight_decay": weight_decay, "warmup_epochs": warmup_epochs}  # fmt: skip

    def _words(self, ctx_init):
        """{context: (M, D)} of the contexts that start from words."""
        if ctx_init is None:
            return {}
        if self.csc or isinstance(ctx_init, str) or len(ctx_init) != 2:
            raise ValueError(f"ctx_init={ctx_init!r} must be (positive words, negative words), with csc=False")
        given = zip(("pos", "neg"), ctx_init, strict=True)
        return {role: words_context(self.backbone, words) for role, words in given if words is not None}

    def _fit(self, train, val):
        roles = ("neg", "pos") + ("evidence",) * (self.region_weight == "evidence")
        shape = (len(self.class_names), self.n_ctx) if self.csc else (self.n_ctx,)
        self.ctx = {}
        for i, role in enumerate(roles):  # the stream of seed 3 n is no other seed's
            noise = random_context(self.backbone, *shape, seed=3 * self.seed + i, std=self.init_std)
            self.ctx[role] = self.starts.get(role, noise).clone().requires_grad_()
        self._write_prompts()
        features, labels = TrainingFeatures(self.backbone, train, **self.options), train.labels.to(self.backbone.device)
        count, draw = len(self.class_names), torch.Generator().manual_seed(self.seed)

        def loss(indices, step):
            classes = None
            if count > self.max_classes:
                classes = torch.randperm(count, generator=draw)[: self.max_classes].to(labels.device)
            y = labels[indices] if classes is None else labels[indices][:, classes]
            margin = self._margin(features(indices), self.text_features(classes))
            return self.loss_weight * asymmetric_loss(margin, y, **self.asymmetry)

        contexts = list(self.ctx.values())
        self.history = training.fit(contexts, loss, len(train), seed=self.seed, progress=self.progress, **self.recipe)
        self._freeze()

    def _write_prompts(self):
        lengths = {ctx.shape[-2] for ctx in self.ctx.values()}
        self.prompts = {n: ClassPrompts(self.backbone, self.class_names, n) for n in lengths}

    @torch.no_grad()
    def _freeze(self):
        self.ctx = {role: ctx.detach() for role, ctx in self.ctx.items()}
        self.text = self.text_features()

    def text_features(self, classes=None) -> dict[str, Tensor]:
        """{"neg", "pos"[, "evidence"]: (C, E)} L2-normalised, differentiable; classes: numbers of some (n,), or all."""
        ctx = {role: ctx if classes is None or not self.csc else ctx[classes] for role, ctx in self.ctx.items()}
        prompts = {n: p if classes is None else p.select(classes) for n, p in self.prompts.items()}
        if len(prompts) == 1:  # equal lengths: one pass
            (only,) = prompts.values()
            together = torch.stack([c if self.csc else c[None] for c in ctx.values()])  # (roles, 1 or C, M, D)
            return dict(zip(ctx, only.encode(together), strict=True))
        return {role: prompts[c.shape[-2]].encode(c) for role, c in ctx.items()}

    def _read(self, features, text):
        """(B, C) mean cosines of the negative and the positive prompt, and the weights (B, C, 1 + N)."""
        present, absent = cosines(features, text["pos"]), cosines(features, text["neg"])
        by = present if self.region_weight == "positive" else cosines(features, text["evidence"])
        _, weights = pool_regions(by, self.spatial_scale)
        if self.winner_take_all:
            u = (WINNER_SCALE * present * present.amax(dim=1, keepdim=True)).softmax(dim=1)
            present = present * u / u.amax(dim=1, keepdim=True)
        return (weights * absent).sum(dim=-1), (weights * present).sum(dim=-1), weights

    def _margin(self, features, text):
        absent, present, _ = self._read(features, text)
        return self.logit_scale * (present - absent)

    def _logits(self, features):
        return torch.cat([self._margin(part, self.text) for part in features.split(TEST_BATCH)])

    @torch.no_grad()
    def attention(self, x) -> Tensor:
        """(B, C, 1 + N): how much each class looks at the whole image (index 0) and at each region; sums to 1."""
        self._require_fit()
        weights = self._read(self.inputs(x), self.text)[2]
        return weights if self._columns is None else weights[:, self._columns]

    def for_classes(self, class_names, templates=None):
        if self.csc:  # a class-specific context cannot move to other names
            return super().for_classes(class_names, templates)
        moved = self._moved(class_names, templates)
        moved._write_prompts()
        moved._freeze()
        return moved

    def learned_parameters(self):
        return {f"ctx_{role}": ctx for role, ctx in self.ctx.items()} if self._fitted else {}
