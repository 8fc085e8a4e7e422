"""Labels read off sentences: which classes a caption names (the noun filtering of TaI-DPT, CVPR 2023).

Words are lower-cased and brought to the singular; names of several words go first and are taken out, so that an "alarm
clock" is not a clock as well; then single words. A class is PRESENT if one of its synonyms occurs. Longer synonyms go
before shorter ones, equal ones by the alphabet, so labels do not depend on the order of anything. Matching is literal:
"orange" the colour counts as the fruit, and a "bus stop" as a bus where no class is called so.
"""

import re
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from vlmcourse.world.concepts import load_concepts

IRREGULAR = {"men": "man", "women": "woman", "people": "person", "children": "child", "mice": "mouse", "feet": "foot",
             "knives": "knife", "leaves": "leaf", "shelves": "shelf", "geese": "goose", "teeth": "tooth"}  # fmt: skip
KEEP = ("ss", "us", "is", "as")  # "glass", "bus", "tennis", "gas" are no plurals


def singular(word: str) -> str:
    """A small lemmatiser for English nouns: "buses" -> "bus", "cherries" -> "cherry", "cars" -> "car"."""
    if word in IRREGULAR:
        return IRREGULAR[word]
    if len(word) < 4 or not word.endswith("s") or word.endswith(KEEP):
        return word
    if word.endswith("ies") and len(word) > 4:
        return word[:-3] + "y"
    if word.endswith(("sses", "uses", "xes", "zzes", "ches", "shes")) and not word.endswith(("houses", "mouses")):
        return word[:-2]
    return word[:-1]


def plain(text: str) -> str:
    """Lower-case words in the singular, single spaces between and around them."""
    return " " + " ".join(singular(word) for word in re.findall(r"[a-z0-9]+", text.lower())) + " "


def default_synonyms(class_names: Sequence[str]) -> dict[str, tuple[str, ...]]:
    """Each class's name, and its aliases where it is a concept of the world; an alias of two classes serves neither."""
    known = {concept.name: concept.aliases for concept in load_concepts()}
    words = {name: {plain(word) for word in (name, *known.get(name, ()))} for name in class_names}
    own = {plain(name) for name in class_names}
    return {
        name: tuple(
            sorted(
                w.strip()
                for w in mine
                if w == plain(name) or (w not in own and sum(w in other for other in words.values()) == 1)
            )
        )
        for name, mine in words.items()
    }


def read_labels(captions: Sequence[str], class_names: Sequence[str], synonyms: Mapping | None = None) -> Tensor:
    """(n, C) int64 of 1 and 0: which classes each caption names. synonyms: {class: words}, None: `default_synonyms`.

    ValueError for a class without synonyms.
    """
    synonyms = default_synonyms(class_names) if synonyms is None else synonyms
    missing = [name for name in class_names if not synonyms.get(name)]
    if missing:
        raise ValueError(f"synonyms has no words for {missing}")
    words = {(plain(word), c) for c, name in enumerate(class_names) for word in synonyms[name]}
    words = sorted(words, key=lambda pair: (-pair[0].count(" "), -len(pair[0]), pair))
    labels = torch.zeros(len(captions), len(class_names), dtype=torch.long)
    for i, caption in enumerate(captions):
        text = plain(caption)
        for word, c in words:
            if word in text:
                labels[i, c] = 1
                if word.count(" ") > 2:  # several words: taken out, so that its parts do not count
                    text = text.replace(word, " , ")
    return labels
