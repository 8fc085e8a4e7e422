"""Figures and explorer of 29_calip: they draw what they are given, and the explorer follows its controls."""

import matplotlib

matplotlib.use("Agg")

import matplotlib.pyplot as plt
import pytest
import torch

from vlmcourse.methods.other_methods.calip import CALIP
from vlmcourse.show import calip
from vlmcourse.tasks.base import Split


@pytest.fixture(autouse=True)
def close_figures(tmp_path, monkeypatch):
    monkeypatch.setenv("VLMCOURSE_CACHE", str(tmp_path))
    yield
    plt.close("all")


def test_the_scheme_names_both_softmaxes():
    texts = " ".join(t.get_text() for t in calip.scheme_figure().axes[0].texts)
    assert "softmax down" in texts and "softmax across" in texts


def test_spreads_and_sweeps_show_their_numbers():
    axis = calip.spread_figure({"all": [3.0, 0.2], "moves": [2.5, 0.1]}, ["f T", "f T_a"]).axes[0]
    assert [bar.get_height() for bar in axis.patches] == [3.0, 0.2, 2.5, 0.1]
    left, right = calip.sweep_figure([0.1, 1.0], [3.0, 1.1], {"chosen": [30, 25]}, 24.0).axes
    assert left.get_lines()[0].get_ydata().tolist() == [3.0, 1.1]
    assert right.get_lines()[0].get_ydata().tolist() == [30, 25] and right.get_lines()[1].get_ydata()[0] == 24


def test_the_answer_of_one_image_is_the_methods(vit_backbone, images):
    split = Split(images, [0, 1, 2, 0, 1], ("cat", "dog", "yak"))
    method = CALIP(vit_backbone, beta2=1.5, beta3=0.5).fit(split)
    features = method.inputs(split)
    shares, before, after = calip.one_image(method, features[2:3], 0.5, (1.5, 0.5))
    torch.testing.assert_close(after, method.logits(split)[2], atol=1e-4, rtol=0)
    torch.testing.assert_close(before, method.terms(split)[0, 2], atol=1e-4, rtol=0)
    torch.testing.assert_close(shares, method.attention(split)[0][2], atol=1e-6, rtol=0)


def test_explorer_follows_its_controls(vit_backbone, images):
    split = Split(images, [0, 1, 0, 1, 0], ("cat", "dog"))
    method = CALIP(vit_backbone).fit(split)
    box = calip.explorer(method, split)
    seen = {box.picture.value}
    for name, value in (("image", 1), ("class", "cat"), ("temperature", 0.1), ("beta2", 10), ("beta3", 1)):
        box.controls[name].value = value
        seen.add(box.picture.value)
    assert len(seen) == 6 and "largest share" in box.message.value and method.beta2 == 1.12
