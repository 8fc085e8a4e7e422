"""Decide the three disjoint cuts once: held-out sprites, held-out styles, held-out (novel) concepts.

Cuts are made between look-alike clusters, never inside one. How many clusters a seen concept holds out depends on how
many it has: downstream tasks with 16 honest shots need 26 (16 train, 4 validation, 6 test), thin concepts give two.
"""

import numpy as np

MIN_CLUSTERS, MIN_SPRITES = 6, 10  # below this a concept cannot be taught by pretraining
THIN_GROUPS, THIN_CLUSTERS, THIN_SPRITES = {"animals", "food", "plants"}, 4, 7  # kept as novel concepts
RICH = range(26, 36)  # cluster counts among which the few-shot novel concepts are drawn
RICH_NOVEL, OTHER_NOVEL = 44, 12
TRAIN_CAP = 48  # sprites of one concept in pretraining; look-alikes are dropped first


def held_out_clusters(n: int) -> int:
    """Number of look-alike clusters that a seen concept with n clusters holds out."""
    if n >= 36:
        return 26
    if n >= 16:
        return min(8, max(4, round(n / 4)))
    return 3 if n >= 10 else 2


def choose_novel(groups: dict[str, str], counts: dict[str, tuple[int, int]], seed: int) -> dict[str, str]:
    """Cut ("seen" or "novel") of every concept that is kept.

    groups: concept -> group; counts: concept -> (clusters, sprites), held-out styles not counted.
    """
    main = [c for c, (n, m) in counts.items() if n >= MIN_CLUSTERS and m >= MIN_SPRITES]
    thin = [
        c
        for c, (n, m) in counts.items()
        if c not in set(main) and groups[c] in THIN_GROUPS and n >= THIN_CLUSTERS and m >= THIN_SPRITES
    ]
    rng = np.random.default_rng(seed)
    rich = [c for c in main if counts[c][0] in RICH]
    others = [c for c in main if counts[c][0] < RICH.start and groups[c] not in THIN_GROUPS]
    novel = set(thin) | _stratified(rich, groups, RICH_NOVEL, rng) | _stratified(others, groups, OTHER_NOVEL, rng)
    return {c: "novel" if c in novel else "seen" for c in main + thin}


def _stratified(names: list[str], groups: dict[str, str], k: int, rng: np.random.Generator) -> set[str]:
    """k names, spread over the groups in proportion to their size; all, if there are no more."""
    if not names:
        return set()
    order = np.argsort([f"{groups[n]}" for n in names], kind="stable")
    shuffled = []
    for group in sorted({groups[n] for n in names}):
        members = [names[i] for i in order if groups[names[i]] == group]
        shuffled += [members[i] for i in rng.permutation(len(members))]
    picks = np.linspace(0, len(shuffled) - 1, k).round().astype(int)
    return {shuffled[i] for i in picks}


def cut_clusters(cluster: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Cut of each sprite of one seen concept: "train", "held_out", or "" (more look-alikes than pretraining needs)."""
    sizes = np.bincount(cluster)
    order = rng.permutation(len(sizes))
    order = sorted(order, key=lambda c: sizes[c] > 6)  # a large family of look-alikes is no honest test: it trains
    held = set(order[: held_out_clusters(len(sizes))])
    cut = np.array(["held_out" if c in held else "train" for c in cluster], dtype=object)
    for part, cap in (("train", TRAIN_CAP), ("held_out", 10**9)):
        ids = np.flatnonzero(cut == part)
        if part == "held_out":  # two drawings of one held-out cluster are enough
            keep = [i for i in ids if (cluster[ids[ids <= i]] == cluster[i]).sum() <= 2]
        else:  # round robin over clusters until the cap is reached
            ids = ids[rng.permutation(len(ids))]
            rank = np.array([(cluster[ids[: k + 1]] == cluster[i]).sum() for k, i in enumerate(ids)])
            keep = list(ids[np.argsort(rank, kind="stable")[:cap]])
        cut[list(set(ids.tolist()) - {int(i) for i in keep})] = ""
    return cut
