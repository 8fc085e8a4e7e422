"""Captions: what the "internet" of this world writes beside its pictures.

Mostly a name in a few words, sometimes a keyword or a visual phrase, rarely a whole sentence. That mixture, not the
prompt templates of a downstream task, is what EmojiCLIP has read.
"""

from collections.abc import Sequence

import numpy as np

from vlmcourse.world.concepts import Concept

FRAMES = (
    "{}", "a {}", "the {}", "a picture of a {}", "an icon of a {}", "an emoji of a {}", "a drawing of a {}", "{} icon",
    "a small {}", "{} symbol", "this is a {}", "clip art of a {}",
)  # fmt: skip
PAIRS = ("a {} and a {}", "a {} next to a {}", "{} and {}", "a picture of a {} with a {}", "a {} beside a {}")
PLACED = {"left": "a {} to the left of a {}", "right": "a {} to the right of a {}"}


def article(text: str) -> str:
    """`a` -> `an` before vowels: "a apple" -> "an apple"."""
    words = text.split()
    for i, (word, following) in enumerate(zip(words, words[1:])):
        if word == "a" and following[0] in "aeio":
            words[i] = "an"
    return " ".join(words)


def short_captions(concept: Concept) -> list[str]:
    """Captions of a few words: frames around the name and its aliases, name with a keyword or a visual phrase."""
    captions = [article(frame.format(concept.name)) for frame in FRAMES]
    captions += [article(frame.format(alias)) for alias in concept.aliases for frame in FRAMES[:4:2] + FRAMES[3:5]]
    captions += [f"{concept.name} {keyword}" for keyword in concept.keywords[:4] if keyword not in concept.name]
    return captions


def long_captions(concept: Concept) -> list[str]:
    """Captions that describe: sentences, and names with visual phrases."""
    captions = list(concept.sentences) + list(concept.descriptors)
    captions += [article(f"a {concept.name}, {phrase}") for phrase in concept.descriptors]
    return captions


def scene_captions(names: Sequence[str], positions: Sequence[str | None], background: str, rng) -> list[str]:
    """Captions of one composed scene: its objects, where they are, and what they lie on.

    names: the objects' names; positions: words such as "top left" per object; rng: numpy Generator.
    """
    if len(names) == 1:
        frame = FRAMES[rng.integers(1, 7)]
        place = f" at the {positions[0]}" if positions[0] not in (None, "centre") else " in the centre"
        return [article(f"{frame.format(names[0])} on a {background} background"), article(f"a {names[0]}{place}")]
    if len(names) > 2:
        order = rng.permutation(len(names))
        return [article(", ".join(f"a {names[i]}" for i in order[:-1]) + f" and a {names[order[-1]]}")]
    a, b = (0, 1) if rng.random() < 0.5 else (1, 0)
    captions = [article(PAIRS[rng.integers(len(PAIRS))].format(names[a], names[b]))]
    if positions[a] and positions[b]:
        for side, frame in PLACED.items():
            other = "right" if side == "left" else "left"
            if side in positions[a] and other in positions[b]:
                captions.append(article(frame.format(names[a], names[b])))
    captions.append(article(f"a {names[a]} and a {names[b]} on a {background} background"))
    return captions


def pad_tokens(rows: Sequence[Sequence[int]], length: int) -> np.ndarray:
    """Token lists as one (N, length) int16 array, padded with zeros."""
    table = np.zeros((len(rows), length), np.int16)
    for i, row in enumerate(rows):
        table[i, : len(row)] = row
    return table
