"""A store of labelled image features and the search for neighbours in it, for methods that look images up.

keys   K (N, E) L2-normalised, values y (N,) labels, ids (N,) numbers of the images: all frozen, without gradients
search the k keys with the largest inner product with a query q (B, E), leaving out keys of the query's own image
vote   p_knn(c) = sum over the neighbours j of class c of w_j,   w = softmax(tau q . k_j)      (B, C), rows sum to 1

Image ids keep an image from finding itself (or another view of itself) when queries are training images.
"""

from typing import NamedTuple

import torch


class Neighbours(NamedTuple):
    """index (B, k) into the store, nearest first; similarity (B, k) inner products; -1 and -inf where none is left."""

    index: torch.Tensor
    similarity: torch.Tensor

    def weights(self, tau=1.0):
        """(B, k) softmax(tau similarity); 0 for missing neighbours, a row without any is all 0."""
        return (tau * self.similarity).softmax(dim=-1).nan_to_num(0.0)


class FeatureStore:
    """keys (N, E), labels (N,) in 0..C-1, ids (N,) integers (None: 0..N-1)."""

    def __init__(self, keys, labels, ids=None):
        ids = torch.arange(len(keys)) if ids is None else torch.as_tensor(ids)
        if keys.ndim != 2 or len(labels) != len(keys) or len(ids) != len(keys):
            raise ValueError(
                f"keys {tuple(keys.shape)}, labels ({len(labels)},) and ids ({len(ids)},) must be (N, E), (N,) and (N,)"
            )
        self.keys, self.labels, self.ids = keys.detach(), labels.to(keys.device), ids.to(keys.device)

    def __len__(self):
        return len(self.keys)

    def search(self, queries, k, exclude=None):
        """Neighbours of queries (B, E). exclude: (B,) ids whose keys are not looked at, one for each query.

        Equal similarities go to the smaller index. k is cut to the size of the store.
        """
        if not isinstance(k, int) or k < 1:
            raise ValueError(f"k={k!r} must be a whole number >= 1")
        similarity = queries.detach() @ self.keys.to(queries).T  # (B, N)
        if exclude is not None:
            own = torch.as_tensor(exclude).to(self.ids)[:, None] == self.ids  # (B, N)
            similarity = similarity.masked_fill(own, -torch.inf)
        similarity, index = similarity.sort(dim=-1, descending=True, stable=True)
        similarity, index = similarity[:, :k], index[:, :k]
        return Neighbours(index.masked_fill(similarity == -torch.inf, -1), similarity)

    def average(self, neighbours, values, tau=1.0):
        """(B, D): the neighbours' weighted average of values (N, D), one row for each key."""
        weights = neighbours.weights(tau)  # (B, k)
        return (weights[..., None] * values[neighbours.index].to(weights)).sum(dim=1)  # index -1 has weight 0

    def vote(self, neighbours, num_classes, tau=1.0):
        """(B, C) class probabilities p_knn; all 0 for a query without neighbours."""
        weights = neighbours.weights(tau)
        votes = weights.new_zeros(len(weights), num_classes)
        return votes.scatter_add(1, self.labels[neighbours.index], weights)  # index -1 has weight 0


def image_ids(split, store):
    """(ids of `split` (n,), ids of `store` (N,)): equal numbers mean the same image of the same original split.

    Both are Splits; images of different origins get different numbers.
    """
    (root, here), (other, there) = split.origin, store.origin
    same = root is other or root.fingerprint == other.fingerprint
    return here, there if same else -1 - there
