"""load_backbone: a frozen CLIP by name. The embedded default, any plain open_clip model, or weights from a local file.

    load_backbone()                                        EmojiCLIP, which ships with the course
    load_backbone("ViT-B-16", pretrained="openai")         downloaded by open_clip; the only form that uses the network
    load_backbone("ViT-B-16-quickgelu", "weights.pt")      a local file (.safetensors, or a state dict of torch)
    load_backbone("local-dir:/models/my-clip")             a folder with open_clip_config.json and weights
    load_backbone("RN50", pretrained="random")             no knowledge: for tests and for comparison

QuickGELU. OpenAI's weights were trained with x * sigmoid(1.702 x), but open_clip's plain names ("ViT-B-16") mean the
exact GELU. With the wrong one nothing fails, accuracy just drops. A tag knows its activation, and it is set from there.
A file does not: say it (`quick_gelu=`), or use a name that ends in -quickgelu; otherwise a warning tells which one is
in use.
"""

import difflib
import json
import os
import warnings
import zipfile
from pathlib import Path

import open_clip
import torch
from open_clip.pretrained import get_pretrained_cfg, list_pretrained_tags_by_model

from vlmcourse.backbone.clip import Backbone
from vlmcourse.backbone.memory import keep_large_buffers
from vlmcourse.errors import DataError

EMBEDDED = "emojiclip"
LOCAL = "local-dir:"


def load_backbone(
    name: str = EMBEDDED,
    pretrained: str | os.PathLike | None = None,
    device: str | torch.device = "cpu",
    dtype: torch.dtype = torch.float32,
    quick_gelu: bool | None = None,
    seed: int = 0,
) -> Backbone:
    """A frozen CLIP.

    name: "emojiclip", an open_clip name ("/" may stand for "-"), or "local-dir:" and a folder. pretrained: for
    open_clip names only: a tag, a file, or "random" (drawn with `seed`). quick_gelu: overrides the activation; None
    decides as above. Raises ValueError for unknown names, tags and impossible combinations, DataError for missing or
    damaged files. Sets how malloc treats large buffers in this process, see memory.py.
    """
    keep_large_buffers()
    _check_arguments(name, device, dtype)
    if name == EMBEDDED:
        if pretrained is not None or quick_gelu is not None:
            raise ValueError(f"{EMBEDDED!r} brings its own weights: leave out pretrained and quick_gelu")
        from vlmcourse.backbone.emojiclip import load_emojiclip

        return load_emojiclip(device, dtype)
    if name.startswith(LOCAL):
        if pretrained is not None:
            raise ValueError(f"{name!r} brings its own weights: leave out pretrained={str(pretrained)!r}")
        model, tokenizer = _from_folder(Path(name.removeprefix(LOCAL)), quick_gelu)
        label = Path(name.removeprefix(LOCAL)).name
    else:
        name = _known(name)
        model = _from_name(name, pretrained, quick_gelu, seed)
        tokenizer = open_clip.get_tokenizer(name)
        label = f"{name}:{Path(pretrained).name}"
    return Backbone(model, tokenizer, label, device, dtype)


def _from_name(name: str, pretrained, quick_gelu: bool | None, seed: int):
    """The open_clip.CLIP of that name, with weights from a tag, a file, or at random."""
    tags = list_pretrained_tags_by_model(name)
    config = open_clip.get_model_config(name)
    _check_config(name, config)
    if pretrained is None:
        raise ValueError(
            f"load_backbone({name!r}) needs pretrained=: a tag to download ({', '.join(tags[:4]) or 'none exists'}), "
            "the path of a local file, or 'random' if a network that knows nothing is really wanted"
        )
    named = bool(config.get("quick_gelu", False))
    if pretrained == "random":
        return _create(name, None, named if quick_gelu is None else quick_gelu, seed)
    if tag := get_pretrained_cfg(name, str(pretrained)):
        trained = bool(tag.get("quick_gelu", False))
        return _create(name, pretrained, trained if quick_gelu is None else quick_gelu, seed)
    path = Path(pretrained)
    if not path.is_file():
        if path.suffix or len(path.parts) > 1:
            raise DataError(f"pretrained={str(path)!r}: there is no such file")
        hint = _suggest(pretrained, tags)
        raise ValueError(f"pretrained={str(pretrained)!r} is neither a file nor a tag of {name!r}{hint}")
    if quick_gelu is None:
        quick_gelu = named
        if not named:
            warnings.warn(
                f"{path.name} is loaded into {name!r} with the exact GELU. Weights of OpenAI need quick_gelu=True; "
                "say quick_gelu=False to confirm that these do not",
                stacklevel=3,
            )
    _refuse_torchscript(path)
    return _create(name, str(path), quick_gelu, seed)


def _from_folder(folder: Path, quick_gelu: bool | None):
    """The open_clip.CLIP and the tokenizer of a folder in open_clip's layout; a relative bpe_path counts from there."""
    file = folder / "open_clip_config.json"
    if not file.is_file():
        raise DataError(f"{LOCAL}{folder}: there is no open_clip_config.json in that folder")
    try:
        config = json.loads(file.read_text(encoding="utf-8"))["model_cfg"]
        text = config["text_cfg"]
    except (ValueError, KeyError, TypeError) as error:
        raise DataError(f"{file} is not a configuration of open_clip ({type(error).__name__}: {error})") from error
    _check_config(str(folder), config)
    bpe = text.get("tokenizer_kwargs", {}).get("bpe_path")
    tokenizer = open_clip.get_tokenizer(f"{LOCAL}{folder}", **({"bpe_path": str(folder / bpe)} if bpe else {}))
    activation = bool(config.get("quick_gelu", False)) if quick_gelu is None else quick_gelu
    return _create(f"{LOCAL}{folder}", None, activation, seed=0, require_pretrained=True), tokenizer


def _create(name: str, pretrained: str | None, quick_gelu: bool, seed: int, **options):
    """open_clip.create_model, drawn with its own seed, and with errors that say what to do."""
    try:
        with torch.random.fork_rng(devices=[]):  # building a model draws numbers: leave the caller's stream alone
            torch.manual_seed(seed)
            return open_clip.create_model(
                name, pretrained, force_quick_gelu=quick_gelu, quick_gelu=quick_gelu, weights_only=True, **options
            )
    except Exception as error:
        if pretrained is None and not options:  # nothing was read
            raise
        source = pretrained or name
        if "Error(s) in loading state_dict" in str(error):
            detail = " ".join(str(error).split())[:300]
            raise ValueError(f"{source} holds weights of another architecture than {name!r}: {detail}") from error
        if "Failed to download" in str(error):
            raise DataError(
                f"{name!r}, pretrained={pretrained!r} could not be downloaded ({error}). "
                "Without network, give the path of a local file, or use the embedded 'emojiclip'"
            ) from error
        raise DataError(
            f"{source} cannot be read as weights ({type(error).__name__}: {str(error)[:200]}). "
            "It is damaged or of another format: copy or download it again"
        ) from error


def _known(name: str) -> str:
    """The name as open_clip spells it; ValueError with the closest names otherwise."""
    names = open_clip.list_models()
    spelled = name.replace("/", "-")
    if spelled not in names:
        if name.startswith("hf-hub:"):
            raise ValueError(f"{name!r}: download that model to a folder first, then say {LOCAL}FOLDER")
        raise ValueError(f"name={name!r} is no backbone{_suggest(spelled, [EMBEDDED, *names])}")
    return spelled


def _suggest(wrong: object, names: list[str]) -> str:
    lower = {n.lower(): n for n in names}
    close = [lower[n] for n in difflib.get_close_matches(str(wrong).lower(), lower, n=5, cutoff=0.5)]
    return f"; close: {', '.join(close)}" if close else f"; known: {', '.join(names[:8])} …" if names else ""


def _check_config(name: str, config: dict) -> None:
    """Refuse, before anything is built or fetched, what the course's methods cannot use."""
    text, vision = config.get("text_cfg", {}), config.get("vision_cfg", {})
    other = config.get("custom_text") or "multimodal_cfg" in config or "hf_model_name" in text
    if other or "timm_model_name" in vision or "hf_tokenizer_name" in text:
        raise ValueError(f"{name!r} is not a plain CLIP (ViT or ResNet, with CLIP's own text tower and tokenizer)")


def _check_arguments(name, device, dtype) -> None:
    if not isinstance(name, str):
        raise TypeError(f"name={name!r}, expected a string such as {EMBEDDED!r} or 'ViT-B-16'")
    if not isinstance(dtype, torch.dtype) or not dtype.is_floating_point:
        raise ValueError(f"dtype={dtype!r}, expected a floating-point type such as torch.float32 or torch.bfloat16")
    if torch.device(device).type == "cuda" and not torch.cuda.is_available():
        raise ValueError(f"device={str(device)!r}, but PyTorch sees no GPU here; use device='cpu'")


def _refuse_torchscript(path: Path) -> None:
    if zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as archive:
            if any("/code/" in entry for entry in archive.namelist()):
                raise ValueError(
                    f"{path.name} is a TorchScript archive (a program, not only weights). If you trust it, convert it "
                    "once: torch.save(torch.jit.load(path, map_location='cpu').state_dict(), 'weights.pt')"
                )
