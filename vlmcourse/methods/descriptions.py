"""What classes look like, in words: visual phrases ("descriptors") and whole sentences, for CuPL and VCD.

Shipped, and written for this course: descriptors (six or more) and three sentences for the 749 concepts of the world
(`data/concepts.json`), and for the classes of the far tasks that are no concepts, such as digits
(`data/far_descriptions.jsonl`). What EmojiCLIP knows of them already differs:
    seen concepts    sentences and descriptors were among the captions of their training images
    novel concepts   never beside an image; the text tower met them when it was taught by the sentence encoder
    far classes      never met
Other classes need texts of your own: a table {class: [texts]}, a JSON file with one, or a language model.

Controls, for whoever wants to know whether the words matter: `random_descriptors` (after WaffleCLIP, Roth et al., ICCV
2023, arXiv 2306.07282: 15 of words, 15 of characters, several draws) and `swapped_descriptors`.
"""

import difflib
import json
import re
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path

import torch

from vlmcourse.errors import DataError
from vlmcourse.methods.base import full_precision
from vlmcourse.methods.class_text import readable
from vlmcourse.paths import data_dir
from vlmcourse.world.concepts import load_concepts

KINDS = ("descriptors", "sentences")


def shipped(class_names, kind):
    """[texts of each class] from what ships; kind: "descriptors" or "sentences". ValueError names an unknown class."""
    if kind not in KINDS:
        raise ValueError(f"kind={kind!r} must be one of {KINDS}")
    concepts, far = load_concepts(), _far(data_dir() / "far_descriptions.jsonl")
    known = {concept.name: getattr(concept, kind) for concept in concepts}
    known |= {name: tuple(record[kind]) for name, record in far.items()}
    return look_up(class_names, known, f"no {kind} ship for it; give source={{class: [texts]}}, a file or a generator")


def from_source(class_names, source):
    """[texts of each class] from a table {class: [texts]} or the path of a JSON file with one (as CuPL's and VCD's)."""
    if isinstance(source, str | Path):
        try:
            source = json.loads(Path(source).read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise ValueError(f"source={str(source)!r} is not a readable JSON file: {error}") from error
    if not isinstance(source, Mapping):
        raise ValueError(
            f"source={type(source).__name__} must be None, a table {{class: [texts]}}, a path or a function"
        )
    return look_up(class_names, source, "the source has no texts for it")


def look_up(class_names, table, problem):
    """[tuple(table[name])], in the order of the names (not of the table), underscores in names being spaces."""
    by_name = {readable(name): texts for name, texts in table.items()}
    found = []
    for name in map(readable, class_names):
        if name not in by_name:
            near = difflib.get_close_matches(name, by_name)
            raise ValueError(f"class {name!r}: {problem}" + (f" (close names: {', '.join(near)})" if near else ""))
        texts = by_name[name]
        if isinstance(texts, str) or not isinstance(texts, Sequence) or not all(isinstance(t, str) for t in texts):
            raise ValueError(f"class {name!r}: its texts must be a list of strings, got {texts!r}")
        found.append(tuple(texts))
    return found


@torch.no_grad()
def text_features(backbone, texts, truncate=True):
    """(n, E) L2-normalised features of n texts. truncate: shorten those that are too long; False: ValueError."""
    if truncate:
        bpe, longest = backbone.tokenizer, backbone.context_length - 2
        rows = [[bpe.sot_token_id, *bpe.encode(text)[:longest], bpe.eot_token_id] for text in texts]
        texts = torch.tensor([row + [0] * (longest + 2 - len(row)) for row in rows])  # (n, L)
    return full_precision(backbone.encode_text(texts))


def class_index(groups, device=None):
    """(sum m,) long: the class of every text of ragged groups [m_0 texts, m_1 texts, ...]."""
    counts = torch.tensor([len(group) for group in groups])
    return torch.arange(len(groups)).repeat_interleave(counts).to(device)


def class_mean(features, index, count):
    """(C, E): the mean of the rows (sum m, E) of every class, not normalised. index: (sum m,); count: C."""
    sums = features.new_zeros(count, features.shape[1]).index_add(0, index, features)
    return sums / torch.bincount(index, minlength=count).to(features)[:, None]


def random_descriptors(class_names, words=15, characters=15, length=2, word_length=6, seed=0):
    """{class: descriptors}, meaningless and the same for every class: `words` of `length` random words each (from
    `data/phrases.txt`), and `characters` of as many strings of `word_length` random letters and signs."""
    if min(words, characters) < 0 or words + characters < 1 or min(length, word_length) < 1:
        raise ValueError(
            f"words={words!r}, characters={characters!r}: at least one descriptor; length={length!r} and "
            f"word_length={word_length!r}: at least 1"
        )
    known = sorted(set(re.findall(r"\b[a-z]{3,}\b", (data_dir() / "phrases.txt").read_text(encoding="utf-8"))))
    signs = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789!?#$%&*+-"
    draw = torch.Generator().manual_seed(seed)

    def pick(items, count):
        return [items[i] for i in torch.randint(len(items), (count,), generator=draw).tolist()]

    noise = [" ".join(pick(known, length)) for _ in range(words)]
    noise += [" ".join("".join(pick(signs, word_length)) for _ in range(length)) for _ in range(characters)]
    return {name: tuple(noise) for name in class_names}


def swapped_descriptors(table, seed=0):
    """{class: descriptors of another class}: a random cycle, so no class keeps its own. ValueError for one class."""
    names = list(table)
    if len(names) < 2:
        raise ValueError(f"table has {len(names)} class(es); swapping needs at least 2")
    order = torch.randperm(len(names), generator=torch.Generator().manual_seed(seed)).tolist()
    return {names[a]: tuple(table[names[b]]) for a, b in zip(order, order[1:] + order[:1], strict=True)}


@cache
def _far(path):
    try:
        records = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines() if line]
        return {record["name"]: {kind: record[kind] for kind in KINDS} for record in records}
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DataError(f"{path} is missing or damaged ({error!r}). Restore it (git checkout -- data).") from error
