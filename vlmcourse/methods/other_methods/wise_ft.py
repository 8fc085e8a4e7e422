"""WiSE-FT: Robust fine-tuning of zero-shot models, Wortsman et al., CVPR 2022, arXiv 2109.01903.

Zero-shot CLIP is a classifier whose linear head is the prompt ensemble. Fine-tune it, then average the *weights* before
and after:

    theta = (image tower, W (C, E), b (C,))       theta_0:  W = s T, b = 0     (T: class features of the templates)
    logits(x; theta) = W normalise(Image(x)) + b
    theta_1          = theta_0 after cross-entropy on all of theta ("end to end")
    theta(alpha)     = (1 - alpha) theta_0 + alpha theta_1      for every entry, batch norm statistics included

alpha = 0 is zero-shot, alpha = 1 plain fine-tuning; in between is often the best of both under distribution shift, at
the price of one model. The scale s lives in W, so it is trained and averaged. The two ends must share their start: a
head with random weights does not work. Forms:
    end to end      tune="tower": every weight of the image tower; tune="blocks" (ViT): all behind patch embedding and
                    positions; tokens are computed once (EmojiCLIP's embedding is its ImageNet stem, most of the cost)
    head only       freeze_encoder: features are computed once (test view). Logits are linear in theta then, so weight
                    averaging *is* averaging the two models' logits
    fisher          averages weighted by Fisher information, see weight_average.py. In the release only, which reads it
                    from files; here it is the empirical one: mean squared gradients over the training images
Recipe of the release: AdamW, 3e-5 (paper, few-shot: 1e-5), weight decay 0.1, 500 *steps* of linear warm-up, then a
cosine to 0, 10 epochs of 512 images, gradient norm at most 1, crops of 90 to 100 % without flips, 32-bit weights. Few
shots make few steps: then warm-up never ends, so set warmup_steps. Batch norms (ResNets) use and move the statistics of
the batch, as in the release, and averaging those is one reason for the poor results with ResNets that users report.
"""

import copy
import math

import torch
import torch.nn.functional as F

from vlmcourse import training
from vlmcourse.backbone.features import POOLED
from vlmcourse.methods.augment import TrainingFeatures
from vlmcourse.methods.base import Method, MethodCard, register
from vlmcourse.methods.class_text import check_templates, class_features
from vlmcourse.methods.tuned_tower import PIXELS, image_tower, with_own_parameters
from vlmcourse.methods.vision_prompts import TOKENS, encode_prompted
from vlmcourse.methods.weight_average import check_alpha, merge
from vlmcourse.tasks.base import Split

ALPHAS, TUNE, ROWS, HEAD = tuple(i / 10 for i in range(11)), ("tower", "blocks"), 256, ("head.weight", "head.bias")


@register
class WiSEFT(Method):
    """alpha: in [0, 1]; None: the best of 0, 0.1 ... 1 on val (of equals, the nearest to 0.5). `at(alpha)` is the same
    fit at another one. freeze_encoder, tune, fisher: see above. fisher_images: how many at most.
    label_smoothing: share. views: as in augment.py, None are fresh crops. update_batch_norm: False keeps statistics
    frozen. templates: of the zero-shot head, None: those of the split. After fit: `zero_shot` and `fine_tuned`, {name:
    tensor}; `searched`."""

    card = MethodCard(
        name="wise_ft",
        title="Robust fine-tuning of zero-shot models",
        venue="CVPR",
        year=2022,
        url="https://arxiv.org/abs/2109.01903",
        family="other",
        setup="few-shot supervised",
        learned="the weights of the image tower and a linear head, weight (C, E) and bias (C,)",
        idea="Average the weights of the zero-shot and the fine-tuned model: accuracy here, robustness elsewhere.",
        acts_on="image tower",
        needs="weights",
    )

    def __init__(
        self,
        backbone,
        *,
        alpha=0.5,
        freeze_encoder=False,
        tune="tower",
        fisher=False,
        fisher_floor=1e-8,
        fisher_images=128,
        label_smoothing=0.0,
        lr=3e-5,
        weight_decay=0.1,
        epochs=10,
        batch_size=512,
        warmup_steps=500,
        clip_norm=1.0,
        crop_scale=(0.9, 1.0),
        views=None,
        update_batch_norm=True,
        templates=None,
        seed=0,
        progress=False,
    ):
        super().__init__(backbone, seed=seed, progress=progress)
        self.alpha = alpha if alpha is None else check_alpha(alpha)
        if tune not in TUNE:
            raise ValueError(f"tune={tune!r} must be one of {TUNE}")
        for name, value in (("label_smoothing", label_smoothing), ("warmup_steps", warmup_steps)):
            if not value >= 0 or (name == "label_smoothing" and value >= 1):
                raise ValueError(f"{name}={value!r} must be >= 0" + " and < 1" * (name == "label_smoothing"))
        if not fisher_floor > 0 or not isinstance(fisher_images, int) or fisher_images < 1:
            raise ValueError(f"fisher_floor={fisher_floor!r} must be > 0, fisher_images={fisher_images!r} >= 1")
        if tune == "blocks" and not freeze_encoder:
            backbone.require_vit("WiSE-FT with tune='blocks'")
        self.freeze_encoder, self.tune = freeze_encoder, tune
        self.encoder = POOLED if freeze_encoder else PIXELS if tune == "tower" else TOKENS
        self.fisher, self.fisher_floor, self.fisher_images = fisher, fisher_floor, fisher_images
        self.label_smoothing, self.lr, self.warmup_steps = label_smoothing, lr, warmup_steps
        self.views, self.crop_scale, self.update_batch_norm = views, crop_scale, update_batch_norm
        self.own_templates = None if templates is None else check_templates(templates)
        self.recipe = {"epochs": epochs, "batch_size": batch_size, "lr": lr, "weight_decay": weight_decay}
        self.recipe |= {"clip_norm": clip_norm, "optimizer": "adamw", "drop_last": False}

    def _fit(self, train, val):
        if self.alpha is None and val is None:
            raise ValueError("alpha=None is chosen on validation images, so fit needs val")
        self.templates = self.own_templates or self.templates
        self.base = self.backbone.to(dtype=torch.float32)
        self.names, self.buffers = [], []
        if not self.freeze_encoder:
            self.names, self.buffers = image_tower(self.base, blocks_only=self.tune == "blocks")
        state = {**dict(self.base.model.named_parameters()), **dict(self.base.model.named_buffers())}
        text = class_features(self.backbone, self.class_names, self.templates).float()  # (C, E)
        head = {"head.weight": self.base.logit_scale * text, "head.bias": text.new_zeros(len(text))}
        self.zero_shot = {name: state[name].detach() for name in (*self.names, *self.buffers)} | head
        self.fine_tuned = self._fine_tune(train)
        self.fishers = None
        if self.fisher:
            self.fishers = tuple(self._fisher(theta, train) for theta in (self.zero_shot, self.fine_tuned))
        self.searched = []
        if self.alpha is None:
            self._fitted = True  # `at` and `logits` may be used from here
            self.searched = [(alpha, self.at(alpha).score(val)) for alpha in ALPHAS]
            self.alpha = max(self.searched, key=lambda pair: (pair[1], -abs(pair[0] - 0.5)))[0]
        self._use(self._merged(self.alpha))

    def _fine_tune(self, train):
        """theta_1: cross-entropy from theta_0 on."""
        tower, theta = self._tower(self.zero_shot, learn=True)
        options = {"crop_scale": self.crop_scale, "seed": self.seed, "encoder": self.encoder, "flip": False}
        images = TrainingFeatures(self.backbone, train, views=1 if self.freeze_encoder else self.views, **options)
        learned = [tensor for tensor in theta.values() if tensor.requires_grad]
        for module in tower.model.visual.modules():
            if isinstance(module, torch.nn.modules.batchnorm._BatchNorm) and not self.freeze_encoder:
                module.train(self.update_batch_norm)

        def loss(indices, step):
            logits = self._scores(tower, theta, images(indices))
            return F.cross_entropy(logits, images.labels[indices], label_smoothing=self.label_smoothing)

        schedule = warmup_cosine(self.lr, self.warmup_steps)
        self.history = training.fit(
            learned, loss, len(train), schedule=schedule, seed=self.seed, progress=self.progress, **self.recipe
        )
        return {name: tensor.detach() for name, tensor in theta.items()}

    def _tower(self, theta, learn=False):
        """(tower, {name: its tensors and the head's}): a twin of the backbone with these weights, in copies."""
        tower, own = with_own_parameters(self.base, self.names, self.buffers)
        own |= {name: theta[name].clone() for name in HEAD}
        with torch.no_grad():
            for name, tensor in own.items():
                tensor.copy_(theta[name])
                if name not in self.buffers:
                    tensor.requires_grad_(learn)
        return tower, own

    def _scores(self, tower, theta, x):
        """(b, C) logits of what `encoder` makes of images."""
        if x.ndim == 3:
            x = encode_prompted(tower, x)
        elif x.ndim == 4:
            x = tower.encode_image(x, batch_size=len(x))
        return x.float() @ theta["head.weight"].T + theta["head.bias"]

    def _fisher(self, theta, train):
        """{name: mean squared gradient of the log-likelihood}, of up to `fisher_images` training images, one by one."""
        tower, theta = self._tower(theta, learn=True)
        learned = {name: tensor for name, tensor in theta.items() if tensor.requires_grad}
        fisher = {name: torch.zeros_like(tensor) for name, tensor in learned.items()}
        order = torch.randperm(len(train), generator=torch.Generator().manual_seed(self.seed))[: self.fisher_images]
        for i in order.tolist():
            x, label = self.inputs(train.images[i : i + 1]), train.labels[i : i + 1].to(self.backbone.device)
            with torch.enable_grad():
                loss = F.cross_entropy(self._scores(tower, theta, x), label)
                gradients = torch.autograd.grad(loss, list(learned.values()), allow_unused=True)
            for name, gradient in zip(learned, gradients, strict=True):
                if gradient is not None:
                    fisher[name] += gradient.square() / len(order)
        return fisher

    def _merged(self, alpha):
        fishers = self.fishers or (None, None)
        return merge(self.zero_shot, self.fine_tuned, alpha, *fishers, floor=self.fisher_floor)

    def _use(self, theta):
        self.tower, self.theta = self._tower(theta)

    @torch.no_grad()
    def at(self, alpha):
        """The same fit at another alpha in [0, 1]: a copy that shares both ends."""
        self._require_fit()
        moved = copy.copy(self)
        moved.alpha = check_alpha(alpha)
        moved._use(moved._merged(moved.alpha))
        return moved

    def inputs(self, x):
        """As Method.inputs; ValueError for features, unless the tower was frozen: they are of the tower before."""
        if not self.freeze_encoder and isinstance(x, torch.Tensor) and x.ndim == 2:
            raise ValueError(
                f"x={tuple(x.shape)} are features of the frozen tower, but WiSE-FT changes it: give images or a Split "
                "(or fit with freeze_encoder=True)"
            )
        return super().inputs(x)

    def _parts(self, x):
        if isinstance(x, Split) and self.encoder is PIXELS:
            return x.images.split(ROWS)  # pixels are not worth a file
        return super()._parts(x)

    def _logits(self, x):
        return torch.cat([self._scores(self.tower, self.theta, part) for part in x.split(ROWS)])

    def learned_parameters(self):
        return {name: self.theta[name].detach() for name in (*self.names, *HEAD)} if self._fitted else {}


def warmup_cosine(lr, warmup_steps):
    """(step, steps) -> rate: linear up to lr in `warmup_steps`, then a cosine to 0 over the steps that are left."""

    def rate(step, steps):
        if step < warmup_steps:
            return lr * (step + 1) / warmup_steps
        return 0.5 * lr * (1 + math.cos(math.pi * (step - warmup_steps) / (steps - warmup_steps)))

    return rate
