"""Pseudo-labels: the K most confident of each predicted class (more in text_prompts/test_upl.py)."""

import pytest
import torch

from vlmcourse.methods.pseudo_labels import select

P = torch.tensor([[0.9, 0.1, 0.0], [0.6, 0.4, 0.0], [0.7, 0.3, 0.0], [0.2, 0.8, 0.0], [0.45, 0.55, 0.0]])


def test_the_k_most_confident_of_each_predicted_class():
    chosen = select(P, k=2)
    assert chosen.indices.tolist() == [0, 2, 3, 4] and chosen.labels.tolist() == [0, 0, 1, 1]
    torch.testing.assert_close(chosen.confidence, torch.tensor([0.9, 0.7, 0.8, 0.55]))
    assert select(P, k=1, class_equal=False).indices.tolist() == [0, 3, 2], "K C of all, whatever their class"
    assert select(P, k=1, conf_threshold=0.65).indices.tolist() == [0, 3, 2]
    assert len(select(P, k=None).indices) == 5


def test_logits_and_empty_selections_are_refused():
    with pytest.raises(ValueError, match="must be .* with rows that sum to 1"):
        select(3 * P)
    with pytest.raises(ValueError, match="leave no image"):
        select(P, k=0)
    with pytest.raises(ValueError, match="k=1.5"):
        select(P, k=1.5)
