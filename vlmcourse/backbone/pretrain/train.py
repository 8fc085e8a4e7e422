"""The contrastive training of EmojiCLIP, one process per core.

For a batch of scenes with image features f (B, E), caption features t (B, E), and the names of all seen concepts with
text features n (C, E) that carry no gradient:

    loss = 0.5 · CLIP(f, t)  +  CE(s f nᵀ, concept)  +  0.5 · distillation(t; teacher)   (last one every 4th step)

CLIP(f, t) is the symmetric InfoNCE of Radford et al. (arXiv 2103.00020) inside the batch, where pairs of equal concept
are no negatives. Scenes of two objects have both concepts as target, half each. s is the learned logit scale.
"""

import math
import os
import time
from dataclasses import asdict, dataclass
from datetime import timedelta
from pathlib import Path

import numpy as np
import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor, nn

from vlmcourse.backbone.emojiclip import build_model, build_tokenizer
from vlmcourse.backbone.pretrain.attention import use_plain_attention
from vlmcourse.backbone.pretrain.data import (
    Pool,
    concept_vocabularies,
    concept_vocabulary,
    held_out_scenes,
    open_pool,
    stem_features,
)
from vlmcourse.backbone.pretrain.teacher import Distillation, Vocabulary, phrases, teach, warm_up
from vlmcourse.files import atomic_write
from vlmcourse.world.concepts import load_concepts


@dataclass(frozen=True)
class Recipe:
    """Everything that decides the weights. Steps are optimiser steps over all processes."""

    scenes: int = 196_608  # size of the pool
    pairs: float = 0.15  # share of scenes with two objects
    steps: int = 4000
    late_steps: int = 0  # further steps with live images and the last blocks of the stem unfrozen
    batch: int = 128  # per process
    lr: float = 2e-3
    text_lr: float = 0.3  # factor
    late_lr: float = 2e-4
    warm_up: int = 100
    weight_decay: float = 0.1
    patch_dropout: float = 0.5
    dropout_off: float = 0.85  # share of the training after which no patch is dropped any more
    text_steps: int = 900
    seed: int = 0


class Learner(nn.Module):
    """EmojiCLIP without its stem in the way: image features from stem features, text features from trimmed tokens."""

    def __init__(self, recipe: Recipe):
        super().__init__()
        torch.manual_seed(recipe.seed)  # its own process: nobody else's random state is touched
        self.clip = build_model()
        self.stem = self.clip.visual.conv1[0]
        self.head = nn.Sequential(self.clip.visual.conv1[1], self.clip.visual.conv1[2])
        from open_clip.transformer import PatchDropout

        self.drop = PatchDropout(recipe.patch_dropout, exclude_first_token=True)
        self.clip.visual.patch_dropout = self.drop
        nn.init.constant_(self.clip.logit_scale, math.log(14.0))
        use_plain_attention(self.clip)
        self.distillation = Distillation(self.clip.visual.output_dim)

    def image(self, stem_output: Tensor) -> Tensor:
        """(B, 112, 8, 8) -> (B, E), unit norm."""
        visual = self.clip.visual
        conv1, visual.conv1 = visual.conv1, self.head
        try:
            return F.normalize(visual(stem_output).float(), dim=-1)
        finally:
            visual.conv1 = conv1

    def text(self, tokens: Tensor) -> Tensor:
        """(N, l) token ids, l <= context length -> (N, E), unit norm. Trimming is exact: the mask is causal."""
        clip, length = self.clip, tokens.shape[1]
        x = clip.token_embedding(tokens) + clip.positional_embedding[:length]
        x = clip.transformer(x, attn_mask=clip.attn_mask[:length, :length])
        x = clip.ln_final(x[torch.arange(len(x)), tokens.argmax(1)])
        return F.normalize((x @ clip.text_projection).float(), dim=-1)


def clip_loss(image: Tensor, text: Tensor, scale: Tensor, concepts: Tensor) -> Tensor:
    """Symmetric InfoNCE of image, text (B, E); rows that share a concept (B, 2) are not each other's negatives."""
    logits = scale * image @ text.T
    same = (concepts[:, None, :, None] == concepts[None, :, None, :]) & (concepts >= 0)[:, None, :, None]
    same = same.any(-1).any(-1) & ~torch.eye(len(image), dtype=torch.bool)
    logits = logits.masked_fill(same, -1e4)
    labels = torch.arange(len(image))
    return (F.cross_entropy(logits, labels) + F.cross_entropy(logits.T, labels)) / 2


def parameter_groups(learner: Learner, recipe: Recipe) -> list[dict]:
    """Text tower at a lower rate; no weight decay on vectors, embeddings and the scale."""
    groups: dict[tuple[float, float], list] = {}
    for name, p in learner.named_parameters():
        if name.startswith(("stem", "clip.visual.conv1.0")):
            continue
        is_text = not name.startswith(("clip.visual", "head"))
        plain = p.ndim < 2 or "embedding" in name or "logit_scale" in name
        groups.setdefault((recipe.text_lr if is_text else 1.0, 0.0 if plain else recipe.weight_decay), []).append(p)
    return [{"params": ps, "factor": f, "weight_decay": w} for (f, w), ps in groups.items()]


def average_gradients(parameters: list[nn.Parameter], world: int) -> None:
    """Mean gradient over processes, in one message."""
    if world > 1:
        grads = [p.grad if p.grad is not None else torch.zeros_like(p) for p in parameters]
        flat = torch.cat([g.reshape(-1) for g in grads])
        dist.all_reduce(flat)
        flat /= world
        for p, g in zip(parameters, flat.split([g.numel() for g in grads])):
            p.grad = g.view_as(p)


class Bank:
    """Text features (C, E) of the names of all seen concepts, without gradient, refreshed every few steps."""

    def __init__(self, tokenizer):
        from vlmcourse.world.captions import FRAMES, article

        self.seen = [c for c in load_concepts() if c.cut == "seen"]
        self.column = torch.full((len(load_concepts()) + 1,), -1)  # concept id -> column; the last entry serves -1
        self.column[[c.id for c in self.seen]] = torch.arange(len(self.seen))
        self.frames = [Vocabulary([article(f.format(c.name)) for c in self.seen], tokenizer) for f in FRAMES]
        self.features: Tensor | None = None

    @torch.no_grad()
    def refresh(self, learner: Learner, rng) -> None:
        """Encode all names in one frame."""
        frame = self.frames[0 if rng.random() < 0.5 else rng.integers(len(self.frames))]
        self.features = learner.text(frame.tokens(np.arange(len(self.seen))))

    def targets(self, concepts: Tensor) -> Tensor:
        """(B, 2) concept ids -> (B, C) distribution."""
        target = torch.zeros(len(concepts), len(self.seen))
        for k in range(2):
            rows = (concepts[:, k] >= 0).nonzero()[:, 0]
            target[rows, self.column[concepts[rows, k]]] = 1
        return target / target.sum(1, keepdim=True)


@torch.inference_mode()
def evaluate(learner: Learner, bank: Bank, features: Tensor, labels: Tensor) -> float:
    """Top-1 over all seen concepts of held-out sprites; features (N, 112, 8, 8), labels (N,) concept ids."""
    learner.eval()
    names = learner.text(bank.frames[3].tokens(np.arange(len(bank.seen))))
    hits = 0
    with torch.autocast("cpu", torch.bfloat16):
        for start in range(0, len(features), 256):
            image = learner.image(features[start : start + 256])
            hits += ((image @ names.float().T).argmax(1) == bank.column[labels[start : start + 256]]).sum().item()
    learner.train()
    learner.stem.eval()
    return hits / len(features)


def draw_batch(pool: Pool, recipe: Recipe, rng, short, long, step: int):
    """Row numbers (B,), concepts (B, 2) and captions of one batch. Every third step reads long captions.

    The captions come in two parts of tokens (b, l), so that the long ones of scenes do not pad the short ones; rows
    with a part of their own come first.
    """
    own = np.arange(recipe.batch) < round(0.15 * recipe.batch)  # these read the caption of their scene …
    rows = rng.integers(len(pool), size=recipe.batch)
    own |= pool.concepts[rows, 1] >= 0  # … and so do all scenes of two objects
    order = np.argsort(~own, kind="stable")
    rows, own = rows[order], int(own.sum())
    concepts = pool.concepts[rows]
    scene = pool.captions[torch.from_numpy(rows[:own]), int(rng.integers(2))].long()
    parts = [scene[:, : int(scene.argmax(1).max()) + 1]] if own else []
    table = long if step % 3 == 2 else short
    if own < len(rows):
        parts.append(table.draw(concepts[own:, 0], rng))
    return torch.from_numpy(rows), torch.from_numpy(concepts.astype(np.int64)), parts


def train(folder: Path, recipe: Recipe, rank: int, world: int, note, weights_of_stem) -> None:
    """Train, writing `checkpoint.pt` every minute and `history.json`-ready rows through `note`; resumes by itself."""
    torch.set_num_threads(1)
    if world > 1:
        os.environ.setdefault("MASTER_ADDR", "127.0.0.1")
        os.environ.setdefault("MASTER_PORT", "29541")
        dist.init_process_group("gloo", rank=rank, world_size=world, timeout=timedelta(hours=1))
    tokenizer, learner = build_tokenizer(), Learner(recipe)
    weights_of_stem(learner.stem)
    short, long = concept_vocabularies(tokenizer)
    bank, pool = Bank(tokenizer), open_pool(folder)
    sentences = phrases()
    asked, answers = Vocabulary(sentences, tokenizer), teach(sentences, folder / "teacher.npy")
    images, labels = held_out_scenes()
    pick = torch.arange(0, len(images), 2)
    images, labels = images[pick], labels[pick]
    watch = stem_features(learner.stem, images) if rank == 0 else None

    checkpoint, first = folder / "checkpoint.pt", 0
    total = recipe.steps + recipe.late_steps
    optimizer = torch.optim.AdamW(parameter_groups(learner, recipe), lr=recipe.lr, betas=(0.9, 0.98))
    late = [p for block in learner.stem.blocks[-3:] for p in block.parameters()]
    optimizer.add_param_group({"params": late, "factor": 0.1, "weight_decay": 0.0})
    history: list[dict] = []
    if checkpoint.is_file():
        state = torch.load(checkpoint, weights_only=True)
        if state["recipe"] != asdict(recipe):
            raise ValueError(f"{checkpoint} belongs to another recipe: {state['recipe']}; use another --work folder")
        learner.load_state_dict(state["learner"])
        optimizer.load_state_dict(state["optimizer"])
        first, history, bank.features = state["step"], state["history"], state.get("bank")
    else:
        text = [p for n, p in learner.clip.named_parameters() if not n.startswith("visual") and n != "logit_scale"]
        if rank == 0:  # the others wait, so it may use their cores
            torch.set_num_threads(world)
            warm_up(learner.text, text, learner.distillation, asked, answers, note, recipe.text_steps, seed=recipe.seed)
            torch.set_num_threads(1)
        if world > 1:
            for value in learner.state_dict().values():
                dist.broadcast(value, 0)
    learner.train()
    learner.stem.eval()
    everything = [p for group in optimizer.param_groups for p in group["params"]]
    started = saved = time.time()
    for step in range(first, total):
        rng = np.random.default_rng((recipe.seed, step, rank))
        torch.manual_seed(recipe.seed * 1_000_003 + step)  # patch dropout: what a resumed run draws is the same
        is_late = step >= recipe.steps
        for p in late:
            p.requires_grad_(is_late)
        peak, done = (recipe.late_lr, (step - recipe.steps) / max(1, recipe.late_steps)) if is_late else (
            recipe.lr, step / recipe.steps)  # fmt: skip
        rate = peak * min(1, (step + 1) / recipe.warm_up) * 0.5 * (1 + math.cos(math.pi * done))
        for group in optimizer.param_groups:
            group["lr"] = rate * group["factor"]
        learner.drop.prob = recipe.patch_dropout if step < recipe.dropout_off * recipe.steps else 0.0
        if step % 8 == 0 or bank.features is None:
            bank.refresh(learner, rng)
        rows, concepts, captions = draw_batch(pool, recipe, rng, short, long, step)
        with torch.autocast("cpu", torch.bfloat16):
            if is_late:
                stem_output = learner.stem(pool.images[rows].float() / 127.5 - 1)
            else:
                stem_output = pool.features[rows].float()
            if rng.random() < 0.5:
                stem_output = stem_output.flip(-1)
            image = learner.image(stem_output)
            text_features = torch.cat([learner.text(tokens) for tokens in captions])
        scale = learner.clip.logit_scale.exp().clamp(max=100)
        contrast = clip_loss(image, text_features, scale, concepts)
        naming = F.cross_entropy(scale * image @ bank.features.T, bank.targets(concepts))
        loss = 0.5 * contrast + naming
        if step % 4 == 0:
            ids = asked.similar_lengths(128, rng)
            with torch.autocast("cpu", torch.bfloat16):
                student = learner.text(asked.tokens(ids))
            loss = loss + 0.5 * learner.distillation(student, answers[ids])
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        average_gradients(everything, world)
        nn.utils.clip_grad_norm_(everything, 1.0)
        optimizer.step()
        if rank == 0 and (step % 100 == 0 or step == total - 1):
            pace = (step + 1 - first) * recipe.batch * world / (time.time() - started)
            row = {"step": step, "contrast": contrast.item(), "naming": naming.item(), "scale": scale.item(),
                   "images_per_second": round(pace)}  # fmt: skip
            if step % 500 == 0 or step == total - 1:
                features = stem_features(learner.stem, images) if is_late else watch
                row["held_out_top1"] = evaluate(learner, bank, features, labels)
            history.append(row)
            note(" ".join(f"{k} {v:.3f}" if isinstance(v, float) else f"{k} {v}" for k, v in row.items()))
        if rank == 0 and (time.time() - saved > 60 or step == total - 1):
            state = {"learner": learner.state_dict(), "optimizer": optimizer.state_dict(), "step": step + 1,
                     "history": history, "recipe": asdict(recipe), "bank": bank.features}  # fmt: skip
            atomic_write(checkpoint, lambda path, state=state: torch.save(state, path))
            saved = time.time()
    if world > 1:
        dist.barrier()
        dist.destroy_process_group()


def trained_model(folder: Path) -> tuple[nn.Module, dict]:
    """The CLIP of a finished or running training, with open_clip's own attention, and its checkpoint's facts."""
    state = torch.load(folder / "checkpoint.pt", weights_only=True)
    weights = {k.removeprefix("clip."): v for k, v in state["learner"].items() if k.startswith("clip.")}
    model = build_model()
    model.load_state_dict(weights)
    return model.eval(), {k: state[k] for k in ("step", "history", "recipe")}


def seen_names_vocabulary(tokenizer) -> Vocabulary:
    """Plain names of all concepts (used by figures of the pretraining notebook)."""
    return concept_vocabulary(tokenizer, lambda c: [c.name])
