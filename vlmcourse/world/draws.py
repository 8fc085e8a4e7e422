"""Seeded random numbers for batches that are made in chunks.

A batch is made `CHUNK` items at a time. Chunk c of a stream has its own generator, seeded with (seed, c), and always
draws numbers for `CHUNK` items, even when fewer are wanted. So item i depends on (seed, i), not on the batch's length.
"""

import numpy as np
import torch

CHUNK = 64  # items per chunk: small enough for the cache of a CPU, large enough to hide the cost of a torch call


def check_seed(seed: int) -> int:
    """`seed` as a plain int; TypeError or ValueError when it is not a non-negative integer."""
    if isinstance(seed, bool) or not isinstance(seed, int | np.integer):
        raise TypeError(f"seed must be an integer, got {seed!r}")
    if seed < 0:
        raise ValueError(f"seed must be >= 0, got {seed}")
    return int(seed)


class Draw:
    """Random numbers for the first `n` items of one chunk; rows do not depend on `n`."""

    def __init__(self, seed: int, chunk: int, n: int):
        if not 0 < n <= CHUNK:
            raise ValueError(f"n must be in 1..{CHUNK}, got {n}")
        state = np.random.SeedSequence([check_seed(seed), chunk]).generate_state(1, np.uint64)[0]
        self.n, self.generator = n, torch.Generator().manual_seed(int(state >> 1))

    def uniform(self, *shape: int, low: float = 0.0, high: float = 1.0) -> torch.Tensor:
        """(n, *shape) float32, uniform in [low, high)."""
        return torch.rand(CHUNK, *shape, generator=self.generator)[: self.n] * (high - low) + low

    def normal(self, *shape: int) -> torch.Tensor:
        """(n, *shape) float32, standard normal."""
        return torch.randn(CHUNK, *shape, generator=self.generator)[: self.n]

    def chance(self, probability: float) -> torch.Tensor:
        """(n,) bool, true with the given probability."""
        return self.uniform() < probability

    def shared(self, *shape: int, low: float = 0.0, high: float = 1.0) -> torch.Tensor:
        """(*shape) float32, uniform in [low, high): numbers that all items of the chunk share."""
        return torch.rand(*shape, generator=self.generator) * (high - low) + low
