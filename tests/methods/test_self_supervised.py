"""SimCLR: the loss against its definition, the colour jitter, training, evaluation mode, seeds, errors."""

import math

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from vlmcourse.methods.self_supervised import SimCLR, colour_jitter, nt_xent, small_network

QUICK = {"size": 16, "epochs": 2, "batch_size": 8}


def drawn(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("tau", [0.1, 0.5])
def test_nt_xent_is_its_definition(tau):
    z1, z2 = drawn(5, 7), drawn(5, 7, seed=1)
    z = F.normalize(torch.cat([z1, z2]).double(), dim=-1)
    total = 0.0
    for i in range(10):
        j = (i + 5) % 10
        others = sum(math.exp(z[i] @ z[k] / tau) for k in range(10) if k != i)
        total -= math.log(math.exp(z[i] @ z[j] / tau) / others) / 10
    assert nt_xent(z1, z2, tau).item() == pytest.approx(total, abs=1e-5)
    torch.testing.assert_close(nt_xent(z1, z2, tau), nt_xent(z2, z1, tau))
    torch.testing.assert_close(nt_xent(3 * z1, z2, tau), nt_xent(z1, z2, tau))


def test_nt_xent_rewards_equal_twins_and_different_strangers():
    same = F.one_hot(torch.arange(4), 8).float()
    best = nt_xent(same, same)
    assert best < nt_xent(same, drawn(4, 8)) < nt_xent(same, same.roll(1, 0))
    assert nt_xent(torch.ones(4, 8), torch.ones(4, 8)).item() == pytest.approx(math.log(7)), "collapse: chance"


def test_jitter_without_strength_changes_nothing_and_grey_has_no_colour():
    x = torch.rand(6, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    draw = torch.Generator().manual_seed(1)
    torch.testing.assert_close(colour_jitter(x, draw, strength=0.0, grey=0.0), x, atol=1e-5, rtol=0)
    torch.testing.assert_close(colour_jitter(x, draw, strength=0.9, probability=0.0, grey=0.0), x, atol=1e-5, rtol=0)
    grey = colour_jitter(x, draw, grey=1.0)
    torch.testing.assert_close(grey[:, 0], grey[:, 2])
    jittered = colour_jitter(x, draw, grey=0.0)
    assert jittered.min() >= 0 and jittered.max() <= 1
    changed = (jittered - x).abs().amax(dim=(1, 2, 3)) > 0.01
    assert changed.any()


def test_jitter_keeps_grey_pictures_grey():
    x = torch.rand(6, 1, 8, 8, generator=torch.Generator().manual_seed(0)).expand(-1, 3, -1, -1)
    jittered = colour_jitter(x, torch.Generator().manual_seed(1))
    torch.testing.assert_close(jittered[:, 0], jittered[:, 1], atol=1e-5, rtol=0)
    assert not torch.allclose(jittered, x, atol=1e-2)


def test_training_finds_twins_more_often():
    blocks = torch.rand(32, 3, 3, 3, generator=torch.Generator().manual_seed(0))  # 32 pictures, each with own colours
    images = (255 * F.interpolate(blocks, (16, 16))).to(torch.uint8)
    ssl = SimCLR(size=16, epochs=12, batch_size=16, lr=2.0, jitter=0.1, grey=0.0).fit(images)
    assert ssl.history["loss"][-1] < ssl.history["loss"][0] - 0.3
    assert ssl.history["found"][-1] > ssl.history["found"][0] + 0.2
    start = ssl.untrained()
    assert start.history == {} and ssl.history
    assert start.features(images).shape == ssl.features(images).shape == (32, 256)
    assert not torch.allclose(start.features(images), ssl.features(images))
    again = SimCLR(size=16, epochs=0, seed=0).fit(images)
    torch.testing.assert_close(start.features(images), again.features(images))


def test_features_do_not_depend_on_the_batch_or_on_how_pixels_come(splits):
    images = splits(per_class=5).images
    ssl = SimCLR(**QUICK).fit(images)
    assert not ssl.network.training and not any(p.requires_grad for p in ssl.network.parameters())
    features = ssl.features(images)
    torch.testing.assert_close(ssl.features(images[3:4]), features[3:4], atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(ssl.features(images, batch_size=7), features, atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(ssl.features(images.float() / 255), features, atol=1e-5, rtol=1e-4)


def test_another_network_and_another_size_for_features(splits):
    images, sizes = splits(per_class=3).images, []

    class Mean(nn.Module):
        def __init__(self):
            super().__init__()
            self.linear = nn.Linear(3, 5)

        def forward(self, x):
            sizes.append(x.shape[-1])
            return self.linear(x.mean(dim=(-2, -1)))

    ssl = SimCLR(build=Mean, feature_size=24, **QUICK).fit(images)
    assert set(sizes) == {16} and ssl.features(images).shape == (12, 5) and sizes[-1] == 24


def test_seeds_and_the_global_generator(splits):
    images = splits(per_class=3).images
    before = torch.get_rng_state()
    one, same, other = (SimCLR(seed=s, **QUICK).fit(images).features(images) for s in (1, 1, 2))
    assert torch.equal(one, same) and not torch.allclose(one, other)
    assert torch.equal(torch.get_rng_state(), before)


def test_the_small_network_is_small():
    assert sum(p.numel() for p in small_network().parameters()) < 400_000
    assert small_network(8)(torch.zeros(2, 3, 28, 28)).shape == (2, 64)


def test_bad_arguments_are_named(splits):
    for arguments, message in (
        ({"temperature": 0}, "temperature=0"),
        ({"size": 1}, "size=1"),
        ({"batch_size": 1}, "batch_size=1"),
        ({"jitter": -1}, "jitter=-1"),
        ({"grey": 2}, "grey=2"),
    ):
        with pytest.raises(ValueError, match=message):
            SimCLR(**arguments)
    with pytest.raises(ValueError, match="images=.*must be uint8"):
        SimCLR(**QUICK).fit(torch.zeros(4, 3, 16, 16))
    with pytest.raises(RuntimeError, match=r"call fit\(images\) first"):
        SimCLR(**QUICK).features(splits().images)
