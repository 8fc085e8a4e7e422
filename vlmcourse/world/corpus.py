"""A corpus of captions for pictures that nobody painted: what people write in this world, by the thousand.

Captions of single concepts (sentences, names with visual phrases) and of scenes of one to five concepts, in the words
of captions.py. TaI-DPT (CVPR 2023) learns prompts from such text alone; its corpus is the captions of COCO.
"""

from collections.abc import Sequence

import numpy as np

from vlmcourse.world.captions import long_captions, scene_captions, short_captions
from vlmcourse.world.colours import NAMES
from vlmcourse.world.concepts import Concept, load_concepts

PLACES = ("left", "right", "top", "bottom", "top left", "bottom right", None)


def scene_corpus(n: int, seed: int, concepts: Sequence[Concept] | None = None, objects=(1, 5)) -> list[str]:
    """n captions of imagined scenes, each of objects[0] to objects[1] different concepts, drawn evenly.

    concepts: None takes all. ValueError if there are fewer concepts than objects.
    """
    concepts = list(load_concepts() if concepts is None else concepts)
    low, high = objects
    if not 1 <= low <= high <= len(concepts):
        raise ValueError(f"objects={objects!r} must be (least, most) with 1 <= least <= most <= {len(concepts)}")
    draw, captions = np.random.default_rng(seed), []
    while len(captions) < n:
        chosen = draw.choice(len(concepts), draw.integers(low, high + 1), replace=False)
        places = [PLACES[i] for i in draw.integers(0, len(PLACES), len(chosen))]
        background = NAMES[draw.integers(len(NAMES))]
        few = scene_captions([concepts[i].name for i in chosen], places, background, draw)
        captions.append(few[draw.integers(len(few))])
    return captions


def concept_corpus(concepts: Sequence[Concept] | None = None) -> list[str]:
    """All captions of single concepts: frames around their names and aliases, sentences, visual phrases."""
    concepts = load_concepts() if concepts is None else concepts
    return [caption for concept in concepts for caption in (*short_captions(concept), *long_captions(concept))]
