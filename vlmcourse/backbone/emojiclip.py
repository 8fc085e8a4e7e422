"""EmojiCLIP: the very small CLIP that ships with the course.

A genuine `open_clip.CLIP`: a ViT over an 8 × 8 grid and a causal text transformer with a small BPE vocabulary. One
thing is unusual: the ViT's patch embedding `conv1` is an ImageNet stem (`stem.py`) with a norm and a 1 × 1 convolution.
It lives in `data/emojiclip/`: `config.json`, `weights.safetensors` (fp16), `bpe.txt.gz`; checksums in the config.
"""

import json
from pathlib import Path

import torch
from open_clip import CLIP
from open_clip.tokenizer import SimpleTokenizer
from torch import nn

from vlmcourse import paths
from vlmcourse.backbone.clip import Backbone
from vlmcourse.backbone.stem import CHANNELS, EfficientNetStem
from vlmcourse.errors import DataError
from vlmcourse.files import verify

VISION = {"image_size": 64, "patch_size": 8, "width": 192, "layers": 4, "head_width": 64}
TEXT = {"context_length": 32, "vocab_size": 4610, "width": 192, "heads": 3, "layers": 3}
EMBED_DIM = 256
PIXELS = {"size": 64, "mode": "RGB", "mean": (0.5,) * 3, "std": (0.5,) * 3, "interpolation": "bicubic"}
EMBEDDED_NAME = "emojiclip"


def folder() -> Path:
    """The folder of the shipped weights."""
    return paths.data_dir() / "emojiclip"


def build_model(config: dict | None = None) -> CLIP:
    """An EmojiCLIP with random weights; config: `vision`, `text` and `embed_dim` as in `config.json`."""
    config = config or {"vision": VISION, "text": TEXT, "embed_dim": EMBED_DIM}
    model = CLIP(config["embed_dim"], dict(config["vision"]), dict(config["text"]))
    width = config["vision"]["width"]
    model.visual.conv1 = nn.Sequential(EfficientNetStem(), nn.BatchNorm2d(CHANNELS), nn.Conv2d(CHANNELS, width, 1))
    model.visual.conv1[0].requires_grad_(False)
    model.visual.preprocess_cfg = dict(PIXELS)
    return model


def build_tokenizer(where: Path | None = None) -> SimpleTokenizer:
    """The BPE tokenizer with the first 4096 merges of CLIP's vocabulary."""
    return SimpleTokenizer(bpe_path=str((where or folder()) / "bpe.txt.gz"), context_length=TEXT["context_length"])


def load_emojiclip(device: torch.device | str = "cpu", dtype: torch.dtype = torch.float32) -> Backbone:
    """Load the shipped EmojiCLIP; DataError if a file is missing, truncated or changed."""
    from safetensors.torch import load_file

    where = folder()
    try:
        config = json.loads((where / "config.json").read_text(encoding="utf-8"))
        checksums = {name: config["sha256"][name] for name in ("weights.safetensors", "bpe.txt.gz")}
        with torch.random.fork_rng(devices=[]):  # building draws numbers: leave the caller's stream alone
            model = build_model({name: config[name] for name in ("vision", "text", "embed_dim")})
    except (OSError, ValueError, LookupError, TypeError) as error:
        raise DataError(
            f"{where / 'config.json'} cannot be read ({error!r}). Restore data/emojiclip (git checkout, or reinstall)."
        ) from error
    for name, checksum in checksums.items():
        verify(where / name, checksum)
    weights = load_file(where / "weights.safetensors")
    model.load_state_dict({k: v.float() if v.is_floating_point() else v for k, v in weights.items()})
    return Backbone(model, build_tokenizer(where), EMBEDDED_NAME, device, dtype)
