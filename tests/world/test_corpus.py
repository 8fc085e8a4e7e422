"""Captions of pictures that nobody painted."""

import pytest

from vlmcourse.world.concepts import load_concepts
from vlmcourse.world.corpus import concept_corpus, scene_corpus


def test_scenes_are_reproducible_and_name_their_concepts():
    few = [load_concepts().by_name(name) for name in ("cat", "bus", "key")]
    one = scene_corpus(50, 1, few, objects=(2, 3))
    assert len(one) == 50 and one == scene_corpus(50, 1, few, objects=(2, 3)) != scene_corpus(
        50, 2, few, objects=(2, 3)
    )
    assert all(sum(name in text for name in ("cat", "bus", "key")) >= 2 for text in one)
    assert len(scene_corpus(5, 0)) == 5
    for objects in ((0, 2), (3, 2), (1, 4)):
        with pytest.raises(ValueError, match="objects="):
            scene_corpus(3, 0, few, objects=objects)


def test_concepts_bring_their_sentences():
    monkey = load_concepts().by_name("monkey")
    texts = concept_corpus([monkey])
    assert set(monkey.sentences) <= set(texts) and "a monkey" in texts
    assert len(concept_corpus()) > 10 * len(load_concepts())
