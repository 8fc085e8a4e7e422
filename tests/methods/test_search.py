"""The grid search over weights of logits: equal to a plain loop, in parts or not; ties go to the first."""

import numpy as np
import pytest
import torch

import vlmcourse.methods.search as search


@pytest.fixture
def problem(generator):
    pairs = [(torch.randn(40, 5, generator=generator), torch.randn(40, 5, generator=generator)) for _ in range(3)]
    return pairs, torch.randint(0, 5, (40,), generator=generator)


@pytest.mark.parametrize("entries", [2**25, 100])
def test_it_equals_a_loop_in_one_part_and_in_many(problem, entries, monkeypatch):
    monkeypatch.setattr(search, "ENTRIES", entries)
    pairs, labels = problem
    weights = np.array([0.0, 0.5, 2.0])
    expected = [[((r + w * v).argmax(-1) == labels).double().mean().item() for w in weights] for r, v in pairs]
    assert np.allclose(search.accuracy_grid(iter(pairs), labels, weights), expected)
    assert len(np.unique(expected)) > 3


def test_ties_go_to_the_first():
    assert search.first_best(np.array([[0.1, 0.5], [0.5, 0.5]])) == (0, 1)
