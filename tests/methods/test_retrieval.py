"""The store and its search: golden votes, exclusion by image, order, degenerate settings, errors."""

import pytest
import torch
import torch.nn.functional as F

from vlmcourse.methods.retrieval import FeatureStore, Neighbours, image_ids


def unit(*shape, seed=0):
    return F.normalize(torch.randn(*shape, generator=torch.Generator().manual_seed(seed)), dim=-1)


@pytest.mark.parametrize(
    ("tau", "expected"),
    [(1, [0.28865, 0.49751, 0.21384]), (5, [0.45505, 0.44341, 0.10154]), (100, [0.99995, 0.00005, 0.0])],
)
def test_votes_are_those_of_the_reference(tau, expected):
    store = FeatureStore(torch.eye(4), torch.tensor([0, 1, 1, 2]))
    votes = store.vote(store.search(torch.tensor([[0.9, 0.8, 0.7, 0.6]]), 4), 3, tau)
    torch.testing.assert_close(votes, torch.tensor([expected]), atol=1e-5, rtol=0)


def test_the_nearest_come_first_and_votes_sum_to_one():
    store, queries = FeatureStore(unit(20, 8), torch.arange(20) % 3), unit(5, 8, seed=1)
    found = store.search(queries, 4)
    best = (queries @ store.keys.T).topk(4)
    assert torch.equal(found.index, best.indices) and torch.equal(found.similarity, best.values)
    torch.testing.assert_close(store.vote(found, 3, 10).sum(-1), torch.ones(5))
    by_hand = sum(w * store.keys[j] for w, j in zip(found.weights(10)[2], found.index[2], strict=True))
    torch.testing.assert_close(store.average(found, store.keys, 10)[2], by_hand)


def test_all_neighbours_with_equal_weights_give_the_prior():
    store = FeatureStore(unit(6, 4), torch.tensor([0, 0, 0, 1, 1, 2]))
    votes = store.vote(store.search(unit(2, 4, seed=1), 100), 3, tau=1e-6)
    torch.testing.assert_close(votes, torch.tensor([[0.5, 1 / 3, 1 / 6]]).expand(2, 3), atol=1e-5, rtol=0)


def test_the_order_of_the_store_does_not_matter():
    keys, labels, order = unit(20, 8), torch.arange(20) % 3, torch.randperm(20)
    one, two = FeatureStore(keys, labels), FeatureStore(keys[order], labels[order])
    queries = unit(5, 8, seed=1)
    votes = [store.vote(store.search(queries, 7), 3, 10) for store in (one, two)]
    torch.testing.assert_close(*votes)


def test_excluded_images_are_never_found_in_any_of_their_views():
    keys = unit(6, 8)
    store = FeatureStore(torch.cat([keys, keys]), torch.arange(12) % 2, ids=torch.arange(12) % 6)
    found = store.search(keys, 12, exclude=torch.arange(6))
    assert all((store.ids[index[index >= 0]] != i).all() for i, index in enumerate(found.index))
    assert (found.index == -1).sum(1).tolist() == [2] * 6 and (found.weights(5)[:, -2:] == 0).all()
    torch.testing.assert_close(store.vote(found, 2, 5).sum(-1), torch.ones(6))


def test_a_query_without_neighbours_has_no_vote():
    store = FeatureStore(unit(1, 4), torch.tensor([0]))
    found = store.search(unit(1, 4, seed=1), 3, exclude=torch.tensor([0]))
    assert found.index.tolist() == [[-1]] and store.vote(found, 2).tolist() == [[0.0, 0.0]]
    assert store.average(found, store.keys).abs().sum() == 0


def test_nothing_carries_gradients():
    store = FeatureStore(unit(5, 4).requires_grad_(), torch.arange(5))
    found = store.search(unit(2, 4).requires_grad_(), 2)
    assert not store.keys.requires_grad and not found.similarity.requires_grad and isinstance(found, Neighbours)


def test_ids_follow_images_to_their_origin(train, val):
    few, many = train.subset([5, 2, 7]), train.subset([7, 1, 5])
    ids, stored = image_ids(few, many)
    assert (ids[:, None] == stored).tolist() == [[False, False, True], [False] * 3, [True, False, False]]
    ids, stored = image_ids(few, val)
    assert not (ids[:, None] == stored).any() and len(stored.unique()) == len(val)


def test_errors():
    with pytest.raises(ValueError, match=r"keys \(3, 4\), labels \(2,\)"):
        FeatureStore(unit(3, 4), torch.arange(2))
    with pytest.raises(ValueError, match="k=0"):
        FeatureStore(unit(3, 4), torch.arange(3)).search(unit(1, 4), 0)
