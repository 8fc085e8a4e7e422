"""What multi-label methods share: each class is a question of its own, and labels may be unknown.

A method gives scores (B, C): how much the image speaks for each class, comparable within a class (average precision
needs no more). Where `gives_probabilities`, sigmoid(score) is the probability that the class is there.
"""

import torch

from vlmcourse.methods.base import Method
from vlmcourse.methods.regions import region_encoder
from vlmcourse.tasks.multi_label import MultiLabelSplit


class MultiLabelMethod(Method):
    """Base of the methods that see an image as the whole and its regions (B, 1 + N, E). path, positions: of regions.py.

    A subclass writes `_logits(features)` (B, C) and, like every method, `_fit`."""

    gives_probabilities = True

    def __init__(self, backbone, *, path=None, positions=True, seed=0, progress=False):
        super().__init__(backbone, seed=seed, progress=progress)
        self.path, self.encoder = path, region_encoder(backbone, path, positions)

    def fit(self, train, val=None):
        if not isinstance(train, MultiLabelSplit):
            raise TypeError(f"train={type(train).__name__} must be a MultiLabelSplit, as get_task('scenes').train")
        return super().fit(train, val)

    def scores(self, x):
        """(B, C) float32, one ranking of images for each class. x: a Split, images, or features (B, 1 + N, E)."""
        return self.logits(x)

    def probabilities(self, x):
        """(B, C), each class by itself: rows need not sum to 1. ValueError for a method that only ranks."""
        if not self.gives_probabilities:
            raise ValueError(f"{self.card.name} ranks images and gives no probabilities; use scores")
        return self.scores(x).sigmoid()

    def predict(self, x, threshold=0.5):
        """(B, C) bool, the classes whose probability is above the threshold."""
        return self.probabilities(x) > threshold

    def score(self, split):
        """Mean average precision in [0, 1] on a MultiLabelSplit with these classes, or with some of them."""
        from vlmcourse.evaluation.multi_label import mean_average_precision  # evaluation stands above the methods

        self._require_fit()
        if not isinstance(split, MultiLabelSplit):
            raise TypeError(f"split={type(split).__name__} must be a MultiLabelSplit")
        foreign = sorted(set(split.class_names) - set(self.class_names))
        if foreign:
            raise ValueError(
                f"split={split.name!r} has classes unknown here, such as {foreign[0]!r}: call for_classes first"
            )
        columns = [self.class_names.index(name) for name in split.class_names]
        return mean_average_precision(self.scores(split)[:, columns], split.labels)


def cosines(features: torch.Tensor, text: torch.Tensor) -> torch.Tensor:
    """(B, C, N) of L2-normalised features (B, N, E) and texts (C, E)."""
    return torch.einsum("bne,ce->bcn", features, text.to(features))
