"""The prompt transformers' attention: equal to PyTorch's, the released slip, dropout by its own generator, seeds."""

import pytest
import torch
from torch import nn

from vlmcourse.methods.prompt_attention import PromptAttention, dropped, seeded


def pair(backbone, mix=True):
    """Ours, and PyTorch's with the same weights; biases that are not zero."""
    ours = seeded(lambda: PromptAttention(8, mix=mix), 3, backbone)
    theirs = nn.MultiheadAttention(8, 1, batch_first=mix)  # release: length-first, so the tokens count as a batch
    for linear in (ours.into, ours.out):
        nn.init.normal_(linear.bias, generator=torch.Generator().manual_seed(1))
    theirs.load_state_dict(
        {
            "in_proj_weight": ours.into.weight,
            "in_proj_bias": ours.into.bias,
            "out_proj.weight": ours.out.weight,
            "out_proj.bias": ours.out.bias,
        }
    )
    return ours, theirs


@pytest.mark.parametrize("mix", [True, False])
def test_it_is_pytorchs_attention_and_without_mixing_the_released_misuse(vit_backbone, mix):
    ours, theirs = pair(vit_backbone, mix)
    x = torch.randn(6, 8, generator=torch.Generator().manual_seed(0))
    expected, weights = theirs(x[None], x[None], x[None])
    torch.testing.assert_close(ours(x), expected[0])
    if mix:
        torch.testing.assert_close(ours.weights(x), weights[0])
    else:
        assert weights.shape == (6, 1, 1) and (weights == 1).all() and torch.equal(ours.weights(x), torch.eye(6))


def test_tokens_see_each_other_only_if_mixed(vit_backbone):
    for mix in (True, False):
        attention, _ = pair(vit_backbone, mix)
        x = torch.randn(4, 8, generator=torch.Generator().manual_seed(0)).requires_grad_()
        attention(x)[0].sum().backward()
        assert (x.grad[0] != 0).any() and ((x.grad[1:] != 0).any().item() is mix)


def test_weights_start_as_pytorchs_do_and_follow_the_seed(vit_backbone):
    before = torch.random.get_rng_state()
    one, same, other = (seeded(lambda: PromptAttention(64), seed, vit_backbone) for seed in (0, 0, 1))
    assert torch.equal(torch.random.get_rng_state(), before)
    assert torch.equal(one.into.weight, same.into.weight) and not torch.equal(one.into.weight, other.into.weight)
    bound = (6 / (64 + 192)) ** 0.5  # xavier
    assert one.into.weight.abs().max().item() == pytest.approx(bound, rel=0.01) and one.into.bias.abs().sum() == 0
    assert one.out.weight.abs().max().item() == pytest.approx(64**-0.5, rel=0.01) and one.out.bias.abs().sum() == 0


def test_dropout_has_its_own_generator_and_keeps_the_mean(vit_backbone):
    x, draws = torch.ones(200, 100), [torch.Generator().manual_seed(0) for _ in range(2)]
    once, again = (dropped(x, 0.25, draw) for draw in draws)
    assert torch.equal(once, again) and dropped(x, 0.0, None) is x
    torch.testing.assert_close(once.unique(), torch.tensor([0, 4 / 3]))
    assert once.mean().item() == pytest.approx(1, abs=0.01)
    attention = seeded(lambda: PromptAttention(8, dropout=0.5), 0, vit_backbone)
    tokens = torch.randn(6, 8, generator=torch.Generator().manual_seed(0))
    assert not torch.equal(attention(tokens, draws[0]), attention(tokens)), "with a generator: training"
    assert torch.equal(attention(tokens), attention(tokens))
