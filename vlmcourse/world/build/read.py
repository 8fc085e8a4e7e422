"""Read drawings out of unpacked packages: Iconify sets (npm), openclipart and Tux Paint stamps (Debian)."""

import json
import re
from pathlib import Path

from vlmcourse.world.build.match import Entry, base_name, slug
from vlmcourse.world.build.sources import Icon

_FOLDER_GROUPS = {  # openclipart's folders and the concept groups that their file names are trusted for
    "animals": {"animals"}, "food": {"food"}, "plants": {"plants"}, "transportation": {"transport"},
    "tools": {"objects"}, "recreation": {"objects"}, "electronics": {"objects"}, "buildings": {"buildings"},
    "computer": {"objects"}, "office": {"objects"}, "containers": {"objects"}, "education": {"objects"},
}  # fmt: skip
_STAMP_NOISE = re.compile(
    r"^(t|w|b)_|^\d+_|_(golden|white|small|large|photo|new|old|red|green|blue|fuji|eating)\d*\b|\d"
)


def read_iconify(folder: Path) -> list[Icon]:
    """All drawings of one unpacked `@iconify-json/<set>` package."""
    data = json.loads((folder / "icons.json").read_text(encoding="utf-8"))
    info = json.loads((folder / "info.json").read_text(encoding="utf-8"))
    width, height = data.get("width", 16), data.get("height", 16)
    icons = []
    for name, icon in data["icons"].items():
        if icon.get("hidden"):
            continue
        w, h = icon.get("width", width), icon.get("height", height)
        view = f"{icon.get('left', data.get('left', 0))} {icon.get('top', data.get('top', 0))} {w} {h}"
        svg = f'<svg xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink" viewBox="{view}" '
        svg += f'width="{w}" height="{h}" color="black">{icon["body"]}</svg>'
        icons.append(Icon(folder.name, name, base_name(name), svg, mono=not info.get("palette", False)))
    return icons


def read_openclipart(folder: Path, entries: list[Entry]) -> list[Icon]:
    """Clip art whose file name begins with a concept's name and whose folder agrees with the concept's group."""
    icons = []
    for path in sorted(folder.rglob("*.svg")):
        groups = _FOLDER_GROUPS.get(path.relative_to(folder).parts[0], set())
        names = {icon for e in entries if e.group in groups for icon in e.icons}
        words = slug(path.stem).split("-")
        if "bw" in words:
            continue
        for length in range(min(3, len(words)), 0, -1):
            name = "-".join(words[:length])
            if name in names and not set(words[length : length + 1]) & _EVERYDAY:
                icons.append(Icon("openclipart", path.stem, name, str(path), mono=False))
                break
    return icons


_EVERYDAY = set(
    "core juice box head cartoon with and on in wedge slice half leaf tree icon pie foot print house".split()
)


def read_stamps(folder: Path, entries: list[Entry]) -> list[Icon]:
    """Photographic stamps (cut-out photographs with alpha); drawings and signs of the package are left out."""
    names = {icon for e in entries for icon in e.icons}
    icons = []
    for path in sorted(folder.rglob("*.png")):
        parts = path.relative_to(folder).parts
        if {"cartoon", "symbols", "seasonal", "roadsigns", "plastic", "flags", "toys"} & set(parts[:-1]):
            continue
        if "_mirror" in path.stem or "silo" in path.stem:
            continue
        name = slug(_STAMP_NOISE.sub("", path.stem.lower()).strip("_-"))
        words = name.split("-")
        for candidate in (name, words[-1], words[0], name.rstrip("s")):
            if candidate in names:
                icons.append(Icon("tuxpaint-stamps", path.stem, candidate, str(path), mono=False, raster=True))
                break
    return icons
