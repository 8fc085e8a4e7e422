"""Match icon names to concepts.

Icon sets name the same thing in many ways (`cat`, `cat-24-filled`, `baseline-cat`); `base_name` strips size, weight and
fill. Two kinds of words lead to a concept: *labels* are the CLDR names of emoji and count in emoji sets only, where a
"mouse" is an animal; *icon names* count everywhere, because somebody checked what icon sets mean by them.
"""

import re
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path

from vlmcourse.world.build.sources import EMOJI, Icon

_STYLE_WORDS = (
    "outline|outlined|outline-rounded|outline-sharp|solid|bold|bold-duotone|duotone|duotone-line|linear|line-duotone|"
    "broken|fill|filled|line|light|thin|sharp|rounded|round|twotone|twotone-loop|regular|color|solid-sharp|stroke|"
    "stroke-rounded|stroke-sharp|solid-rounded|duotone-rounded|bulk-rounded|twotone-rounded|flat|remix|small|o|loop|"
    "outline-loop|sharp-fill|rounded-fill|flat-bold|solid-straight|straight|line-24|duo|negative|bulk"
)
_SUFFIX = re.compile(rf"-({_STYLE_WORDS}|\d+px|\d+)$")
_PREFIX = re.compile(r"^(baseline|outline|sharp|round|twotone)-")
_FILLED = re.compile(r"(fill|solid|bold|duotone|color|bulk|flat|remix)")
# Sets whose names carry a topic before the thing ("modern-music-electric-guitar"): the end of the name is matched too.
_TOPIC_FIRST = {
    "streamline-cyber", "streamline-cyber-color", "streamline-freehand", "streamline-freehand-color",
    "streamline-ultimate", "streamline-ultimate-color", "streamline-kameleon-color",
}  # fmt: skip
_TOPIC_GROUPS = {"animals", "plants", "food", "transport"}


@dataclass(frozen=True)
class Entry:
    """One line of `concepts.txt`: group; name; CLDR labels; icon names."""

    group: str
    name: str
    labels: tuple[str, ...]
    icons: tuple[str, ...]


def slug(text: str) -> str:
    """`Red Apple` -> `red-apple`."""
    return re.sub(r"[^a-z0-9]+", "-", text.lower().replace("’", "").replace("'", "")).strip("-")


def base_name(name: str) -> str:
    """Icon name without size, weight and fill."""
    name, previous = name.lower().replace("_", "-"), None
    while name != previous:
        previous, name = name, _SUFFIX.sub("", name)
        name = re.sub(r"(?<=[a-z])\d+$", "", name)
    return _PREFIX.sub("", name)


def is_filled(name: str) -> bool:
    """Whether a variant's name says that it is filled rather than drawn with lines."""
    return bool(_FILLED.search(name))


def read_entries(path: Path) -> list[Entry]:
    """Read the concept table."""
    entries = []
    for line in path.read_text(encoding="utf-8").splitlines():
        if line.strip() and not line.startswith("#"):
            group, name, labels, icons = (part.strip() for part in line.split(";"))
            words = [tuple(x.strip() for x in part.split(",") if x.strip()) for part in (labels, icons)]
            entries.append(Entry(group, name, *words))
    return entries


def match(entries: list[Entry], icons: list[Icon]) -> dict[str, list[Icon]]:
    """Icons of every concept, at most two variants (plain and filled) of one drawing of one source."""
    by_icon = {icon: e.name for e in entries for icon in e.icons}
    by_label = by_icon | {slug(label): e.name for e in entries for label in e.labels}
    squashed = {label.replace("-", ""): name for label, name in by_label.items()}
    topical = {icon: e.name for e in entries if e.group in _TOPIC_GROUPS for icon in e.icons if len(icon) > 2}
    found: dict[tuple[str, str, str], list[Icon]] = defaultdict(list)
    for icon in icons:
        words = by_label if icon.source in EMOJI else by_icon
        concept = words.get(slug(icon.name)) or words.get(icon.base)
        if concept is None and icon.source == "fxemoji":
            concept = squashed.get(icon.name)
        if concept is None and icon.source in _TOPIC_FIRST:
            concept = _by_ending(icon.base, topical, by_icon)
        if concept is not None:
            found[concept, icon.source, icon.base].append(icon)
    result: dict[str, list[Icon]] = defaultdict(list)
    for (concept, _, _), variants in sorted(found.items()):
        variants.sort(key=lambda v: (len(v.name), v.name))
        chosen = variants[:1] + [v for v in variants[1:] if is_filled(v.name) != is_filled(variants[0].name)][:1]
        result[concept] += chosen
    return dict(result)


def _by_ending(base: str, topical: dict[str, str], everything: dict[str, str]) -> str | None:
    words = base.split("-")
    for start in range(1, len(words)):
        ending = "-".join(words[start:])
        if ending in everything:  # the longest known ending decides, whatever its group: a hot dog is no dog
            return topical.get(ending)
    return None
