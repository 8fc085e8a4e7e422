"""Labels read off captions."""

import pytest

from vlmcourse.methods.nouns import default_synonyms, read_labels, singular


@pytest.mark.parametrize(
    ("word", "expected"),
    [("cars", "car"), ("buses", "bus"), ("bus", "bus"), ("cherries", "cherry"), ("glass", "glass"), ("boxes", "box"),
     ("glasses", "glass"), ("houses", "house"), ("scissors", "scissor"), ("knives", "knife"), ("people", "person"),
     ("watches", "watch"), ("gas", "gas"), ("pies", "pie"), ("tennis", "tennis")],
)  # fmt: skip
def test_singular(word, expected):
    assert singular(word) == expected


def test_captions_name_classes():
    names = ("cat", "alarm clock", "clock", "scissors")
    words = {name: (name,) for name in names} | {"cat": ("cat", "kitten")}
    captions = [
        "Two CATS, and a pair of scissors.",
        "an alarm clock",
        "a clock beside alarm clocks",
        "a kitten",
        "catalogue",
        "",
    ]
    expected = [[1, 0, 0, 1], [0, 1, 0, 0], [0, 1, 1, 0], [1, 0, 0, 0], [0, 0, 0, 0], [0, 0, 0, 0]]
    assert read_labels(captions, names, words).tolist() == expected
    backwards = {name: words[name][::-1] for name in reversed(names)}
    assert read_labels(captions, names, backwards).tolist() == expected, "the order of synonyms does not matter"
    with pytest.raises(ValueError, match="no words for .'clock'"):
        read_labels(captions, names, {**words, "clock": ()})


def test_default_synonyms_are_aliases_that_no_other_class_has():
    words = default_synonyms(("cat", "monkey", "primate"))
    assert set(words) == {"cat", "monkey", "primate"} and "cat" in words["cat"]
    assert "chimp" in words["monkey"] and "primate" not in words["monkey"], "another class is called so"
    assert default_synonyms(("zorp",)) == {"zorp": ("zorp",)}
