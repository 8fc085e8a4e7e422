"""The net from a feature to a prompt shift: formula, sizes, seeds, start, gradients, errors."""

import pytest
import torch
from torch import nn

from vlmcourse.methods.meta_net import MetaNet


def test_the_shift_is_the_formula():
    net, x = MetaNet(32, 10, seed=1), torch.randn(5, 3, 32, generator=torch.Generator().manual_seed(0))
    w1, b1, w2, b2 = net.parameters()
    assert w1.shape == (2, 32) and w2.shape == (10, 2)  # 32 // 16 = 2 hidden units
    torch.testing.assert_close(net(x), (x @ w1.T + b1).clamp(min=0) @ w2.T + b2)


@pytest.mark.parametrize(
    ("sizes", "count"),
    [((512, 512), 33_312), ((1024, 512), 98_880), ((8, 4), 8 + 1 + 4 + 4), ((6, 4, (3, 5)), 21 + 20 + 24)],
)
def test_sizes(sizes, count):
    net = MetaNet(*sizes)
    assert sum(p.numel() for p in net.parameters()) == count and all(p.requires_grad for p in net.parameters())
    assert net(torch.ones(sizes[0])).shape == (sizes[1],)


def test_hidden_layers_and_activation_of_conditional_bayesian_prompts():
    net = MetaNet(8, 3, (4, 4), activation=nn.ELU)
    assert [type(layer) for layer in net] == [nn.Linear, nn.ELU, nn.Linear, nn.ELU, nn.Linear]


def test_the_start_is_pytorchs_and_drawn_by_its_own_generator():
    before = torch.random.get_rng_state()
    net, same, other = MetaNet(400, 300, 100, seed=3), MetaNet(400, 300, 100, seed=3), MetaNet(400, 300, 100, seed=4)
    assert torch.equal(torch.random.get_rng_state(), before), "the global generator stays as it was"
    assert all(torch.equal(a, b) for a, b in zip(net.parameters(), same.parameters(), strict=True))
    assert not any(torch.equal(a, b) for a, b in zip(net.parameters(), other.parameters(), strict=True))
    for tensor, fan_in in zip(net.parameters(), (400, 400, 100, 100), strict=True):
        assert tensor.abs().max() <= fan_in**-0.5
        assert tensor.std().item() == pytest.approx((3 * fan_in) ** -0.5, rel=0.15)


def test_zero_start_gives_no_shift_but_a_gradient():
    net, x = MetaNet(32, 10, 8, zero_start=True), torch.ones(2, 32)
    assert torch.equal(net(x), torch.zeros(2, 10))
    net(x).sum().backward()
    assert net[-1].weight.grad.abs().sum() > 0 and net[-1].bias.grad.abs().sum() > 0


def test_half_precision_features_are_read_in_the_precision_of_the_weights():
    x = torch.ones(2, 32)
    assert torch.equal(MetaNet(32, 10)(x.half()), MetaNet(32, 10)(x))


def test_device_and_precision_of_the_weights(fake_cuda):
    exact = MetaNet(32, 10, seed=1, dtype=torch.float64)
    assert {p.dtype for p in exact.parameters()} == {torch.float64} and exact(torch.ones(2, 32)).dtype == torch.float64
    net = MetaNet(32, 10, device="cuda")
    assert net(torch.ones(2, 32, device="cuda")).device.type == "cuda"


@pytest.mark.parametrize(
    ("sizes", "message"),
    [((0, 4), "in_dim=0"), ((8, -1), "out_dim=-1"), ((8, 4, 0), "hidden=.0"), ((8, 4, (3, 2.5)), "hidden=.3, 2.5")],
)
def test_bad_sizes_are_named(sizes, message):
    with pytest.raises(ValueError, match=message):
        MetaNet(*sizes)
