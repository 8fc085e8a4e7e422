"""Get the packages that hold the artwork, with the registries' ordinary clients (`npm`, `apt-get`)."""

import shutil
import subprocess
import tarfile
from pathlib import Path

from vlmcourse.errors import DataError
from vlmcourse.world.build.sources import DEBIAN, EMOJI, ICONS


def fetch_packages(folder: Path) -> Path:
    """Download and unpack what `folder` lacks: `iconify/<set>`, `emojibase`, `debian/<source>`. Returns the folder."""
    for source in dict.fromkeys(EMOJI + ICONS):
        _npm(f"@iconify-json/{source}", folder / "iconify" / source)
    _npm("emojibase-data", folder / "emojibase")
    for source, package in DEBIAN.items():
        _apt(package, folder / "debian" / source)
    return folder


def _run(command: list[str], cwd: Path) -> str:
    if shutil.which(command[0]) is None:
        raise DataError(f"rebuilding the atlases needs {command[0]!r}, which is not installed")
    done = subprocess.run(command, cwd=cwd, capture_output=True, text=True)
    if done.returncode:
        raise DataError(f"{' '.join(command)} failed:\n{done.stderr.strip()[-800:]}")
    return done.stdout.strip()


def _npm(package: str, target: Path) -> None:
    if (target / "package.json").is_file():
        return
    part = target.with_name(target.name + ".part")
    shutil.rmtree(part, ignore_errors=True)
    part.mkdir(parents=True)
    archive = part / _run(["npm", "pack", "--silent", package], part).splitlines()[-1]
    with tarfile.open(archive) as tar:
        tar.extractall(part, filter="data")
    archive.unlink()
    shutil.rmtree(target, ignore_errors=True)
    (part / "package").rename(target)
    shutil.rmtree(part, ignore_errors=True)


def _apt(package: str, target: Path) -> None:
    if target.is_dir():
        return
    part = target.with_name(target.name + ".part")
    shutil.rmtree(part, ignore_errors=True)
    part.mkdir(parents=True)
    _run(["apt-get", "download", package], part)
    archive = next(part.glob("*.deb"))
    _run(["dpkg", "-x", archive.name, "."], part)
    archive.unlink()
    part.rename(target)
