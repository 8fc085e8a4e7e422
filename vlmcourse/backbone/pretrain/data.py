"""What pretraining reads: a pool of composed scenes with their stem features, and captions as token tables.

The stem is frozen for most of the training, so its output is computed once per scene: (112, 8, 8) in bfloat16 on disk,
memory-mapped and shared by all training processes. Images are kept too, for the late phase that unfreezes the stem.
"""

import copy
import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from vlmcourse.backbone.emojiclip import TEXT, build_tokenizer
from vlmcourse.backbone.stem import CHANNELS
from vlmcourse.world.captions import long_captions, scene_captions, short_captions
from vlmcourse.world.compose import PRETRAIN, TASK, SceneSettings, compose
from vlmcourse.world.concepts import load_concepts
from vlmcourse.world.sprites import load_sprites

SCENE_CAPTIONS = 2
BLOCK = 2048  # scenes per unit of resumable work


class Vocabulary:
    """Many sentences as one table of tokens; rows can be grouped by an owner (a concept)."""

    def __init__(self, sentences: list[str], tokenizer, owners: np.ndarray | None = None):
        self.table = tokenizer(sentences).to(torch.int16)  # (N, L), zero-padded
        self.lengths = self.table.argmax(1) + 1  # the end token has the largest id
        self._sorted: np.ndarray | None = None
        if owners is not None:  # rows of owner c: order[first[c] : first[c + 1]]
            self.order = np.argsort(owners, kind="stable")
            self.first = np.searchsorted(owners[self.order], np.arange(owners.max() + 2))

    def tokens(self, rows) -> Tensor:
        """Tokens (n, l) int64 of these rows, trimmed to the longest of them."""
        rows = torch.as_tensor(rows)
        return self.table[rows, : int(self.lengths[rows].max())].long()

    def similar_lengths(self, n: int, rng) -> np.ndarray:
        """n random rows of about the same length, so that little is padded."""
        order = torch.argsort(self.lengths, stable=True).numpy() if self._sorted is None else self._sorted
        self._sorted = order
        low = rng.integers(max(1, len(order) - 4 * n))
        return rng.permutation(order[low : low + 4 * n])[:n]

    def draw(self, owners: np.ndarray, rng) -> Tensor:
        """One random sentence of each owner, as tokens (n, l)."""
        low, high = self.first[owners], self.first[owners + 1]
        return self.tokens(self.order[low + (rng.random(len(owners)) * (high - low)).astype(int)])


def concept_vocabulary(tokenizer, captions) -> Vocabulary:
    """All sentences that `captions(concept)` gives, owned by their concept."""
    rows = [(c.id, sentence) for c in load_concepts() for sentence in captions(c)]
    return Vocabulary([s for _, s in rows], tokenizer, np.array([i for i, _ in rows]))


def concept_vocabularies(tokenizer) -> tuple[Vocabulary, Vocabulary]:
    """Short and long captions of every concept."""
    return concept_vocabulary(tokenizer, short_captions), concept_vocabulary(tokenizer, long_captions)


@dataclass(frozen=True)
class Pool:
    """Memory-mapped scenes. features (N, 112, 8, 8) bf16; images (N, 3, 64, 64) uint8; concepts (N, 2), -1 for none;
    captions (N, 2, L) int16 tokens of scene-specific captions."""

    features: Tensor
    images: Tensor
    concepts: np.ndarray
    captions: Tensor

    def __len__(self) -> int:
        return len(self.concepts)


def open_pool(folder: Path) -> Pool:
    """Open a finished pool read-only."""
    n = json.loads((folder / "pool.json").read_text())["scenes"]
    features = torch.from_file(str(folder / "features.bin"), True, n * CHANNELS * 64, dtype=torch.bfloat16)
    images = np.memmap(folder / "images.bin", np.uint8, "r+", shape=(n, 3, 64, 64))
    captions = np.memmap(folder / "captions.bin", np.int16, "r+", shape=(n, SCENE_CAPTIONS, TEXT["context_length"]))
    concepts = np.fromfile(folder / "concepts.bin", np.int32).reshape(n, 2)
    return Pool(features.view(n, CHANNELS, 8, 8), torch.from_numpy(images), concepts, torch.from_numpy(captions))


def draw_sprites(n: int, pairs: float, rng) -> np.ndarray:
    """Sprite numbers (n, 2), -1 for none: concepts are drawn in proportion to the square root of their sprites."""
    sprites = load_sprites()
    ids = sprites.select(cut="train")
    concept = sprites.concept[ids]
    count = np.bincount(concept, minlength=concept.max() + 1)
    weight = 1 / np.sqrt(count[concept])  # per sprite; summed over a concept: sqrt(count)
    drawn = rng.choice(ids, size=(n, 2), p=weight / weight.sum())
    single = rng.random(n) >= pairs
    same = sprites.concept[drawn[:, 0]] == sprites.concept[drawn[:, 1]]
    drawn[single | same, 1] = -1
    return drawn


def make_block(stem, tokenizer, n: int, seed: int, pairs: float, settings: SceneSettings = PRETRAIN) -> dict:
    """Compose n scenes: images, features, concepts and caption tokens."""
    rng, sprites, concepts = np.random.default_rng(seed), load_sprites(), load_concepts()
    drawn = draw_sprites(n, pairs, rng)
    mono = np.where(drawn >= 0, sprites.mono[drawn], False)
    scenes = compose(sprites.rgba(drawn), seed, settings=settings, mono=mono)
    owners = np.where(drawn >= 0, sprites.concept[drawn], -1)
    places, texts = scenes.positions(), []
    for i in range(n):
        k = 1 + int(owners[i, 1] >= 0)
        names = [concepts[c].name for c in owners[i, :k]]
        options = scene_captions(names, places[i][:k], scenes.background[i], rng)
        texts += [options[j] for j in rng.permutation(len(options))[:SCENE_CAPTIONS]]
        texts += options[:1] * (SCENE_CAPTIONS - min(SCENE_CAPTIONS, len(options)))
    tokens = tokenizer(texts).to(torch.int16).view(n, SCENE_CAPTIONS, -1)
    return {
        "images": scenes.images, "features": stem_features(stem, scenes.images),
        "concepts": torch.from_numpy(owners.astype(np.int32)), "captions": tokens,
    }  # fmt: skip


@torch.inference_mode()
def stem_features(stem, images: Tensor, batch: int = 64) -> Tensor:
    """Stem output (N, 112, 8, 8) bf16 of images (N, 3, 64, 64) uint8."""
    fast = copy.deepcopy(stem).to(torch.bfloat16)
    out = torch.empty(len(images), CHANNELS, 8, 8, dtype=torch.bfloat16)
    for start in range(0, len(images), batch):
        out[start : start + batch] = fast((images[start : start + batch].float() / 127.5 - 1).bfloat16())
    return out


def held_out_scenes(seed: int = 7, per_sprite: int = 1) -> tuple[Tensor, Tensor]:
    """Scenes of the held-out sprites, images (N, 3, 64, 64) and concept ids (N,), for watching the training."""
    sprites = load_sprites()
    ids = np.repeat(sprites.select(cut="held_out"), per_sprite)[:, None]
    scenes = compose(sprites.rgba(ids), seed, settings=TASK, mono=sprites.mono[ids])
    return scenes.images, torch.from_numpy(sprites.concept[ids[:, 0]].astype(np.int64))


def fill_pool(folder: Path, stem, scenes: int, seed: int, pairs: float, part: int, parts: int, note) -> None:
    """Write the blocks number part, part + parts … of the pool; finished blocks are marked and skipped next time.

    scenes must be a multiple of BLOCK (ValueError). A block of another seed or share of pairs is composed again.
    """
    if scenes < 1 or scenes % BLOCK:
        raise ValueError(f"scenes must be a multiple of {BLOCK}, got {scenes}")
    tokenizer = build_tokenizer()
    row = {"images": 3 * 64 * 64, "features": CHANNELS * 64 * 2, "concepts": 8,
           "captions": SCENE_CAPTIONS * TEXT["context_length"] * 2}  # fmt: skip
    for name, size in row.items():
        with open(folder / f"{name}.bin", "ab") as file:
            file.truncate(scenes * size)
    for block in range(part, scenes // BLOCK, parts):
        mark, content = folder / f"block-{block}.done", f"seed {seed}, pairs {pairs}"
        if mark.exists() and mark.read_text() == content:
            continue
        mark.unlink(missing_ok=True)
        data = make_block(stem, tokenizer, BLOCK, seed * 100_003 + block, pairs)
        for name, size in row.items():
            with open(folder / f"{name}.bin", "r+b") as file:
                file.seek(block * BLOCK * size)
                file.write(data[name].contiguous().view(torch.uint8).numpy().tobytes())
        mark.write_text(content)
        if part == 0:
            note(f"pool: {min((block + parts) * BLOCK, scenes)} of {scenes} scenes")
