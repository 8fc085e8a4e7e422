"""An image encoder trained without labels: SimCLR, Chen et al., ICML 2020, arXiv 2002.05709.

    z_1, z_2 = projector(network(two random crops of an image))             (B, d) each
    loss     = mean_i -log  exp(cos(z_i, z_j) / tau) / sum_{k != i} exp(cos(z_i, z_k) / tau)      (NT-Xent)

over all 2B rows i, with j the other crop of the same picture. To tell its own twin from all other crops, the network
must see what crop, colour and mirror image leave alone. Then the projector is thrown away; h = network(image) (B, H).

A crop here is a random resized crop with flip, colour jitter (brightness, contrast, saturation 0.8 s, hue 0.2 s, with
probability 0.8) and grey (0.2). Brightness, contrast and saturation follow SimCLR's order; hue is a turn of the colour
plane, which is close to, but not, the turn in HSV.
"""

import math

import torch
import torch.nn.functional as F
from torch import nn

from vlmcourse import training
from vlmcourse.backbone.augment import random_resized_crops

GREY = (0.299, 0.587, 0.114)  # luma of red, green, blue
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # of ImageNet


def nt_xent(z1, z2, temperature=0.5):
    """NT-Xent of two views z1, z2 (B, d), row i of one being the other view of row i; a scalar, symmetric in them."""
    z = F.normalize(torch.cat([z1, z2]), dim=-1)  # (2B, d)
    similarity = z @ z.T / temperature
    similarity = similarity.masked_fill(torch.eye(len(z), dtype=torch.bool, device=z.device), -torch.inf)
    partner = torch.arange(len(z), device=z.device).roll(len(z1))
    return F.cross_entropy(similarity, partner)


def colour_jitter(x, generator, strength=0.5, probability=0.8, grey=0.2):
    """Pixels x (B, 3, H, W) in [0, 1] with other brightness, contrast, saturation and hue, or without colour.

    strength: s, see above. probability, grey: share of images that are jittered, and that become grey.
    """
    u = torch.rand(6, len(x), 1, 1, 1, generator=generator).to(x)
    jittered = u[4] < probability
    bright, contrast, saturation = (
        torch.where(jittered, 1 + 0.8 * strength * (2 * u[i] - 1), torch.ones_like(u[i])).clamp(min=0) for i in range(3)
    )
    x = (bright * x).clamp(0, 1)
    mean = _luma(x).mean(dim=(-2, -1), keepdim=True)
    x = (contrast * x + (1 - contrast) * mean).clamp(0, 1)
    luma = _luma(x)
    angle = torch.where(jittered, 2 * math.pi * 0.2 * strength * (2 * u[3] - 1), torch.zeros_like(u[3]))
    colour = saturation * (x - luma)  # sums to 0 under the luma weights
    red, blue = colour[:, :1], colour[:, 2:]
    red, blue = angle.cos() * red - angle.sin() * blue, angle.sin() * red + angle.cos() * blue
    green = -(GREY[0] * red + GREY[2] * blue) / GREY[1]
    x = (luma + torch.cat([red, green, blue], dim=1)).clamp(0, 1)
    return torch.where(u[5] < grey, _luma(x), x)


def _luma(x):
    return (x * torch.tensor(GREY).to(x)[:, None, None]).sum(dim=1, keepdim=True)  # (B, 1, H, W)


def small_network(width=32):
    """For small images on a CPU: four 3x3 convolutions of stride 2 with BatchNorm, then the mean: H = 8 width."""
    sizes = (3, width, 2 * width, 4 * width, 8 * width)
    layers = []
    for fan_in, fan_out in zip(sizes, sizes[1:]):
        layers += [nn.Conv2d(fan_in, fan_out, 3, stride=2, padding=1, bias=False), nn.BatchNorm2d(fan_out), nn.ReLU()]
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten())


class SimCLR:
    """fit(images) trains without labels; features(images) -> (B, H). history: "loss", "lr" and "found", the share of
    crops whose nearest other crop is their twin.

    build: a function that makes the network (B, 3, size, size) -> (B, H), as small_network or, say, a ResNet-50 of
    torchvision without its last layer. projection: widths behind it. size: pixels of the crops; feature_size: side to
    which whole images are squashed for `features` (None: size). lr: for 256 images, scaled with the batch.
    ValueError for sizes and shares out of range.
    """

    def __init__(
        self, *, build=small_network, projection=(512, 128), temperature=0.5, size=112, feature_size=None, epochs=200,
        batch_size=256, lr=0.03, momentum=0.9, weight_decay=5e-4, crop_scale=(0.2, 1.0), flip=True, jitter=0.5,
        grey=0.2, seed=0, device="cpu", progress=False,
    ):  # fmt: skip
        if not temperature > 0:
            raise ValueError(f"temperature={temperature!r} must be a positive number")
        for name, value in (("size", size), ("feature_size", feature_size or size), ("batch_size", batch_size)):
            if not isinstance(value, int) or isinstance(value, bool) or value < 2:
                raise ValueError(f"{name}={value!r} must be a whole number >= 2")
        if not jitter >= 0 or not 0 <= grey <= 1:
            raise ValueError(f"jitter={jitter!r} must be >= 0 and grey={grey!r} in 0..1")
        self.build, self.projection, self.temperature = build, tuple(projection), temperature
        self.size, self.feature_size, self.device = size, feature_size or size, torch.device(device)
        self.augmentation = {"scale": tuple(crop_scale), "flip": flip, "size": size}
        self.jitter, self.grey, self.seed = jitter, grey, seed
        self.recipe = {
            "epochs": epochs, "batch_size": batch_size, "lr": lr * batch_size / 256, "momentum": momentum,
            "weight_decay": weight_decay, "schedule": "cosine_per_step", "seed": seed, "progress": progress,
        }  # fmt: skip
        self.network, self.history = None, {}

    def fit(self, images):
        """Train on images uint8 (N, 3, h, w), N >= 2. Returns self."""
        if images.ndim != 4 or images.dtype != torch.uint8 or len(images) < 2:
            raise ValueError(f"images={tuple(images.shape)} {images.dtype} must be uint8 (N, 3, h, w) with N >= 2")
        self.network, projector = self._start()
        draw = torch.Generator().manual_seed(self.seed + 1)

        def loss(indices, step):
            batch = images[indices].to(self.device)
            crops = torch.cat([self._crop(batch, draw) for _ in range(2)])
            z1, z2 = projector(self.network(self._standard(crops))).chunk(2)
            return nt_xent(z1, z2, self.temperature), {"found": _found(z1.detach(), z2.detach())}

        parameters = [*self.network.parameters(), *projector.parameters()]
        self.history = training.fit(parameters, loss, len(images), **self.recipe)
        self.network.eval().requires_grad_(False)  # BatchNorm: with the statistics of training from now on
        return self

    def untrained(self):
        """A twin whose network has the start of `fit` and no training, to measure what training added."""
        twin = SimCLR.__new__(SimCLR)
        twin.__dict__.update(self.__dict__, history={})
        twin.network = twin._start()[0].eval().requires_grad_(False)
        return twin

    def _start(self):
        with torch.random.fork_rng(devices=[]):  # layers start as PyTorch's do; the caller's stream is left alone
            torch.manual_seed(self.seed)
            network = self.build().to(self.device).train()
            with torch.no_grad():
                was = network.training
                width = network.eval()(torch.zeros(1, 3, self.size, self.size, device=self.device)).shape[-1]
                network.train(was)
            sizes, layers = (width, *self.projection), []
            for fan_in, fan_out in zip(sizes, sizes[1:]):
                layers += [nn.Linear(fan_in, fan_out), nn.ReLU()]
            return network, nn.Sequential(*layers[:-1]).to(self.device)

    def _crop(self, batch, draw):
        crops = random_resized_crops(batch, draw, **self.augmentation)
        return colour_jitter(crops, draw, self.jitter, grey=self.grey)

    def _standard(self, pixels):
        return (pixels - torch.tensor(MEAN).to(pixels)[:, None, None]) / torch.tensor(STD).to(pixels)[:, None, None]

    @torch.no_grad()
    def features(self, images, batch_size=256):
        """(N, H) of images: uint8 (N, 3, h, w), or float pixels in [0, 1]. Not normalised. RuntimeError before fit."""
        if self.network is None:
            raise RuntimeError("SimCLR is not fitted yet: call fit(images) first")
        parts = []
        for part in images.split(batch_size):
            pixels = part.to(self.device)
            pixels = pixels.float() / 255 if pixels.dtype == torch.uint8 else pixels.float()
            side = (self.feature_size, self.feature_size)
            if pixels.shape[-2:] != side:
                pixels = F.interpolate(pixels, side, mode="bilinear", antialias=True, align_corners=False)
            parts.append(self.network(self._standard(pixels)))
        return torch.cat(parts)


@torch.no_grad()
def _found(z1, z2):
    z = F.normalize(torch.cat([z1, z2]), dim=-1)
    nearest = (z @ z.T).fill_diagonal_(-torch.inf).argmax(dim=-1)
    return (nearest == torch.arange(len(z), device=z.device).roll(len(z1))).double().mean()
