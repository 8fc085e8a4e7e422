"""`vlmcourse data build`: from the registries' packages to `data/concepts.json` and `data/sprites/`.

Steps: fetch packages, read drawings, match names to concepts, render, drop near-duplicates, cluster look-alikes, decide
the cuts, write atlases, index, sources and attributions. Everything is seeded; the same package versions give the same
files. The written descriptions are an input (`data/descriptions.jsonl`), not a product, of this command.
"""

import argparse
import csv
import io
import json
from collections import defaultdict
from pathlib import Path

import numpy as np

from vlmcourse import paths
from vlmcourse.files import atomic_write
from vlmcourse.world.build.atlas import source_record, write_atlas, write_attribution
from vlmcourse.world.build.cluster import clusters, keep_distinct
from vlmcourse.world.build.cuts import choose_novel, cut_clusters
from vlmcourse.world.build.fetch import fetch_packages
from vlmcourse.world.build.match import Entry, match, read_entries
from vlmcourse.world.build.read import read_iconify, read_openclipart, read_stamps
from vlmcourse.world.build.render import render_all
from vlmcourse.world.build.sources import EMOJI, HELD_OUT_STYLES, ICONS, SHARE_ALIKE, Icon

SEED = 20261122
TABLE = Path(__file__).with_name("concepts.txt")


def read_icons(packages: Path, entries: list[Entry]) -> list[Icon]:
    """Every drawing of every source, in the fixed order of `sources.py`."""
    icons: list[Icon] = []
    for source in dict.fromkeys(EMOJI + ICONS):
        icons += read_iconify(packages / "iconify" / source)
    icons += read_openclipart(packages / "debian" / "openclipart" / "usr/share/openclipart/svg", entries)
    icons += read_stamps(next((packages / "debian" / "tuxpaint-stamps").rglob("stamps")), entries)
    return icons


def emoji_facts(packages: Path, entries: list[Entry]) -> dict[str, tuple[list[str], list[str]]]:
    """Emoji characters and CLDR keywords of every concept, by its CLDR labels."""
    data = json.loads((packages / "emojibase" / "en" / "data.json").read_text(encoding="utf-8"))
    by_label = {e["label"].lower(): e for e in data}
    facts = {}
    for entry in entries:
        found = [by_label[label.lower()] for label in entry.labels if label.lower() in by_label]
        keywords = list(dict.fromkeys(tag for e in found[:2] for tag in e.get("tags", [])))
        facts[entry.name] = [e["emoji"] for e in found], [k for k in keywords if k != entry.name][:8]
    return facts


def build(packages: Path, target: Path, workers: int = 2) -> None:
    """Rebuild `concepts.json` and `sprites/` below `target` from unpacked packages."""
    entries = read_entries(TABLE)
    groups = {e.name: e.group for e in entries}
    matched = match(entries, read_icons(packages, entries))
    flat = [(name, icon) for name in groups if len(matched.get(name, [])) >= 8 for icon in matched[name]]
    print(f"{len(flat)} drawings of {len({n for n, _ in flat})} concepts; rendering", flush=True)
    rendered = render_all([icon for _, icon in flat], workers)
    sprites: dict[str, list[tuple[Icon, np.ndarray]]] = defaultdict(list)
    for (name, icon), image in zip(flat, rendered, strict=True):
        if image is not None:
            sprites[name].append((icon, image))

    own: dict[str, list[tuple[Icon, np.ndarray]]] = {}
    style: dict[str, list[tuple[Icon, np.ndarray]]] = {}
    groups_of: dict[str, np.ndarray] = {}
    for name, items in sprites.items():
        items = sorted(items, key=lambda item: item[0].source in HELD_OUT_STYLES)  # stable: own sprites first
        items = [items[i] for i in keep_distinct(np.stack([image for _, image in items]))]
        own[name] = [item for item in items if item[0].source not in HELD_OUT_STYLES]
        style[name] = [item for item in items if item[0].source in HELD_OUT_STYLES]
        if own[name]:
            drawing = [(icon.family, icon.base) for icon, _ in own[name]]
            groups_of[name] = clusters(np.stack([image for _, image in own[name]]), drawing)
    counts = {name: (int(c.max()) + 1, len(c)) for name, c in groups_of.items()}
    concept_cut = choose_novel(groups, counts, SEED)
    kept = [e for e in entries if e.name in concept_cut]

    rng = np.random.default_rng(SEED)
    by_source: dict[str, list[tuple[np.ndarray, dict]]] = defaultdict(list)
    for concept, entry in enumerate(kept):
        novel = concept_cut[entry.name] == "novel"
        local = groups_of[entry.name]
        cut = np.array(["novel"] * len(local), dtype=object) if novel else cut_clusters(local, rng)
        for (icon, image), c, where in zip(own[entry.name], local, cut, strict=True):
            if where:
                row = {"concept": concept, "icon_name": icon.name, "cluster": concept * 1000 + int(c), "cut": where}
                by_source[icon.source].append((image, row | {"mono": int(icon.mono)}))
        for n, (icon, image) in enumerate(style[entry.name]):
            row = {"concept": concept, "icon_name": icon.name, "cluster": concept * 1000 + 500 + n, "cut": "style"}
            by_source[icon.source].append((image, row | {"mono": int(icon.mono)}))
    _write(kept, concept_cut, by_source, emoji_facts(packages, kept), packages, target)


def _write(kept, concept_cut, by_source, facts, packages: Path, target: Path) -> None:
    rows, sources, total = [], {}, 0
    for source in sorted(by_source):
        items = by_source[source]
        mono = bool(items[0][1]["mono"])
        folder = target / "sprites" / ("share-alike" if source in SHARE_ALIKE else "")
        total += write_atlas(folder / f"{source}.webp", np.stack([image for image, _ in items]), mono)
        sources[source] = source_record(source, packages, mono)
        rows += [row | {"source": source, "cell": cell} for cell, (_, row) in enumerate(items)]
    table = io.StringIO()
    columns = ["sprite", "source", "cell", "concept", "icon_name", "mono", "cluster", "cut"]
    writer = csv.DictWriter(table, columns, lineterminator="\n")
    writer.writeheader()
    writer.writerows({"sprite": i, **row} for i, row in enumerate(rows))
    atomic_write(target / "sprites" / "index.csv", table.getvalue().encode())
    atomic_write(target / "sprites" / "sources.json", _json(sources))
    write_attribution(target / "sprites", sources)
    records = []
    for i, entry in enumerate(kept):
        emoji, keywords = facts[entry.name]
        key = entry.name.replace(" ", "_").replace("-", "_")
        named = {"id": i, "key": key, "name": entry.name, "keywords": keywords, "emoji": emoji, "group": entry.group}
        records.append(named | {"cut": concept_cut[entry.name]})
    write_concepts(records, target)
    print(f"{len(rows)} sprites of {len(kept)} concepts from {len(sources)} sources, {total / 1e6:.1f} MB")


def write_concepts(records: list[dict], target: Path) -> None:
    """Join the records with the hand-written texts and write `concepts.json`."""
    texts = read_descriptions(target / "descriptions.jsonl")
    lines = []
    for record in records:
        text = texts.get(record["name"], {})
        record = record | {"subgroup": text.get("subgroup", record["group"])}
        record |= {name: text.get(name, []) for name in ("aliases", "descriptors", "sentences")}
        lines.append(json.dumps(record, ensure_ascii=False))
    atomic_write(target / "concepts.json", ("[\n" + ",\n".join(lines) + "\n]\n").encode())


def read_descriptions(path: Path) -> dict[str, dict]:
    """Hand-written texts by concept name: subgroup, aliases, descriptors, sentences (one JSON object per line)."""
    if not path.is_file():
        return {}
    return {t["name"]: t for t in map(json.loads, path.read_text(encoding="utf-8").splitlines())}


def _json(value) -> bytes:
    return (json.dumps(value, indent=1, ensure_ascii=False, sort_keys=True) + "\n").encode()


def main(argv: list[str] | None = None) -> None:
    """Command line of `vlmcourse data build`."""
    parser = argparse.ArgumentParser(prog="vlmcourse data build", description=__doc__.splitlines()[0])
    parser.add_argument(
        "--packages", type=Path, help="folder of unpacked packages (default: the cache; filled if empty)"
    )
    parser.add_argument("--target", type=Path, default=None, help="where to write (default: data/)")
    parser.add_argument("--workers", type=int, default=2, help="rendering processes")
    parser.add_argument(
        "--texts-only", action="store_true", help="only join data/descriptions.jsonl into concepts.json"
    )
    arguments = parser.parse_args(argv)
    if arguments.texts_only:
        target = arguments.target or paths.data_dir()
        write_concepts(json.loads((target / "concepts.json").read_text(encoding="utf-8")), target)
        return
    packages = fetch_packages(arguments.packages or paths.cache_dir() / "packages")
    build(packages, arguments.target or paths.data_dir(), arguments.workers)
