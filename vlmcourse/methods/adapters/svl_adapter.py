"""SVL-Adapter: Self-Supervised Adapter for Vision-Language Pretrained Models, Pantazis et al., BMVC 2022,
arXiv 2210.03794.

    h      = SimCLR encoder, trained on the task's own images without labels     (B, H), see self_supervised.py
    g      = W_2 ReLU(W_1 h + b_1) + b_2          the adapter, fitted to the few labels by CE    (B, C), 256 hidden
    z_0    = s f W^T                              zero-shot CLIP                                 (B, C)
    logits = lambda g + (1 - lambda) z_0
    SVL-Adapter:   lambda = first best of 0, .05, ..., 1 on validation          fusion="validation"
    SVL-Adapter*:  lambda = 1 - mean_i max_c softmax(z_0)_ic                    fusion="confidence", needs no labels

Other adapters re-use CLIP's features and so inherit their blind spots; this one brings features of its own. The less
sure CLIP is of its answers, the more the adapter says. Zero-shot form (pseudo_labels=16): no labels at all, the adapter
learns from the 16 most confident images of each class that CLIP predicts.

Where this differs from the release, and why:
- the starred lambda is measured on the test images there. Here `fit` measures it on the images it has; a copy for which
  it is measured on other images, as in the paper, is `with_confidence_of(split)`.
- for ResNet-50 the release computes that confidence from features that are not normalised, so lambda depends on their
  length; confidence_features="raw" does that, the default normalises (as the release does for ViT-L/14).
- the encoder there is an ImageNet ResNet-50, tuned at 112 pixels for 200 epochs and read at 224. Here the default is a
  small network from scratch at 32 pixels; build=..., size=112, feature_size=224 gives the other.
- s is the backbone's own scale, where the release has 100; logit_scale=100.0 gives that.
- a class that is never pseudo-labelled keeps its column of logits.
"""

import copy

import torch
import torch.nn.functional as F

from vlmcourse import training
from vlmcourse.backbone.features import Encoder, image_features
from vlmcourse.backbone.images import as_sequence
from vlmcourse.methods.base import Method, MethodCard, full_precision, register
from vlmcourse.methods.class_text import check_templates, class_features
from vlmcourse.methods.meta_net import MetaNet
from vlmcourse.methods.pseudo_labels import select
from vlmcourse.methods.search import accuracy_grid, first_best
from vlmcourse.methods.self_supervised import SimCLR
from vlmcourse.tasks import Split, get_task

GRID = torch.linspace(0, 1, 21)  # candidates of lambda
FUSIONS = ("validation", "confidence")
PART = 256  # images whose pixels are held at once


def confidence_lambda(probabilities):
    """1 - mean_i max_c p_ic of zero-shot probabilities (N, C): 0 where all are certain, 1 - 1/C where none knows."""
    return 1 - probabilities.max(dim=-1).values.mean().item()


def _needs_images(backbone, images, batch_size):
    raise TypeError("SVL-Adapter has a second encoder, so it needs images or a Split")


@register
class SVLAdapter(Method):
    """fusion: "validation", "confidence" or lambda itself, a number in 0..1; None: "validation" where there is one and
    labels are used, else "confidence". pseudo_labels: images per predicted class; None: the given labels. unlabelled: a
    Split, the name of a task (its training and validation images), or several: images that train the encoder; None:
    those given to fit. simclr: a trained SimCLR to use as it is; else build, size, ssl_epochs, ssl_batch_size, ssl_lr,
    ... make one. hidden, epochs, lr, batch_size: of the adapter (Adam). templates: None takes the split's. History: of
    the adapter; that of the encoder is `simclr.history`. logits take images or a Split."""

    card = MethodCard(
        name="svl_adapter",
        title="SVL-Adapter: Self-Supervised Adapter for Vision-Language Pretrained Models",
        venue="BMVC",
        year=2022,
        url="https://arxiv.org/abs/2210.03794",
        family="adapter",
        setup="few-shot supervised, with unlabelled images",
        learned="a second image encoder, without labels, and an MLP on it, (256, H) and (C, 256)",
        idea="Where CLIP sees badly, learn features from the task's own images and blend the two answers.",
        acts_on="features",
        needs="outputs",
    )
    encoder = Encoder("pooled and self-supervised", _needs_images, unit=False)  # see `inputs`

    def __init__(
        self, backbone, *, fusion=None, pseudo_labels=None, unlabelled=None, simclr=None, hidden=256, epochs=50,
        lr=1e-3, batch_size=32, ssl_epochs=200, ssl_batch_size=256, ssl_lr=0.03, size=32, templates=None,
        confidence_features="normalised", logit_scale=None, seed=0, progress=False, **ssl,
    ):  # fmt: skip
        super().__init__(backbone, seed=seed, progress=progress)
        number = isinstance(fusion, int | float) and not isinstance(fusion, bool) and 0 <= fusion <= 1
        if not (number or fusion is None or fusion in FUSIONS):
            raise ValueError(f"fusion={fusion!r} must be one of {FUSIONS}, a number in 0..1, or None")
        if pseudo_labels is not None and (not isinstance(pseudo_labels, int) or pseudo_labels < 1):
            raise ValueError(f"pseudo_labels={pseudo_labels!r} must be a whole number >= 1, or None")
        if pseudo_labels is not None and fusion == "validation":
            raise ValueError("fusion='validation' needs labels, pseudo_labels is for having none: use 'confidence'")
        if confidence_features not in ("normalised", "raw"):
            raise ValueError(f"confidence_features={confidence_features!r} must be 'normalised' or 'raw'")
        if logit_scale is not None and not logit_scale > 0:
            raise ValueError(f"logit_scale={logit_scale!r} must be positive, or None for the backbone's own")
        if simclr is not None and simclr.network is None:
            raise ValueError("simclr must be trained: call its fit(images) first")
        self.fusion, self.pseudo_labels, self.hidden = fusion, pseudo_labels, hidden
        self.unlabelled = (unlabelled,) if isinstance(unlabelled, Split | str) else tuple(unlabelled or ())
        if not all(isinstance(part, Split | str) for part in self.unlabelled):
            raise ValueError("unlabelled must be a Split, the name of a task, or several of them")
        self.own_templates = None if templates is None else check_templates(templates)
        self.raw_confidence = confidence_features == "raw"
        self.scale = backbone.logit_scale if logit_scale is None else logit_scale
        self.recipe = {"epochs": epochs, "lr": lr, "batch_size": batch_size, "seed": seed, "progress": progress}
        self.given, self.ssl = simclr, {"size": size, "epochs": ssl_epochs, "batch_size": ssl_batch_size, "lr": ssl_lr}
        self.ssl |= {"seed": seed, "progress": progress, "device": backbone.device, **ssl}
        if simclr is None:
            SimCLR(**self.ssl)  # bad arguments are named here, not after the first look at the data

    def _fit(self, train, val):
        self.templates = self.own_templates or self.templates
        self.text = class_features(self.backbone, self.class_names, self.templates)  # (C, E)
        pool = self._pool() or [split for split in (train, val) if split is not None]
        if self.given is None:
            images = torch.cat([self.backbone.transform.resize(split.images) for split in pool])
            self.simclr = SimCLR(**self.ssl).fit(images)
        else:
            self.simclr = self.given
        self.selection = None
        x, labels = self.inputs(train), train.labels.to(self.backbone.device)
        if self.pseudo_labels is not None:
            self.selection = select(self.zero_shot(x).softmax(dim=-1).cpu(), self.pseudo_labels)
            x, labels = x[self.selection.indices], self.selection.labels.to(labels)
        self._train(self._split(x)[1], labels)
        self._fuse(pool, None if self.pseudo_labels is not None else val)

    def _pool(self):
        """The splits in `unlabelled`, tasks by their training and validation images."""
        parts = []
        for part in self.unlabelled:
            task = None if isinstance(part, Split) else get_task(part)
            parts += [part] if task is None else [split for split in (task.train, task.val) if split is not None]
        return parts

    def _train(self, h, labels):
        sizes = {"in_dim": h.shape[1], "out_dim": len(self.class_names), "hidden": self.hidden}
        self.mlp = MetaNet(**sizes, seed=self.seed, device=h.device)

        def loss(indices, step):
            return F.cross_entropy(self.mlp(h[indices]), labels[indices])

        options = {"optimizer": "adamw", "weight_decay": 0.0, "schedule": "constant", "drop_last": False}  # Adam
        self.history = training.fit(list(self.mlp.parameters()), loss, len(h), **options, **self.recipe)
        self.mlp.requires_grad_(False)

    def _fuse(self, pool, val):
        """Choose lambda; `searched` (21,) is the validation accuracy of the grid, where there is one."""
        how, self.searched = self.fusion, None
        if how is None or (how == "validation" and val is None):
            how = "confidence" if val is None else "validation"
        if how == "confidence":
            self.fusion_weight = self._confidence(pool)
        elif how == "validation":
            x = self.inputs(val)
            z, g = self.zero_shot(x), self.adapter(x)
            self.searched = accuracy_grid([(z, g - z)], val.labels, GRID)[0]
            self.fusion_weight = GRID[first_best(self.searched[None])[1]].item()
        else:
            self.fusion_weight = float(how)

    def _confidence(self, splits):
        f = torch.cat([image_features(self.backbone, s, normalise=not self.raw_confidence) for s in splits])
        return confidence_lambda((self.scale * full_precision(f) @ self.text.T).softmax(dim=-1))

    def with_confidence_of(self, *splits):
        """The same method with lambda from CLIP's confidence on the images of these splits: no label is read."""
        self._require_fit()
        twin = copy.copy(self)
        twin.fusion_weight = self._confidence(splits)
        return twin

    def inputs(self, x):
        """(B, E + H): CLIP's normalised feature and the self-supervised one of images or a Split. As in Method."""
        if isinstance(x, torch.Tensor) and x.ndim == 2:
            width = self.backbone.embed_dim
            if x.shape[1] <= width:
                raise ValueError(
                    f"x={tuple(x.shape)} are features of one encoder; SVL-Adapter has a second one: give images, a "
                    f"Split, or what `inputs` returned (B, {width} + H)"
                )
            return x
        if isinstance(x, Split):
            f, images = image_features(self.backbone, x, normalise=False), x.images
        else:
            f, images = self.backbone.encode_image(x, normalise=False), as_sequence(x)
        parts = [self.simclr.features(self._pixels(images[i : i + PART])) for i in range(0, len(images), PART)]
        return torch.cat([F.normalize(full_precision(f), dim=-1), torch.cat(parts)], dim=-1)

    def _pixels(self, images):
        """(B, 3, S, S) in [0, 1], as CLIP's image tower sees them, before the normalisation."""
        if isinstance(images, torch.Tensor) and images.is_floating_point():
            return images.to(self.backbone.mean) * self.backbone.std + self.backbone.mean  # preprocessed already
        return self.backbone.transform.pixels(images, self.backbone.device)

    def _split(self, x):
        return x.split([self.backbone.embed_dim, x.shape[1] - self.backbone.embed_dim], dim=-1)

    @torch.no_grad()
    def zero_shot(self, x):
        """(B, C) zero-shot logits z_0 from `inputs`."""
        f = self._split(x)[0]
        return self.scale * f @ self.text.to(f).T

    @torch.no_grad()
    def adapter(self, x):
        """(B, C) logits g of the adapter from `inputs`."""
        return self.mlp(self._split(x)[1])

    def _logits(self, features):
        return self.fusion_weight * self.adapter(features) + (1 - self.fusion_weight) * self.zero_shot(features)

    def learned_parameters(self):
        if not self._fitted:
            return {}
        parts = {"adapter": self.mlp, "encoder": self.simclr.network}
        return {f"{part}.{name}": w.detach() for part, net in parts.items() for name, w in net.named_parameters()}
