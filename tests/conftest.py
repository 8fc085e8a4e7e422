"""Shared fixtures: tiny CLIPs with random weights, built through open_clip's own classes; nothing is downloaded."""

import copy

import pytest
import torch

TEXT = {"context_length": 32, "vocab_size": 49408, "width": 32, "heads": 4, "layers": 3}
VIT = {"image_size": 32, "patch_size": 8, "width": 48, "head_width": 12, "layers": 3}
RESNET = {"image_size": 64, "layers": [1, 1, 1, 1], "width": 8, "head_width": 64}


@pytest.fixture(scope="session")
def make_clip():
    """make_clip("vit" | "resnet", seed=0, vision={}, text={}, **options) -> open_clip.CLIP, random weights, E = 16."""
    import open_clip

    def make(tower: str, seed: int = 0, vision: dict | None = None, text: dict | None = None, **options):
        image = {"vit": VIT, "resnet": RESNET}[tower] | (vision or {})
        with torch.random.fork_rng(devices=[]):  # torch's global generator is left as it was
            torch.manual_seed(seed)
            model = open_clip.CLIP(16, image, TEXT | (text or {}), **options)
            for name, parameter in model.named_parameters():  # zeros and ones would hide mistakes
                if name.endswith(("in_proj_bias", "out_proj.bias", "ln_1.weight", "ln_1.bias", "bn3.weight")):
                    torch.nn.init.normal_(parameter, mean=float("weight" in name), std=0.2)
        return model.eval()

    return make


@pytest.fixture(scope="session")
def make_backbone(make_clip):
    """make_backbone("vit" | "resnet", …as make_clip…) -> Backbone, for tests that change it or need another one."""
    import open_clip

    from vlmcourse.backbone.clip import Backbone

    def make(tower: str, **options) -> Backbone:
        model = make_clip(tower, **options)
        return Backbone(model, open_clip.SimpleTokenizer(context_length=model.context_length), name=f"tiny-{tower}")

    return make


@pytest.fixture(scope="session")
def vit_backbone(make_backbone):
    """A ViT CLIP: S = 32, 4 x 4 patches, Dv = 48, D = 32, L = 32, E = 16, 3 layers in each tower."""
    return make_backbone("vit")


@pytest.fixture(scope="session")
def resnet_backbone(make_backbone):
    """A ModifiedResNet CLIP: S = 64, 2 x 2 positions, the same text tower, E = 16."""
    return make_backbone("resnet")


@pytest.fixture
def fake_cuda():
    """fake_cuda(backbone) -> a twin on "cuda" whose tensors carry shape, dtype and device but no numbers.

    Operations refuse to mix devices, so code for GPUs is checked on a machine without one. While the fixture is in use
    every new tensor is fake, so nothing may look at values.
    """
    from torch._subclasses.fake_tensor import FakeTensorMode

    def fake(tensor):
        return torch.empty(tuple(tensor.shape), dtype=tensor.dtype, device="cuda")

    def twin(backbone):
        new, model = copy.copy(backbone), backbone.model
        weights = {id(p): torch.nn.Parameter(fake(p), requires_grad=False) for p in model.parameters()}
        new.model = copy.deepcopy(model, weights | {id(b): fake(b) for b in model.buffers()})
        new.device = torch.device("cuda")
        new.logit_scale, new.mean, new.std = map(fake, (backbone.logit_scale, backbone.mean, backbone.std))
        return new

    with FakeTensorMode():
        yield twin


@pytest.fixture
def generator() -> torch.Generator:
    return torch.Generator().manual_seed(0)


@pytest.fixture
def images(generator) -> torch.Tensor:
    """Five random pictures, uint8 (5, 3, 32, 32)."""
    return torch.randint(0, 256, (5, 3, 32, 32), generator=generator, dtype=torch.uint8)
