"""Write sprites as WebP atlases: one file per source, 32 cells of 64 × 64 per row."""

import io
import json
from pathlib import Path

import numpy as np
from PIL import Image

from vlmcourse.files import atomic_write
from vlmcourse.world.build.sources import DEBIAN, EMOJI, HELD_OUT_STYLES, SHARE_ALIKE

COLUMNS, CELL, QUALITY = 32, 64, 80


def atlas_image(rgba: np.ndarray, mono: bool) -> Image.Image:
    """Atlas of sprites (N, 64, 64, 4) uint8: RGBA, or coverage as greyscale for monochrome sources."""
    rows = -(-len(rgba) // COLUMNS)
    sheet = np.zeros((rows * COLUMNS, CELL, CELL, 4), np.uint8)
    sheet[: len(rgba)] = rgba
    sheet = sheet.reshape(rows, COLUMNS, CELL, CELL, 4).transpose(0, 2, 1, 3, 4).reshape(rows * CELL, COLUMNS * CELL, 4)
    if mono:
        return Image.fromarray(sheet[..., 3])
    return Image.fromarray(sheet, "RGBA")


def write_atlas(path: Path, rgba: np.ndarray, mono: bool) -> int:
    """Write one atlas atomically; returns its size in bytes."""
    buffer = io.BytesIO()
    atlas_image(rgba, mono).save(buffer, "WEBP", quality=QUALITY, alpha_quality=80, method=4)
    path.parent.mkdir(parents=True, exist_ok=True)
    atomic_write(path, buffer.getvalue())
    return buffer.tell()


def source_record(source: str, packages: Path, mono: bool) -> dict:
    """Title, licence, author and package of a source, read from the package itself."""
    kind = "emoji" if source in EMOJI else "clipart" if source in DEBIAN else "icon"
    common = {
        "kind": kind,
        "mono": mono,
        "share_alike": source in SHARE_ALIKE,
        "held_out_style": HELD_OUT_STYLES.get(source),
    }
    if source == "openclipart":
        return common | {
            "title": "Open Clip Art Library", "licence": "CC0-1.0", "author": "contributors of the library",
            "url": "https://openclipart.org", "package": "openclipart-svg (Debian)", "version": "0.18+dfsg-19",
        }  # fmt: skip
    if source == "tuxpaint-stamps":
        return common | {
            "title": "Tux Paint stamps", "licence": "GPL-2.0-only", "author": "Bill Kendrick and contributors",
            "url": "https://tuxpaint.org/stamps/", "package": "tuxpaint-stamps-default (Debian)",
            "version": "2022.06.04-1",
        }  # fmt: skip
    info = json.loads((packages / "iconify" / source / "info.json").read_text(encoding="utf-8"))
    package = json.loads((packages / "iconify" / source / "package.json").read_text(encoding="utf-8"))
    return common | {
        "title": info["name"],
        "licence": info["license"].get("spdx") or info["license"]["title"],
        "author": info["author"]["name"],
        "url": info["author"].get("url", info["license"].get("url", "")),
        "package": f"@iconify-json/{source}",
        "version": package["version"],
    }


def write_attribution(folder: Path, sources: dict[str, dict]) -> None:
    """One licence and attribution file per source, beside the atlases."""
    for name, record in sources.items():
        part = "share-alike" if record["share_alike"] else "."
        text = (
            f"{record['title']}\nAuthor: {record['author']}\nLicence: {record['licence']} (SPDX)\n"
            f"Home: {record['url']}\nTaken from: {record['package']} {record['version']}\n"
            "Changes: rendered, trimmed, scaled to 64 × 64 pixels; near-duplicates left out; packed into an atlas.\n"
        )
        atomic_write(folder / part / "licences" / f"{name}.txt", text.encode())
