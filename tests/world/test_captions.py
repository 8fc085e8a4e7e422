"""What the captions say, and that EmojiCLIP's tokenizer can read them whole."""

import numpy as np
import pytest

from vlmcourse.world.backgrounds import PHRASES
from vlmcourse.world.captions import (
    FRAMES,
    PAIRS,
    PLACED,
    article,
    long_captions,
    pad_tokens,
    scene_captions,
    short_captions,
)
from vlmcourse.world.colours import COLOURS
from vlmcourse.world.concepts import Concept, load_concepts

CONTEXT = 32  # tokens, with start and end


def concept(name: str, aliases=(), keywords=()) -> Concept:
    descriptors = tuple(f"trait {i}" for i in range(6))
    return Concept(0, name, name, aliases, keywords, (), "objects", "tools", "seen", descriptors, ("One.", "Two."))


@pytest.mark.parametrize(
    ("text", "better"),
    [
        ("a apple", "an apple"),
        ("a picture of a orange", "a picture of an orange"),
        ("a apple and a owl", "an apple and an owl"),
        ("a unicorn", "a unicorn"),
        ("a cat", "a cat"),
        ("the apple", "the apple"),
        ("apple", "apple"),
        ("vitamin a", "vitamin a"),
        ("", ""),
    ],
)
def test_article(text, better):
    assert article(text) == better
    assert article(better) == better


def test_short_captions():
    found = short_captions(concept("owl", ("night bird",), ("bird", "owl", "wise", "o")))
    assert len(found) == len(set(found))
    assert {"owl", "an owl", "a picture of an owl", "night bird", "a picture of a night bird"} <= set(found)
    assert {"owl bird", "owl wise"} <= set(found)
    assert "owl owl" not in found  # a keyword that is part of the name adds nothing
    assert len(found) == len(FRAMES) + 4 + 2
    assert not any("{" in text for text in found)


def test_long_captions():
    owl = concept("owl")
    found = long_captions(owl)
    assert found[:8] == ["One.", "Two.", *owl.descriptors]
    assert found[8:] == [f"an owl, trait {i}" for i in range(6)]


def rng():
    return np.random.default_rng(0)


def test_one_object():
    full, placed = scene_captions(["owl"], ["top left"], "blue", rng())
    assert full.endswith("owl on a blue background")
    assert placed == "an owl at the top left"
    assert scene_captions(["cat"], ["centre"], "red", rng())[1] == "a cat in the centre"
    assert scene_captions(["cat"], ["centre"], "orange", rng())[0].endswith("on an orange background")


@pytest.mark.parametrize(
    "positions", [("top left", "bottom right"), ("left", "right"), ("top", "bottom"), (None, "left")]
)
def test_two_objects(positions):
    generator, orders = rng(), set()
    for _ in range(40):
        captions = scene_captions(["owl", "cat"], positions, "striped", generator)
        assert all("owl" in c and "cat" in c for c in captions)
        assert captions[-1].endswith("on a striped background")
        sides = [c for c in captions if " to the " in c]
        if positions[0] and "left" in positions[0]:  # the owl is left of the cat, whoever is named first
            assert sides in (["an owl to the left of a cat"], ["a cat to the right of an owl"])
        else:
            assert sides == []
        orders.add(captions[0].index("owl") < captions[0].index("cat"))
    assert orders == {True, False}


def test_more_objects():
    (caption,) = scene_captions(["owl", "cat", "key"], ["left", "centre", "right"], "red", rng())
    assert all(name in caption for name in ("owl", "cat", "key"))
    assert caption.count(",") == 1 and caption.count(" and ") == 1


def test_equal_seeds_give_equal_captions():
    first, second = (scene_captions(["owl", "cat"], ["left", "right"], "red", np.random.default_rng(5)) for _ in "ab")
    assert first == second


def test_frames_have_one_place_per_name():
    assert all(frame.count("{}") == 1 for frame in FRAMES)
    assert all(frame.count("{}") == 2 for frame in (*PAIRS, *PLACED.values()))


def test_pad_tokens():
    table = pad_tokens([[5, 6], [7], []], 4)
    assert table.dtype == np.int16
    assert table.tolist() == [[5, 6, 0, 0], [7, 0, 0, 0], [0, 0, 0, 0]]
    with pytest.raises(ValueError):
        pad_tokens([[1, 2, 3]], 2)


@pytest.fixture(scope="module")
def length():
    """Number of tokens of a sentence, start and end included."""
    from vlmcourse.backbone.emojiclip import build_tokenizer

    tokenizer = build_tokenizer()
    return lambda sentence: len(tokenizer.encode(sentence)) + 2


def test_shipped_names_and_phrases_fit(length):
    for c in load_concepts():
        phrase = max(c.descriptors, key=length)
        longest = max((c.name, *c.aliases), key=length)
        assert length(f"this is a {longest}") <= CONTEXT, c.name
        assert length(f"a {c.name}, {phrase}") <= CONTEXT, c.name


def test_shipped_sentences_fit(length):
    long = {s: length(s) for c in load_concepts() for s in c.sentences if length(s) > CONTEXT}
    assert not long


def test_shipped_scenes_fit(length):
    """Only the longest pairs of names on the longest backgrounds lose their last words, less than 1 in 500."""
    names, colours, generator = [c.name for c in load_concepts()], list(COLOURS), rng()
    tokens, long = {name: length(name) - 2 for name in names}, 0
    for _ in range(3000):
        pair = [names[i] for i in generator.choice(len(names), 2, replace=False)]
        a, b = (colours[i] for i in generator.choice(len(colours), 2, replace=False))
        ground = list(PHRASES.values())[generator.integers(len(PHRASES))]
        if sum(tokens[name] for name in pair) > 10:  # others fit whatever the background
            captions = scene_captions(pair, ["bottom left", "bottom right"], ground.format(a=a, b=b), generator)
            long += max(map(length, captions)) > CONTEXT
    assert long < 6
    longest = max(names, key=length)
    for text in scene_captions([longest], ["bottom right"], "turquoise and turquoise gradient", generator):
        assert length(text) <= CONTEXT
