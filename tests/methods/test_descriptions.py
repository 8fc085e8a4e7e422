"""Descriptions: what ships, look-up by name, ragged means, cut texts, the two controls, errors."""

import json

import pytest
import torch

from vlmcourse import paths
from vlmcourse.methods.descriptions import (
    KINDS,
    class_index,
    class_mean,
    from_source,
    random_descriptors,
    shipped,
    swapped_descriptors,
    text_features,
)
from vlmcourse.tasks.far import DIGIT_CLASSES, FASHION_CLASSES
from vlmcourse.world.concepts import load_concepts


def test_concepts_and_far_classes_have_descriptions():
    names = [concept.name for concept in load_concepts()] + [*FASHION_CLASSES, *DIGIT_CLASSES]
    for kind, least in (("sentences", 3), ("descriptors", 6)):
        texts = shipped(names, kind)
        assert len(texts) == len(names)
        assert all(len(group) >= least and len(set(group)) == len(group) for group in texts)


def test_the_far_file_holds_what_is_no_concept_in_the_style_of_the_others():
    lines = (paths.data_dir() / "far_descriptions.jsonl").read_text(encoding="utf-8").splitlines()
    records = [json.loads(line) for line in lines]
    concepts = {concept.name for concept in load_concepts()}
    names = [record["name"] for record in records]
    assert len(set(names)) == len(names) and not concepts & set(names)
    assert set(names) == (set(FASHION_CLASSES) | set(DIGIT_CLASSES)) - concepts
    for record in records:
        assert all(record["name"] in s.lower() and s[0].isupper() and s[-1] == "." for s in record["sentences"])
        assert all(d == d.strip() and d[0].islower() and d[-1] != "." for d in record["descriptors"])
        assert not any(record["name"] in d.split() for d in record["descriptors"])


def test_names_are_looked_up_and_not_places():
    dog, balloon = shipped(["dog", "hot_air_balloon"], "descriptors")
    assert dog == load_concepts().by_name("dog").descriptors and "small basket hanging below" in balloon
    assert from_source(["b_c", "a"], {"a": ["1"], "b c": []}) == [(), ("1",)]


def test_ragged_means(generator):
    groups = [("a", "b", "c"), ("d",), ("e", "f")]
    index, x = class_index(groups), torch.randn(6, 5, generator=generator)
    assert index.tolist() == [0, 0, 0, 1, 2, 2]
    expected = torch.stack([x[:3].mean(0), x[3], x[4:].mean(0)])
    torch.testing.assert_close(class_mean(x, index, 3), expected)


def test_long_texts_are_cut_in_front_of_the_end_token(tower):
    short, long = "a small dog", "dog " * 50
    features = text_features(tower, [short, long])
    torch.testing.assert_close(features, tower.encode_text([short, "dog " * 30]), atol=1e-5, rtol=0)
    torch.testing.assert_close(features.norm(dim=-1), torch.ones(2))
    with pytest.raises(ValueError, match="dog dog"):
        text_features(tower, [long], truncate=False)


def test_random_descriptors_say_nothing_about_the_class():
    one = random_descriptors(("dog", "cat"), seed=1)
    assert one["dog"] == one["cat"] and len(set(one["dog"])) == 30
    assert one == random_descriptors(("dog", "cat"), seed=1) != random_descriptors(("dog", "cat"), seed=2)
    assert all(len(d.split()) == 2 for d in one["dog"])
    assert all(d.replace(" ", "").isalpha() and d.islower() for d in one["dog"][:15])
    assert all(len(d) == 13 for d in one["dog"][15:])
    assert len(random_descriptors(["dog"], words=0, characters=3)["dog"]) == 3
    for wrong in ({"words": 0, "characters": 0}, {"words": -1}, {"length": 0}, {"word_length": 0}):
        with pytest.raises(ValueError, match="words="):
            random_descriptors(["dog"], **wrong)


@pytest.mark.parametrize("seed", range(5))
def test_swapping_leaves_no_class_its_own(seed):
    table = {str(i): [f"d{i}"] for i in range(5)}
    swapped = swapped_descriptors(table, seed)
    assert sorted(swapped) == sorted(table)
    assert sorted(d for group in swapped.values() for d in group) == [f"d{i}" for i in range(5)]
    assert all(swapped[name] != tuple(table[name]) for name in table)
    assert swapped == swapped_descriptors(table, seed)
    with pytest.raises(ValueError, match="at least 2"):
        swapped_descriptors({"a": ["b"]})


def test_wrong_arguments_are_named(tmp_path):
    with pytest.raises(ValueError, match="kind='words' must be one of"):
        shipped(["dog"], "words")
    with pytest.raises(ValueError, match="class 'dogg'.*close names: dog"):
        shipped(["dogg"], KINDS[0])
    with pytest.raises(ValueError, match="source=list"):
        from_source(["a"], ["b"])
    with pytest.raises(ValueError, match="list of strings"):
        from_source(["a"], {"a": [1]})
    (tmp_path / "broken.json").write_text("{")
    with pytest.raises(ValueError, match="broken.json.*not a readable JSON"):
        from_source(["a"], tmp_path / "broken.json")
