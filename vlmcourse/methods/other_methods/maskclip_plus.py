"""MaskCLIP+: Extract Free Dense Labels from CLIP, Zhou et al., ECCV 2022, arXiv 2112.01071, section 3.4.

MaskCLIP's masks become pseudo-labels of an ordinary segmentation network, which has a finer grid and averages over many
images what the teacher gets wrong in one.

    F       = sum_r Conv3x3_r(trunk(x))    (B, E, h, w): DeepLab v2's head, one branch per dilation r
    logits  = <F, T_c>                     (B, C, h, w): T (C, E) frozen class texts; F not normalised, no temperature
    loss    = CE(enlarged logits, y)       y (B, H, W): argmax of MaskCLIP's enlarged score maps (with its refinements)
    distil  : mean |normalise(F) - F_CLIP|   instead of CE, the paper's ablation

Three uses: annotation-free, CLIP's labels everywhere and throughout. Zero-shot: `unlabelled` names the classes without
masks; the others are trained on their masks, and pixels of the unlabelled ones get pseudo-labels among these classes
only, from CLIP for the first tenth of the steps, then from the network itself (self-training: CLIP is no longer asked).
As supervision for others: `as_supervision(split)` returns the split with the masks of this method, for any other one.

Deviations, for the size of the course: the paper's student is an ImageNet ResNet, fine-tuned at 512 pixels; here it is
"stem", the frozen ImageNet stem of EmojiCLIP, read at a grid twice as fine as CLIP's and computed once, or "scratch", a
small convolutional net for every other backbone. Dilations 6, 12, 18, 24 at 64 x 64 positions become 1 to
4. The rate falls as (1 - t/S)^0.9 to `min_lr`; no crops, flips or colour changes. The official code reads the
ignore mask of the ground truth even where it calls itself annotation-free: `read_ignore`.
"""

import torch
import torch.nn.functional as F
from torch import nn

from vlmcourse import training
from vlmcourse.backbone.features import Encoder
from vlmcourse.backbone.stem import EfficientNetStem
from vlmcourse.methods.augment import TrainingFeatures
from vlmcourse.methods.base import MethodCard, full_precision, register
from vlmcourse.methods.class_text import class_features
from vlmcourse.methods.dense import DenseMethod, enlarge
from vlmcourse.methods.other_methods.maskclip import MaskCLIP
from vlmcourse.methods.tuned_tower import PIXELS
from vlmcourse.tasks.segmentation import IGNORE, MaskSplit

LOSSES, TRUNKS = ("ce", "distil"), ("auto", "stem", "scratch")


def imagenet_stem(backbone):
    """The ImageNet stem in the backbone's image tower, or None."""
    return next((m for m in backbone.model.visual.modules() if isinstance(m, EfficientNetStem)), None)


@torch.no_grad()
def stem_levels(backbone, images, batch_size=128):
    """(n, 152, S/4, S/4): what the stem computes at strides 4 and 8 of the image, the coarser one enlarged."""
    ready = isinstance(images, torch.Tensor) and images.is_floating_point()
    pixels, stem, parts = images if ready else backbone.preprocess(images), imagenet_stem(backbone), []
    for x in pixels.to(backbone.device, backbone.dtype).split(batch_size):
        x = F.interpolate(x, scale_factor=2.0, mode="bilinear", align_corners=False)
        x = F.relu6(stem.stem(x.contiguous(memory_format=torch.channels_last)))
        for block in stem.blocks[:5]:
            x = block(x)
        fine = x  # (b, 40, S/4, S/4)
        for block in stem.blocks[5:]:
            x = block(x)  # (b, 112, S/8, S/8)
        parts.append(torch.cat([fine, enlarge(x, fine.shape[-2:])], dim=1).contiguous())
    return torch.cat(parts)


STEM_LEVELS = Encoder("stem levels", stem_levels, ndim=4, unit=False)


class Student(nn.Module):
    """Trunk and head. (b, channels, h, w) features of the stem, or pixels (b, 3, S, S), to (b, E, h', w')."""

    def __init__(self, channels, embed_dim, width=64, dilations=(1, 2, 3, 4), seed=0):
        super().__init__()
        with torch.random.fork_rng(devices=[]):
            torch.random.default_generator.manual_seed(seed)
            if channels == 3:
                steps = [nn.Conv2d(3, width // 2, 3, 2, 1), nn.GroupNorm(4, width // 2), nn.ReLU()]
                steps += [nn.Conv2d(width // 2, width, 3, 2, 1), nn.GroupNorm(4, width), nn.ReLU()]
            else:
                steps = [nn.Conv2d(channels, width, 1), nn.GroupNorm(4, width), nn.ReLU()]
            self.trunk = nn.Sequential(*steps, nn.Conv2d(width, width, 3, 1, 1), nn.GroupNorm(4, width), nn.ReLU())
            self.branches = nn.ModuleList(nn.Conv2d(width, embed_dim, 3, 1, d, d) for d in dilations)

    def forward(self, x):
        x = self.trunk(x)
        return sum(branch(x) for branch in self.branches)

    def scores(self, x, text):
        """<F, T_c>, (b, C, h', w'), without F: the texts (C, E) are folded into the last convolutions, which is exact
        and E / C times cheaper."""
        x = self.trunk(x)
        return sum(
            F.conv2d(x, torch.einsum("ce,eijk->cijk", text, branch.weight), text @ branch.bias, 1, branch.padding,
                     branch.dilation) for branch in self.branches
        )  # fmt: skip


@register
class MaskCLIPPlus(DenseMethod):
    """teacher: arguments of MaskCLIP. unlabelled: None (annotation-free), or the names of the classes without masks.
    self_training: share of the steps after which the network labels for itself; None: 0.1 with `unlabelled`, else 1.0
    (never). loss: "ce" or "distil". trunk: "stem", "scratch" or "auto". read_ignore: leave out the pixels that the
    ground truth ignores. epochs, lr, batch_size, momentum, weight_decay, min_lr: SGD. History: "loss", "agreement"
    (share of pixels on which network and pseudo-label agree), "lr"."""

    card = MethodCard(
        name="maskclip_plus",
        title="Extract Free Dense Labels from CLIP",
        venue="ECCV",
        year=2022,
        url="https://arxiv.org/abs/2112.01071",
        family="other",
        setup="dense, annotation-free",
        learned="a segmentation network, trunk and head",
        idea="Let CLIP's free masks teach an ordinary segmentation network, and then let the network teach itself.",
        acts_on="features",
        needs="internals",
    )

    def __init__(self, backbone, *, teacher=None, unlabelled=None, self_training=None, loss="ce", trunk="auto",
                 read_ignore=False, width=64, dilations=(1, 2, 3, 4), epochs=12, lr=0.01, batch_size=16, momentum=0.9,
                 weight_decay=5e-4, min_lr=1e-4, seed=0, progress=False):  # fmt: skip
        super().__init__(backbone, seed=seed, progress=progress)
        if loss not in LOSSES or trunk not in TRUNKS:
            raise ValueError(f"loss={loss!r} must be one of {LOSSES} and trunk={trunk!r} one of {TRUNKS}")
        if self_training is not None and not 0 <= self_training <= 1:
            raise ValueError(f"self_training={self_training!r} must be a share of the steps in [0, 1], or None")
        if loss == "distil" and (unlabelled is not None or self_training not in (None, 1)):
            raise ValueError("loss='distil' has no labels: it takes neither unlabelled nor self_training")
        if trunk == "stem" and imagenet_stem(backbone) is None:
            raise ValueError(f"trunk='stem' needs a backbone with an ImageNet stem, {backbone.name!r} has none")
        self.teacher, self.unlabelled, self.loss = MaskCLIP(backbone, **(teacher or {})), unlabelled, loss
        self.self_training = (1.0 if unlabelled is None else 0.1) if self_training is None else self_training
        from_stem = trunk == "stem" or (trunk == "auto" and imagenet_stem(backbone) is not None)
        self.encoder, self.read_ignore = STEM_LEVELS if from_stem else PIXELS, read_ignore
        self.shape, self.min_lr = {"width": width, "dilations": tuple(dilations)}, min_lr
        self.recipe = {"epochs": epochs, "lr": lr, "batch_size": batch_size, "momentum": momentum}
        self.recipe["weight_decay"] = weight_decay

    def _fit(self, train, val):
        if (self.unlabelled is not None or self.read_ignore) and not isinstance(train, MaskSplit):
            raise TypeError(f"train={train!r} must be a MaskSplit where unlabelled or read_ignore is given")
        self.free = self._unlabelled_classes()
        self.teacher.fit(train)
        self.templates = self.teacher.templates
        self.text = self.teacher.text
        targets, free = self.pseudo_labels(train)  # (N, H, W) each
        device, epochs, n = self.backbone.device, self.recipe["epochs"], len(train)
        targets, free = targets.to(device), free.to(device)
        clip = self.teacher.inputs(train)[..., : self.backbone.embed_dim] if self.loss == "distil" else None
        features = TrainingFeatures(self.backbone, train, encoder=self.encoder, seed=self.seed)
        self.student = Student(3 if self.encoder is PIXELS else 152, self.backbone.embed_dim, **self.shape,
                               seed=self.seed).to(device)  # fmt: skip
        steps = epochs * max(1, n // self.recipe["batch_size"])
        allowed = torch.full((len(self.class_names),), -torch.inf, device=device)
        allowed[self.free] = 0.0

        def loss(indices, step):
            if self.loss == "distil":
                dense, side = self.student(features(indices)), round(clip.shape[1] ** 0.5)  # (b, E, h, w)
                mine = F.normalize(F.adaptive_avg_pool2d(dense, side), dim=1).flatten(2).transpose(1, 2)
                return (mine - clip[indices]).abs().mean()
            y = targets[indices]
            logits = enlarge(self.student.scores(features(indices), self.text), y.shape[-2:])  # (b, C, H, W)
            if step >= self.self_training * steps:
                own = (logits.detach() + allowed[:, None, None]).argmax(dim=1).to(y)
                y = torch.where(free[indices], own, y)
            agreement = (logits.detach().argmax(1) == y)[y != IGNORE].float().mean()
            return F.cross_entropy(logits, y.long(), ignore_index=IGNORE), {"agreement": agreement}

        def poly(step, steps):
            return (self.recipe["lr"] - self.min_lr) * (1 - step / steps) ** 0.9 + self.min_lr

        self.history = training.fit(
            list(self.student.parameters()), loss, n, schedule=poly, seed=self.seed, progress=self.progress,
            **self.recipe,
        )  # fmt: skip
        self.student.requires_grad_(False)

    def pseudo_labels(self, split):
        """(targets, free), each (N, H, W): what the network is trained on at first, and where the labels are CLIP's."""
        if self.unlabelled is None:
            targets = self.teacher.segment(split).cpu()
            free = split.labels != IGNORE if self.read_ignore else torch.ones_like(targets, dtype=torch.bool)
            return torch.where(free, targets, IGNORE).to(torch.uint8), free
        masks = split.labels
        free = torch.isin(masks, torch.tensor(self.free, dtype=masks.dtype))
        names = [self.class_names[c] for c in self.free]
        theirs = torch.tensor(self.free)[self.teacher.for_classes(names).segment(split).cpu()]
        return torch.where(free, theirs, masks.long()).to(torch.uint8), free

    def _unlabelled_classes(self):
        if self.unlabelled is None:
            return list(range(len(self.class_names)))
        wrong = sorted(set(self.unlabelled) - set(self.class_names))
        if wrong or not self.unlabelled or isinstance(self.unlabelled, str):
            raise ValueError(f"unlabelled={self.unlabelled!r} must be names of classes of {list(self.class_names)}")
        return [c for c, name in enumerate(self.class_names) if name in self.unlabelled]

    def inputs(self, x):
        """What the network reads of x; float images (B, 3, S, S) count as preprocessed."""
        ready = isinstance(x, torch.Tensor) and x.is_floating_point() and x.ndim == 4 and x.shape[1] == 3
        return self.encoder(self.backbone, x) if ready else super().inputs(x)

    def _maps(self, features):
        return self.student.scores(full_precision(features), self.text)

    def for_classes(self, class_names, templates=None):
        moved = self._moved(class_names, templates)
        moved.text = class_features(self.backbone, moved.class_names, moved.templates)
        return moved

    def learned_parameters(self):
        return {name: p.detach() for name, p in self.student.named_parameters()} if self._fitted else {}
