"""Look-alikes: drop near-duplicates and group what must never be separated by a cut.

Two sprites of one concept belong to one cluster if they are variants of one drawing (same design family and base name)
or if they look alike (correlation of 16 × 16 luminance on white above 0.90). Above 0.985 the later one is dropped.
"""

import numpy as np

DUPLICATE, LOOK_ALIKE = 0.985, 0.90


def thumbnails(rgba: np.ndarray) -> np.ndarray:
    """Unit-norm, mean-free 16 × 16 luminance on white, (N, 256), of sprites (N, 64, 64, 4) uint8."""
    x = rgba.astype(np.float32) / 255
    grey = (x[..., :3] @ np.array([0.299, 0.587, 0.114], np.float32)) * x[..., 3] + 1 - x[..., 3]
    small = grey.reshape(-1, 16, 4, 16, 4).mean((2, 4)).reshape(len(x), -1)
    small = small - small.mean(1, keepdims=True)
    return small / np.maximum(np.linalg.norm(small, axis=1, keepdims=True), 1e-6)


def keep_distinct(rgba: np.ndarray) -> np.ndarray:
    """Indices of sprites that are no near-duplicate of an earlier one."""
    similarity = np.abs(thumbnails(rgba) @ thumbnails(rgba).T)
    kept: list[int] = []
    for i in range(len(rgba)):
        if not kept or similarity[i, kept].max() < DUPLICATE:
            kept.append(i)
    return np.array(kept, dtype=np.int64)


def clusters(rgba: np.ndarray, drawing: list[tuple[str, str]]) -> np.ndarray:
    """Cluster number (from 0) of each sprite of one concept; `drawing` is (family, base name) of each sprite."""
    parent = list(range(len(rgba)))

    def root(i: int) -> int:
        while parent[i] != i:
            parent[i] = parent[parent[i]]
            i = parent[i]
        return i

    first: dict[tuple[str, str], int] = {}
    for i, key in enumerate(drawing):
        parent[root(i)] = root(first.setdefault(key, i))
    thumbs = thumbnails(rgba)
    for i, j in np.argwhere(np.triu(np.abs(thumbs @ thumbs.T) > LOOK_ALIKE, 1)):
        parent[root(int(i))] = root(int(j))
    roots = [root(i) for i in range(len(rgba))]
    order = {r: n for n, r in enumerate(dict.fromkeys(roots))}
    return np.array([order[r] for r in roots], dtype=np.int64)
