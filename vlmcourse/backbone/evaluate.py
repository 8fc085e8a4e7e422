"""`vlmcourse backbone evaluate`: what EmojiCLIP knows, on artwork it never saw, in under a minute.

All accuracies are fractions of 1. The vocabulary are the names of all seen concepts in a few frames ("a picture of a
…"). Held-out sprites are composed with the preset TASK, at most `PER_CONCEPT` per concept, `PER_NOVEL` of novel ones.
"""

import argparse
import json
import math
import time
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from vlmcourse import paths
from vlmcourse.backbone.clip import Backbone
from vlmcourse.world.captions import article
from vlmcourse.world.compose import SEVERAL, TASK, compose
from vlmcourse.world.concepts import load_concepts
from vlmcourse.world.sprites import artwork
from vlmcourse.world.styles import STYLES, compose_in_style

FRAMES = ("a picture of a {}", "an icon of a {}", "an emoji of a {}", "a drawing of a {}", "{}")
PER_CONCEPT, PER_NOVEL, PER_STYLE, PAIRS, DRAWS = 4, 8, 150, 200, 100
GROUPS = ("animals", "food", "transport", "objects")
BINS = ((0.0, 0.5, "below 0.5"), (0.5, 0.7, "0.5 to 0.7"), (0.7, 1.01, "above 0.7"))


@torch.inference_mode()
def name_features(backbone: Backbone, names: list[str]) -> Tensor:
    """Text features (C, E) of names: frames encoded, averaged, normalised."""
    each = torch.stack([backbone.encode_text([article(f.format(n)) for n in names]) for f in FRAMES])
    return torch.nn.functional.normalize(each.mean(0), dim=-1)


@torch.inference_mode()
def encode(backbone: Backbone, images: Tensor) -> Tensor:
    """Image features (N, E), in bfloat16 where the processor is good at it."""
    with torch.autocast("cpu", torch.bfloat16, enabled=backbone.device.type == "cpu"):
        return backbone.encode_image(images).float()


def pick(ids: np.ndarray, concept: np.ndarray, limit: int, rng) -> np.ndarray:
    """At most `limit` random ids per concept."""
    ids = rng.permutation(ids)
    rank = np.zeros(len(ids), int)
    for c in np.unique(concept[ids]):
        rows = np.flatnonzero(concept[ids] == c)
        rank[rows] = np.arange(len(rows))
    return np.sort(ids[rank < limit])


def scenes(ids: np.ndarray, seed: int, style: str | None = None) -> Tensor:
    """One scene per sprite, (N, 3, 64, 64) uint8."""
    library = artwork()
    arguments = (library.rgba(ids[:, None]), seed)
    mono = library.mono[ids[:, None]]
    if style is None:
        return compose(*arguments, settings=TASK, mono=mono).images
    return compose_in_style(style, *arguments, settings=TASK, mono=mono).images


def n_way(logits: Tensor, labels: Tensor, ways: int, rng) -> float:
    """Mean accuracy over random choices of `ways` columns; logits (N, C), labels (N,) columns."""
    columns = np.unique(labels.numpy())
    if len(columns) < ways:
        return float("nan")
    hits = []
    for _ in range(DRAWS):
        chosen = torch.from_numpy(np.sort(rng.choice(columns, ways, replace=False)))
        rows = torch.isin(labels, chosen)
        hits.append((chosen[logits[rows][:, chosen].argmax(1)] == labels[rows]).float().mean().item())
    return float(np.mean(hits))


def similarity_to_training(ids: np.ndarray) -> np.ndarray:
    """Correlation (N,) of each sprite's 16 × 16 luminance with the nearest training sprite."""
    from vlmcourse.world.build.cluster import thumbnails

    library = artwork()

    def small(numbers: np.ndarray) -> np.ndarray:  # in parts: all sprites at once would need gigabytes
        parts = np.array_split(numbers, -(-len(numbers) // 500))
        return np.concatenate([thumbnails(library.rgba(part).numpy()) for part in parts])

    return (small(ids) @ small(library.select(cut="train")).T).max(1)


@torch.inference_mode()
def dense(backbone: Backbone, rng) -> tuple[float, float]:
    """Scenes of two held-out sprites: share of object patches that the value path gives to the right one of the two
    names, and how often the patch most similar to a name lies on its object."""
    library, concepts = artwork(), load_concepts()
    ids = rng.choice(pick(library.select(cut="held_out"), library.concept, PER_CONCEPT, rng), (PAIRS, 2))
    ids = ids[library.concept[ids[:, 0]] != library.concept[ids[:, 1]]]
    made = compose(library.rgba(ids), 11, settings=SEVERAL, mono=library.mono[ids])
    maps = backbone.dense_features(made.images, path="value")  # (B, E, 8, 8)
    names = [[concepts[c].name for c in library.concept[pair]] for pair in ids]
    text = name_features(backbone, [n for pair in names for n in pair]).view(len(ids), 2, -1)
    score = torch.einsum("behw,bke->bkhw", maps, text)
    grid = score.shape[-1]
    cover = torch.stack([(made.masks == k + 1).float() for k in range(2)], 1)  # (B, 2, S, S)
    cover = torch.nn.functional.adaptive_avg_pool2d(cover, grid)
    inside = cover > 0.5
    right = torch.stack([score[:, 0] > score[:, 1], score[:, 1] > score[:, 0]], 1)
    peak = score.flatten(2).argmax(-1)
    pointed = (cover.flatten(2).gather(2, peak[..., None]) > 0.25)[..., 0]
    return right[inside].float().mean().item(), pointed[made.present].float().mean().item()


def speed(backbone: Backbone, images: Tensor) -> float:
    """Images per second of `encode_image`, best of three."""
    encode(backbone, images[:64])
    best = 0.0
    for _ in range(3):
        start = time.perf_counter()
        encode(backbone, images)
        best = max(best, len(images) / (time.perf_counter() - start))
    return best


def evaluate(backbone: Backbone, seed: int = 0) -> dict:
    """All figures by name; see the module's first lines."""
    rng, library, concepts = np.random.default_rng(seed), artwork(), load_concepts()
    seen, novel = ([c for c in concepts if c.cut == cut] for cut in ("seen", "novel"))
    column = torch.full((len(concepts),), -1)
    column[[c.id for c in seen]] = torch.arange(len(seen))
    text = name_features(backbone, [c.name for c in seen])
    ids = pick(library.select(cut="held_out"), library.concept, PER_CONCEPT, rng)
    pictures = scenes(ids, 7)
    labels = column[torch.from_numpy(library.concept[ids])]
    logits = encode(backbone, pictures) @ text.T
    right = logits.argmax(1) == labels
    result: dict = {"top1": right.float().mean().item()}
    result["top5"] = (logits.topk(5).indices == labels[:, None]).any(1).float().mean().item()
    near = similarity_to_training(ids)
    result["top1_by_similarity"] = {
        name: right[torch.from_numpy((near >= low) & (near < high))].float().mean().item() for low, high, name in BINS
    }
    group = np.array([c.group for c in seen])
    result["twenty_way"] = {
        g: n_way(logits[torch.from_numpy(group[labels] == g)], labels[torch.from_numpy(group[labels] == g)], 20, rng)
        for g in GROUPS
    }
    result["twenty_way"]["mean"] = float(np.mean(list(result["twenty_way"].values())))
    result["styles"] = styles(backbone, ids, text, column, rng)
    novel_ids = pick(library.select(cut="novel"), library.concept, PER_NOVEL, rng)
    where = {c.id: i for i, c in enumerate(novel)}
    novel_labels = torch.tensor([where[c] for c in library.concept[novel_ids]])
    novel_logits = encode(backbone, scenes(novel_ids, 8)) @ name_features(backbone, [c.name for c in novel]).T
    result["novel_twenty_way"] = n_way(novel_logits, novel_labels, 20, rng)
    result["fashion_mnist"] = fashion(backbone)
    result["dense_ab"], result["pointing"] = dense(backbone, rng)
    result["images_per_second"] = round(speed(backbone, pictures[:256]))
    weights = paths.data_dir() / "emojiclip" / "weights.safetensors"
    result["size_mb"] = round(weights.stat().st_size / 1e6, 2) if weights.is_file() else None
    return result | {"classes": len(seen), "threads": torch.get_num_threads()}


def styles(backbone: Backbone, ids: np.ndarray, text: Tensor, column: Tensor, rng) -> dict[str, float]:
    """Top-1 over the full vocabulary under every change of style, and on every style that pretraining never saw."""
    from vlmcourse.world.build.sources import HELD_OUT_STYLES

    library, found = artwork(), {}
    some = np.sort(rng.choice(ids, PER_STYLE, replace=False))
    jobs = {style: (some, style) for style in STYLES}
    seen = np.flatnonzero(column.numpy() >= 0)
    for style in dict.fromkeys(HELD_OUT_STYLES.values()):
        sources = [s for s, name in HELD_OUT_STYLES.items() if name == style and s in library.sources]
        chosen = library.select(cut="style", source=sources, concept=seen)
        jobs[style] = (np.sort(rng.permutation(chosen)[:PER_STYLE]), None)
    for style, (chosen, change) in jobs.items():
        labels = column[torch.from_numpy(library.concept[chosen])]
        logits = encode(backbone, scenes(chosen, 9, change)) @ text.T
        found[style] = (logits.argmax(1) == labels).float().mean().item()
    return found


def fashion(backbone: Backbone) -> float:
    """Zero-shot top-1 on the test images of the shipped Fashion-MNIST subset."""
    from vlmcourse.tasks.registry import get_task

    task = get_task("fashion_mnist")
    each = torch.stack([backbone.encode_text([t.format(n) for n in task.class_names]) for t in task.templates])
    text = torch.nn.functional.normalize(each.mean(0), dim=-1)
    logits = encode(backbone, task.test.images) @ text.T
    return (logits.argmax(1) == task.test.labels).float().mean().item()


def main(argv: list[str] | None = None) -> None:
    """Command line of `vlmcourse backbone evaluate`."""
    parser = argparse.ArgumentParser(prog="vlmcourse backbone evaluate", description=__doc__.splitlines()[0])
    parser.add_argument("--json", action="store_true", help="print JSON only")
    parser.add_argument("--out", type=Path, help="also write the JSON to this file")
    arguments = parser.parse_args(argv)
    from vlmcourse.backbone.load import load_backbone

    start = time.time()
    result = evaluate(load_backbone())
    text = json.dumps(_rounded(result), indent=1)
    if arguments.out:
        arguments.out.write_text(text + "\n", encoding="utf-8")
    print(text if arguments.json else f"{text}\n({time.time() - start:.0f} s)")


def _rounded(value):
    if isinstance(value, dict):
        return {k: _rounded(v) for k, v in value.items()}
    if isinstance(value, float):  # JSON has no NaN: a figure that cannot be computed is null
        return None if math.isnan(value) else round(value, 4)
    return value
