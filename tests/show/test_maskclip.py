"""The explorer of 27_maskclip: free texts, each setting computed once."""

import matplotlib

matplotlib.use("Agg")

import matplotlib.pyplot as plt
import pytest
import torch

from vlmcourse.show.maskclip import explorer

IMAGES = torch.zeros(3, 3, 8, 8, dtype=torch.uint8)


def test_explorer_computes_each_setting_once_and_says_what_is_wrong():
    asked = []

    def segment(texts, image, pd, ks):
        asked.append((texts, image, pd, ks))
        if "long" in texts:
            raise ValueError("too long")
        mask = torch.zeros(8, 8, dtype=torch.long)
        mask[:2] = 1
        return mask, torch.rand(len(texts), 2, 2)

    box = explorer(segment, IMAGES, "cat, dog", [0.0, 0.5], [0.0, 1.0])
    assert asked == [(("cat", "dog"), 0, 0.0, 0.0)] and bytes(box.picture.value[:4]) == b"\x89PNG"
    assert box.message.value == "share of the pixels: cat: 75 %, dog: 25 %"
    box.controls["pd"].value = 0.5
    box.controls["pd"].value = 0.0
    box.controls["image"].value = 2
    assert asked[1:] == [(("cat", "dog"), 0, 0.5, 0.0), (("cat", "dog"), 2, 0.0, 0.0)]
    for texts, message in (("cat", "write 2 to 6"), ("a,b,c,d,e,f,g", "write 2 to 6"), ("cat, long", "too long")):
        box.controls["texts"].value = texts
        assert message in box.message.value
    plt.close("all")


def test_explorer_needs_a_choice():
    with pytest.raises(ValueError, match="must not be empty"):
        explorer(None, IMAGES, "a, b", [], [0.0])
