"""The key-value cache: keys, values, votes, and the grid search against a naive loop."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from vlmcourse.methods.cache_model import cache_keys, cache_values, cache_vote, search_grid, search_on_validation


@pytest.fixture
def cache():
    """Random queries, keys, values, zero-shot logits, labels; 5 classes, 4 shots, 30 queries; float64 against ties."""
    g = torch.Generator().manual_seed(0)
    labels = torch.arange(5).repeat_interleave(4)
    keys = F.normalize(torch.randn(20, 8, generator=g, dtype=torch.float64), dim=-1)
    queries = F.normalize(torch.randn(30, 8, generator=g, dtype=torch.float64), dim=-1)
    zero_shot = torch.randn(30, 5, generator=g, dtype=torch.float64)
    return queries, keys, cache_values(labels, 5, like=keys), zero_shot, torch.randint(0, 5, (30,), generator=g), labels


def test_keys_are_averaged_before_they_are_normalised():
    views = torch.tensor([[[3.0, 0.0]], [[0.0, 1.0]]])  # two views of one image, of unequal norm
    torch.testing.assert_close(cache_keys(views), F.normalize(torch.tensor([[1.5, 0.5]]), dim=-1))
    assert not torch.allclose(cache_keys(views), F.normalize(F.normalize(views, dim=-1).mean(0), dim=-1))
    with pytest.raises(ValueError, match=r"views=\(2, 3\)"):
        cache_keys(torch.zeros(2, 3))


def test_vote_is_the_formula_summed_by_hand(cache):
    queries, keys, values, _, _, labels = cache
    vote, beta = cache_vote(queries @ keys.T, values, 3.0), 3.0
    for b in (0, 7):
        for c in range(5):
            by_hand = sum(torch.exp(-beta * (1 - queries[b] @ keys[n])) for n in range(20) if labels[n] == c)
            torch.testing.assert_close(vote[b, c], by_hand)


def test_beta_zero_gives_every_class_its_number_of_shots(cache):
    queries, keys, values, *_ = cache
    torch.testing.assert_close(cache_vote(queries @ keys.T, values, 0.0), torch.full((30, 5), 4.0, dtype=torch.float64))


def test_a_key_at_huge_beta_votes_only_for_its_own_label(cache):
    _, keys, values, _, _, labels = cache
    torch.testing.assert_close(cache_vote(keys @ keys.T, values, 1e6), F.one_hot(labels, 5).double(), atol=1e-6, rtol=0)


def test_grid_is_the_documented_one():
    betas, alphas = search_grid((7, 3), (200, 20))
    assert len(betas) == 200 and len(alphas) == 20
    np.testing.assert_allclose([betas[0], betas[1], betas[-1]], [0.1, 0.1 + 6.9 / 200, 0.1 + 199 * 6.9 / 200])
    np.testing.assert_allclose([alphas[0], alphas[1], alphas[-1]], [0.1, 0.1 + 2.9 / 20, 0.1 + 19 * 2.9 / 20])
    assert betas.max() < 7 and alphas.max() < 3
    assert search_grid((7, 3), (200, 20), include_zero=True)[1][0] == 0.0


@pytest.mark.parametrize(("scale", "steps"), [((7,), (2, 2)), ((7, 0), (2, 2)), ((7, 3), (2, -1)), ((7, 3), (0, 2))])
def test_bad_grids_are_named(scale, steps):
    with pytest.raises(ValueError, match="search_s"):
        search_grid(scale, steps)


@pytest.mark.parametrize("include_zero", [False, True])
def test_search_equals_a_naive_loop(cache, include_zero):
    queries, keys, values, zero_shot, labels, _ = cache
    grid = search_grid((5, 4), (12, 7), include_zero)
    found = search_on_validation(queries @ keys.T, values, zero_shot, labels, *grid)
    best, best_beta, best_alpha = -1.0, None, None
    for i, beta in enumerate(grid[0]):
        for j, alpha in enumerate(grid[1]):
            right = 0
            for b in range(30):
                vote = torch.exp(-beta * (1 - keys @ queries[b])) @ values
                right += int((zero_shot[b] + alpha * vote).argmax() == labels[b])
            assert found.accuracy[i, j] == right / 30
            if right / 30 > best:
                best, best_beta, best_alpha = right / 30, beta, alpha
    assert (found.beta, found.alpha) == (best_beta, best_alpha)
    if include_zero:
        assert best >= (zero_shot.argmax(-1) == labels).double().mean()
