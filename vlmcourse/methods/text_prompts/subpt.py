"""SubPT and NFL: Understanding and Mitigating Overfitting in Prompt Tuning for Vision-Language Models, Ma et al., IEEE
TCSVT 33(9), 2023, arXiv 2211.02219.

CoOp's early steps find directions that transfer, its late steps directions that fit the few images. Two stages:

    1. CoOp, v_t the context after epoch t, P = M D numbers; keep t = 1 .. t_early
       W = [v_1; ...; v_t_early]           (t_early, P)
       U = r right singular vectors of W - mean(W)        (r, P), U U^T = I       (principal components)
    2. CoOp again from the same start, every gradient g (P,) replaced before the optimiser sees it by
       g' = U^T U g

NFL (novel feature learner) keeps the text of classes without images near zero-shot CLIP, in both stages:

    loss = CE + lambda mean_j (1 - cos(w_j(v), z_j))      j over novel_names, z_j zero-shot features from templates

Choices, where they matter:
- weight decay and momentum act behind the projection, so v leaves v_0 + span(U) a little; weight_decay=0 stays in it.
- the released scripts ask for stage 2 to start at the checkpoint of epoch 1, the released code starts at the random
  context; the latter is the default, start="first_epoch" is the former.
- few-shot runs took 100 ImageNet names as novel_names; base-to-new runs took the *new* classes' names, no images: say
  so when results are compared. z averaged ImageNet's templates and the data set's own; here templates of the split.
- the first t_early epochs run under the schedule of all epochs, and stage 1 ends there: what follows is not used.
"""

import torch
import torch.nn.functional as F

from vlmcourse.methods.base import MethodCard, register
from vlmcourse.methods.class_text import check_templates, class_features
from vlmcourse.methods.context import ClassPrompts
from vlmcourse.methods.text_prompts.coop import CoOp, epochs_for

STARTS = ("random", "first_epoch")
PAPER = ((16, 0.25, 10), (8, 0.2, 10), (4, 0.3, 10), (2, 0.2, 10), (1, 0.2, 5))  # shots, t_early / epochs, r


def principal_directions(trajectory, r):
    """U (r, P) with orthonormal rows, and their shares of the variance (r,), of points (t, P) taken from their mean.

    t points span t - 1 directions at most. ValueError unless 1 <= r <= min(t - 1, P).
    """
    t, P = trajectory.shape
    if not isinstance(r, int) or not 1 <= r <= min(t - 1, P):
        raise ValueError(f"r={r!r} must be a whole number from 1 to {min(t - 1, P)}: {t} points of {P} numbers")
    points = trajectory.double()
    _, singular, directions = torch.linalg.svd(points - points.mean(0), full_matrices=False)
    return directions[:r].to(trajectory.dtype), (singular**2 / (singular**2).sum())[:r]


def project(gradient, basis):
    """U^T U g, in the shape of g."""
    return ((basis @ gradient.flatten()) @ basis).reshape(gradient.shape)


@register
class SubPT(CoOp):
    """CoOp's arguments, and t_early, r: epochs that span the subspace, its dimension; None takes the paper's for the
    shots (t_early as a share of the epochs). projection: False leaves out stage 1 and the projection (CoOp, or CoOp
    with NFL). novel_names: class names without images for NFL, () for none. nfl_weight: lambda. nfl_templates: of z,
    None takes the split's. start: of stage 2. After fit: `basis` U, `explained` (r,) shares of the variance,
    `early` (t_early, P) and `trajectory` (epochs, P), the contexts after each epoch of stage 1 and 2."""

    card = MethodCard(
        name="subpt",
        title="Understanding and Mitigating Overfitting in Prompt Tuning for Vision-Language Models",
        venue="IEEE TCSVT",
        year=2023,
        url="https://arxiv.org/abs/2211.02219",
        family="text prompt",
        setup="few-shot supervised",
        learned="context vectors (M, D), moved only in r directions found early in training",
        idea="Train twice: early training shows which directions transfer, and later gradients are projected on them.",
        acts_on="text input",
        needs="inputs",
    )

    def __init__(
        self,
        backbone,
        *,
        t_early=None,
        r=None,
        projection=True,
        novel_names=(),
        nfl_weight=1.0,
        nfl_templates=None,
        start="random",
        **coop,
    ):
        super().__init__(backbone, **coop)
        for name, value, least in (("t_early", t_early, 2), ("r", r, 1)):
            if value is not None and (not isinstance(value, int) or value < least):
                raise ValueError(f"{name}={value!r} must be None or a whole number >= {least}")
        if isinstance(novel_names, str) or not all(isinstance(name, str) for name in novel_names):
            raise ValueError(f"novel_names={novel_names!r} must be a list of class names")
        if novel_names and self.csc:
            raise ValueError("csc=True and novel_names exclude each other: novel names have no context of their own")
        if not nfl_weight >= 0:
            raise ValueError(f"nfl_weight={nfl_weight!r} must be >= 0")
        if start not in STARTS:
            raise ValueError(f"start={start!r} must be one of {STARTS}")
        self.t_early, self.r, self.projection, self.stage_2_start = t_early, r, projection, start
        self.novel_names, self.nfl_weight = tuple(novel_names), nfl_weight
        self.nfl_templates = None if nfl_templates is None else check_templates(nfl_templates)
        self.basis = self.explained = self.early = self.trajectory = None

    def _fit(self, train, val):
        if self.novel_names:  # one text pass for both kinds of names
            names = (*self.class_names, *self.novel_names)
            self.all_prompts = ClassPrompts(self.backbone, names, self.n_ctx, self.class_token_position)
            self.zero_shot = class_features(self.backbone, self.novel_names, self.nfl_templates or self.templates)
        self.basis, self.stop = None, None
        if self.projection:
            self.stop, r = self._early_epochs(train)
            self.contexts = []
            super()._fit(train, val)
            self.early = torch.stack(self.contexts)  # (t_early, P)
            self.basis, self.explained = principal_directions(self.early, r)
        self.contexts = []
        super()._fit(train, val)
        self.trajectory = torch.stack(self.contexts) if self.contexts else self.ctx.new_empty(0, self.ctx.numel())

    def _early_epochs(self, train):
        """(t_early, r): as given, or the paper's for these shots."""
        epochs = epochs_for(train) if self.epochs is None else self.epochs
        shots = int(train.counts.max())
        share, rank = next((s, k) for least, s, k in PAPER if shots >= least)
        t_early = max(1 + (self.r or 1), round(share * epochs)) if self.t_early is None else self.t_early
        if t_early > epochs:
            raise ValueError(f"t_early={t_early} must not be larger than the {epochs} epochs")
        return t_early, min(rank, t_early - 1, self._initial_context().numel()) if self.r is None else self.r

    def _initial_context(self):
        ctx = super()._initial_context()
        again = self.basis is not None and self.stage_2_start == "first_epoch"
        return self.early[0].reshape(ctx.shape).clone() if again else ctx

    def _parameters(self):
        if self.basis is not None:  # what the optimiser finds in ctx.grad has passed this
            self.ctx.register_hook(lambda gradient: project(gradient, self.basis))
        return super()._parameters()

    def _after_epoch(self, epoch, history):
        self.contexts.append(self.ctx.detach().flatten().clone())
        return self.basis is None and len(self.contexts) == self.stop

    def _loss(self, features, labels):
        if not self.novel_names:
            return super()._loss(features, labels)
        text, novel = self.all_prompts.encode(self.ctx, share_prefix=self.share_prefix).split(
            [len(self.class_names), len(self.novel_names)]
        )
        loss = F.cross_entropy(self.backbone.logit_scale * features @ text.T, labels)
        distance = (1 - (novel * self.zero_shot).sum(dim=-1)).mean()
        return loss + self.nfl_weight * distance, {"ce": loss, "nfl": distance}

    def after_epoch(self, epoch):
        """This method as it was after an epoch (from 1) of stage 2."""
        self._require_fit()
        if not isinstance(epoch, int) or not 1 <= epoch <= len(self.trajectory):
            raise ValueError(f"epoch={epoch!r} must be a whole number from 1 to {len(self.trajectory)}")
        then = self._moved(self.class_names, self.templates)
        then.ctx = self.trajectory[epoch - 1].reshape(self.ctx.shape)
        then._freeze()
        return then
