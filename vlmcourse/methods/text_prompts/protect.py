"""ProTeCt: Prompt Tuning for Taxonomic Open Set Classification, Wu et al., CVPR 2024, arXiv 2306.02240.

Prompts tuned on the leaf classes of a taxonomy get coarser label sets wrong. ProTeCt trains the same prompts on label
sets of every granularity; it adds losses to a host (CoOp, MaPLe), and no parameter. With s = exp(logit_scale), f an
image's feature, w_v the feature of node v's name with the host's prompt:

    z_v  = s f^T w_v                                            (B, V), all nodes of the tree but the root
    DTL  = mean over images of CE(z over the treecut, the node of the cut above the image's class)
           dynamic treecut loss: at every step one treecut at random, internal nodes stay closed with probability beta
    NCL  = mean over the internal nodes n with an image of the batch below them of
           [mean over these images of CE(z over the children of n, the child on the way to the class)]
    loss = DTL + weight NCL                                     node-centric loss; weight: lambda of the paper

There is no leaf loss: the leaves are one of the treecuts. beta = 0 is the leaf loss at every step, so beta = weight = 0
is the host. Any label set is scored by its names, as with the host (`for_classes`).

Recipe of the official code, ViT-B/16, 16 shots: SGD 0.02 without momentum or weight decay, cosine with a first rate of
0.001, no augmentation, 200 epochs, beta 0.1, lambda 0.5 (CIFAR-100, SUN) or 1 (ImageNet); CoOp with M = 16 and batch
128, MaPLe with M = 2, J = 3 and batch 8. The official code steps its cosine at every iteration with a half period of
`epochs` iterations, so the rate falls and rises in waves (schedule="wave"); a cosine over the epochs was probably meant
and is the default. The official code encodes images and names once per internal node; here all names and all images are
encoded once per step, with equal results.
"""

import torch
import torch.nn.functional as F

from vlmcourse import training
from vlmcourse.methods.base import MethodCard, register
from vlmcourse.methods.text_prompts.coop import CoOp
from vlmcourse.methods.text_visual_prompts.maple import MaPLe
from vlmcourse.tasks.taxonomy import Taxonomy, taxonomy_of

WARMUP_LR = 1e-3
SCHEDULES = ("coop", "wave")


def node_centric_loss(scores, labels, taxonomy):
    """NCL of scores (B, V), one per node, and classes (B,): a scalar. See above."""
    competitors = taxonomy.competitors.to(scores.device)  # (I, K), -1 where there is none
    branch = taxonomy.branch.to(scores.device)[labels]  # (B, I), -1 where the class is not below the node
    among = scores[:, competitors].masked_fill(competitors < 0, -torch.inf)  # (B, I, K)
    chosen = among.gather(-1, branch.clamp(min=0)[..., None])[..., 0]  # (B, I)
    below = branch >= 0
    loss = torch.where(below, among.logsumexp(dim=-1) - chosen, 0.0)
    count = below.sum(dim=0)  # (I,) images of the batch below each node
    return (loss.sum(dim=0)[count > 0] / count[count > 0]).mean()


def treecut_loss(scores, labels, taxonomy, cut):
    """CE of scores (B, V) with a treecut (n,) as label set, the target being the node above the class; a scalar."""
    target = taxonomy.cut_labels(cut).to(scores.device)[labels]
    return F.cross_entropy(scores[:, cut.to(scores.device)], target)


class TreeLosses:
    """The losses, for a descendant of CoOp: `class X(TreeLosses, CoOp)`. taxonomy: a Taxonomy whose classes are those
    of the split given to fit; None: the part of the concept tree above them (taxonomy_of). beta: dropout of treecuts.
    weight: of NCL. schedule: "coop", a cosine over the epochs, or "wave", see above. The rest is the host's.
    History: "loss", its parts "treecut" and "node" (before the weight), "lr"."""

    def __init__(
        self,
        backbone,
        *,
        taxonomy=None,
        beta=0.1,
        weight=0.5,
        schedule="coop",
        epochs=200,
        lr=0.02,
        batch_size=128,
        momentum=0.0,
        weight_decay=0.0,
        **host,
    ):
        recipe = {"epochs": epochs, "lr": lr, "batch_size": batch_size}
        super().__init__(backbone, momentum=momentum, weight_decay=weight_decay, **recipe, **host)
        if taxonomy is not None and not isinstance(taxonomy, Taxonomy):
            raise ValueError(f"taxonomy={type(taxonomy).__name__} must be a Taxonomy, or None for the concept tree")
        if isinstance(beta, bool) or not isinstance(beta, int | float) or not 0 <= beta <= 1:
            raise ValueError(f"beta={beta!r} must be between 0 and 1")
        if isinstance(weight, bool) or not isinstance(weight, int | float) or not 0 <= weight < float("inf"):
            raise ValueError(f"weight={weight!r} must be a number >= 0")
        if schedule not in SCHEDULES:
            raise ValueError(f"schedule={schedule!r} must be one of {SCHEDULES}")
        if self.csc:
            raise ValueError("csc=True must be False: the context is shared by the names of all nodes")
        self.given, self.beta, self.weight = taxonomy, beta, weight
        self.recipe["warmup_lr"] = WARMUP_LR
        if schedule == "wave":
            self.recipe["schedule"] = lambda step, steps: training.coop_lr(step, epochs, lr, 1, WARMUP_LR)

    def _fit(self, train, val):
        self.taxonomy = self.given or taxonomy_of(self.class_names)
        if self.taxonomy.class_names != self.class_names:
            raise ValueError(
                f"taxonomy has the classes {self.taxonomy.class_names[:3]} ..., train has {self.class_names[:3]} ...; "
                "they must be the same in the same order"
            )
        self.node_prompts = self._prompts(self.taxonomy.names)
        self.draw_cut = torch.Generator().manual_seed(self.seed + 4_000_003)
        super()._fit(train, val)

    def _loss(self, features, labels):
        nodes = self.text_features(self.node_prompts)  # (V, E)
        scores = self.backbone.logit_scale * self._image_features(features) @ nodes.T  # (B, V)
        cut = self.taxonomy.random_cut(self.beta, self.draw_cut)
        treecut = treecut_loss(scores, labels, self.taxonomy, cut)
        node = node_centric_loss(scores, labels, self.taxonomy)
        return treecut + self.weight * node, {"treecut": treecut, "node": node}


@register
class ProTeCt(TreeLosses, CoOp):
    """ProTeCt over CoOp: the arguments of TreeLosses and of CoOp (csc excepted)."""

    card = MethodCard(
        name="protect",
        title="ProTeCt: Prompt Tuning for Taxonomic Open Set Classification",
        venue="CVPR",
        year=2024,
        url="https://arxiv.org/abs/2306.02240",
        family="text prompt",
        setup="few-shot supervised, with a taxonomy of the classes",
        learned="context vectors (M, D), for the names of leaves and of all nodes above them",
        idea="Train one prompt on label sets cut at random through a taxonomy, and on every decision inside it.",
        acts_on="text input",
        needs="inputs",
    )


@register
class ProTeCtMaPLe(TreeLosses, MaPLe):
    """ProTeCt over MaPLe: the arguments of TreeLosses and of MaPLe. depth: None for 3, or all layers where there are
    fewer."""

    card = MethodCard(
        name="protect_maple",
        title="ProTeCt: Prompt Tuning for Taxonomic Open Set Classification",
        venue="CVPR",
        year=2024,
        url="https://arxiv.org/abs/2306.02240",
        family="text-visual prompt",
        setup="few-shot supervised, with a taxonomy of the classes",
        learned="MaPLe's: text prompts (J, M, D) and linear coupling functions D -> Dv",
        idea="The losses over a taxonomy for prompts in both towers: they need nothing of the prompt learner.",
        acts_on="text and image input, inner layers",
        needs="internals",
    )

    def __init__(self, backbone, *, batch_size=8, depth=None, **options):
        if depth is None:
            layers = [len(t.transformer.resblocks) for t in (backbone.model, backbone.model.visual) if backbone.is_vit]
            depth = min([3, *layers])
        super().__init__(backbone, batch_size=batch_size, depth=depth, **options)
