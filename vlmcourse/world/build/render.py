"""Render drawings to 64 × 64 RGBA sprites: trimmed, centred, longest side 60 pixels."""

import io
from multiprocessing import get_context

import numpy as np
from PIL import Image

from vlmcourse.world.build.sources import Icon

CELL, FILL, OVERSAMPLE = 64, 60, 160


def render(icon: Icon) -> np.ndarray | None:
    """One sprite (64, 64, 4) uint8, or None if the drawing is empty, opaque or unreadable."""
    try:
        if icon.raster:
            image = Image.open(icon.svg).convert("RGBA")
        else:
            import resvg_py

            given = {"svg_string": icon.svg} if icon.svg.startswith("<") else {"svg_path": icon.svg}
            png = resvg_py.svg_to_bytes(**given, width=OVERSAMPLE)
            image = Image.open(io.BytesIO(bytes(png))).convert("RGBA")
    except Exception:  # a drawing that its own tool cannot read is left out and counted by the caller
        return None
    box = image.getchannel("A").point(lambda a: 255 if a > 16 else 0).getbbox()
    if box is None or min(box[2] - box[0], box[3] - box[1]) < 6:
        return None
    image = image.crop(box)
    scale = FILL / max(image.size)
    size = (max(1, round(image.width * scale)), max(1, round(image.height * scale)))
    premultiplied = np.asarray(image, dtype=np.float32) / 255
    premultiplied = np.concatenate([premultiplied[..., :3] * premultiplied[..., 3:], premultiplied[..., 3:]], -1)
    bands = [Image.fromarray(premultiplied[..., c]).resize(size, Image.Resampling.LANCZOS) for c in range(4)]
    small = np.stack([np.asarray(b) for b in bands], -1).clip(0, 1)
    small[..., :3] = np.where(small[..., 3:] > 0, small[..., :3] / np.maximum(small[..., 3:], 1e-3), 0).clip(0, 1)
    cell = np.zeros((CELL, CELL, 4), np.float32)
    top, left = (CELL - size[1]) // 2, (CELL - size[0]) // 2
    cell[top : top + size[1], left : left + size[0]] = small
    alpha = cell[..., 3]
    if alpha.mean() < 0.02 or (alpha > 0.9).mean() > 0.86:  # a speck, or a full tile (an app badge, a photo frame)
        return None
    return (cell * 255).round().astype(np.uint8)


def render_all(icons: list[Icon], workers: int = 2) -> list[np.ndarray | None]:
    """Render many drawings in parallel processes."""
    with get_context("spawn").Pool(workers) as pool:
        return pool.map(render, icons, chunksize=64)
