"""VP: Exploring Visual Prompts for Adapting Large-Scale Models, Bahng, Jahanian, Sankaranarayanan, Isola, arXiv
2203.17274, 2022. One picture per task, added to every image in front of a model that is not touched.

    x' = x + delta                        x (B, 3, S, S) resized and normalised; delta (3, S, S), equal for all images
    CLIP:          z = s f(x') W^T        (B, C); f, W (C, E) L2-normalised, W from "This is a photo of a {}"
    vision only:   z = g(x')[:, map]      g (B, K) logits of a frozen classifier; output map(i) is read as class i.
                                          The paper's map is hard-coded and has no meaning: class i -> output i
    loss = CE(z, y)

Designs of delta, p the prompt size (30 of S = 224):
    padding       four strips, up and down (3, p, S), left and right (3, S - 2p, p): 6 p (2S - 2p) numbers, 69,840
    fixed_patch   (3, p, p) in the upper left corner: 2,700
    random_patch  the same, at a new place for each batch, at test time too
Everywhere else delta is 0. Nothing is replaced, shrunk or clipped: pixels may leave the range of pictures.

Recipe: SGD with lr 40 (gradients of the mean loss in a pixel are tiny), momentum 0.9, no weight decay, N(0, 1) at the
start, batch 256, 1000 epochs, linear warm-up over 1000 steps, then a cosine per step; no augmentation. The rate belongs
to normalised pixels of a 224-pixel CLIP. At another S the default p covers the same share of the side.

Differences from the official code: its best epoch on *test* images is not kept, but the last; text features are encoded
once; a random patch can reach the last row and column, which `choice(224 - p)` cannot, and its places come from the
seed, so that a test can be repeated.
"""

import math

import torch
import torch.nn.functional as F

from vlmcourse import training
from vlmcourse.backbone.features import Encoder
from vlmcourse.methods.base import Method, MethodCard, full_precision, register
from vlmcourse.methods.class_text import check_templates, class_features
from vlmcourse.tasks.base import Split

DESIGNS = ("padding", "fixed_patch", "random_patch")
PAPER_TEMPLATE = "This is a photo of a {}"
PIXELS = Encoder("pixels", lambda backbone, images, batch_size: backbone.preprocess(images), ndim=4, unit=False)


@register
class VP(Method):
    """design: one of DESIGNS. prompt_size: p; None takes 30/224 of the side. init_std: of the start; 0 starts from the
    images as they are. warmup_steps: of the rate. templates: of the class texts; None takes the split's.
    classifier: None for CLIP, or a frozen function of normalised pixels (B, 3, S, S) to logits (B, K), the vision-only
    model. label_map: (C,) which of its outputs to read; None the first C."""

    card = MethodCard(
        name="vp",
        title="Exploring Visual Prompts for Adapting Large-Scale Models",
        venue="arXiv",
        year=2022,
        url="https://arxiv.org/abs/2203.17274",
        family="visual prompt",
        setup="few-shot supervised",
        learned="a frame of pixels 6 p (2S - 2p), or a patch (3, p, p)",
        idea="Adapt the input instead of the model: learn one perturbation that is added to every image.",
        acts_on="image input",
        needs="inputs",
    )
    encoder = PIXELS

    def __init__(
        self,
        backbone,
        *,
        design="padding",
        prompt_size=None,
        init_std=1.0,
        templates=None,
        classifier=None,
        label_map=None,
        epochs=1000,
        lr=40.0,
        batch_size=256,
        momentum=0.9,
        weight_decay=0.0,
        warmup_steps=1000,
        seed=0,
        progress=False,
    ):
        super().__init__(backbone, seed=seed, progress=progress)
        size = round(30 / 224 * backbone.image_size) if prompt_size is None else prompt_size
        largest = backbone.image_size // 2 if design == "padding" else backbone.image_size
        if design not in DESIGNS:
            raise ValueError(f"design={design!r} must be one of {DESIGNS}")
        if not isinstance(size, int) or not 1 <= size <= largest:
            raise ValueError(f"prompt_size={size!r} must be a whole number from 1 to {largest} for design={design!r}")
        if not init_std >= 0:
            raise ValueError(f"init_std={init_std!r} must be a number >= 0")
        if not isinstance(warmup_steps, int) or warmup_steps < 0:
            raise ValueError(f"warmup_steps={warmup_steps!r} must be a whole number >= 0")
        if not (classifier is None or callable(classifier)):
            raise ValueError(f"classifier={type(classifier).__name__} must be a function of pixels, or None for CLIP")
        if classifier is None and label_map is not None:
            raise ValueError("label_map is for a classifier's outputs: CLIP reads its classes from their names")
        self.design, self.prompt_size, self.init_std = design, size, init_std
        self.own_templates = None if templates is None else check_templates(templates)
        self.classifier, self.own_map, self.warmup_steps = classifier, label_map, warmup_steps
        self.recipe = {"epochs": epochs, "lr": lr, "batch_size": batch_size, "momentum": momentum}
        self.recipe["weight_decay"] = weight_decay

    def _fit(self, train, val):
        self.templates = self.own_templates or self.templates
        self._read_classes()
        self.parts = {name: part.requires_grad_() for name, part in self._start().items()}
        labels, places = train.labels.to(self.backbone.device), torch.Generator().manual_seed(self.seed + 1_000_003)

        def loss(indices, step):
            pixels = full_precision(self.backbone.preprocess(train.images[indices]))
            return F.cross_entropy(self._scores(pixels + self.delta(self._place(places))), labels[indices])

        def rate(step, steps):
            return cosine_lr(step, steps, self.recipe["lr"], self.warmup_steps)

        self.history = training.fit(
            self.parts.values(), loss, len(train), schedule=rate, drop_last=False, seed=self.seed,
            progress=self.progress, **self.recipe,
        )  # fmt: skip
        self.parts = {name: part.detach() for name, part in self.parts.items()}

    def _read_classes(self):
        """The frozen head: class texts (C, E), or the outputs of the classifier that stand for the classes, (C,)."""
        C = len(self.class_names)
        if self.classifier is None:
            self.text = class_features(self.backbone, self.class_names, self.templates)
        else:
            self.label_map = torch.arange(C) if self.own_map is None else torch.as_tensor(self.own_map)
            if self.label_map.shape != (C,):
                raise ValueError(f"label_map={self.own_map!r} must have one output for each of the {C} classes")

    def _start(self):
        """{name: tensor} of what is learned, from N(0, init_std^2)."""
        S, p, draw = self.backbone.image_size, self.prompt_size, torch.Generator().manual_seed(self.seed)
        sides = {"up": (3, p, S), "down": (3, p, S), "left": (3, S - 2 * p, p), "right": (3, S - 2 * p, p)}
        shapes = sides if self.design == "padding" else {"patch": (3, p, p)}
        return {
            name: (self.init_std * torch.randn(shape, generator=draw)).to(self.backbone.device)
            for name, shape in shapes.items()
        }

    def _place(self, draw):
        """(row, column) of the patch's upper left corner for one batch."""
        if self.design != "random_patch":
            return 0, 0
        return torch.randint(self.backbone.image_size - self.prompt_size + 1, (2,), generator=draw).tolist()

    def delta(self, place=(0, 0)):
        """(3, S, S) what is added to normalised pixels, differentiable; place: upper left corner of a patch."""
        S, p = self.backbone.image_size, self.prompt_size
        if self.design == "padding":
            up, down, left, right = (self.parts[name] for name in ("up", "down", "left", "right"))
            middle = torch.cat([left, left.new_zeros(3, S - 2 * p, S - 2 * p), right], dim=2)
            return torch.cat([up, middle, down], dim=1)
        row, column = place
        return F.pad(self.parts["patch"], (column, S - p - column, row, S - p - row))

    def _scores(self, pixels):
        """(B, C) logits of prompted pixels, by the class texts or by the classifier's outputs."""
        if self.classifier is not None:
            outputs = full_precision(self.classifier(pixels.to(self.backbone.dtype)))  # (B, K)
            return outputs[:, self.label_map.to(outputs.device)]
        features = full_precision(self.backbone.encode_image(pixels, batch_size=len(pixels), normalise=False))
        return self.backbone.logit_scale * F.normalize(features, dim=-1) @ self.text.T

    def inputs(self, x):
        """(B, 3, S, S) normalised pixels of a Split, of images, or of pixels that are normalised already."""
        return super().inputs(x.images if isinstance(x, Split) else x)  # nothing to cache: the whole tower must run

    def _logits(self, pixels):
        places = torch.Generator().manual_seed(self.seed)
        batches = pixels.split(self.recipe["batch_size"])
        return torch.cat([self._scores(batch + self.delta(self._place(places))) for batch in batches])

    def for_classes(self, class_names, templates=None):
        if self.classifier is not None:  # its outputs mean these classes only
            return super().for_classes(class_names, templates)
        moved = self._moved(class_names, templates)
        moved._read_classes()
        return moved

    def learned_parameters(self):
        return {name: part.detach() for name, part in self.parts.items()} if self._fitted else {}


def cosine_lr(step, steps, lr, warmup_steps=1000):
    """Rate of one step: linear up to lr in `warmup_steps`, then a cosine that ends near 0 after `steps` in all."""
    if step < warmup_steps:
        return lr * (step + 1) / warmup_steps
    return 0.5 * lr * (1 + math.cos(math.pi * (step - warmup_steps) / (steps - warmup_steps)))
