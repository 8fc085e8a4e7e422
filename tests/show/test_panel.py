"""The panel of the explorers: it follows its controls, keeps the picture on demand, and computes a setting once."""

import ipywidgets as widgets
import matplotlib.pyplot as plt

from vlmcourse.show.panel import once, panel


def test_picture_and_sentence_follow_the_controls():
    def look(a, b):
        if a > 2:
            return None, "too much"
        figure, axis = plt.subplots()
        axis.plot([0, a], [0, b])
        return figure, f"{a} and {b}"

    box = panel({"a": widgets.IntSlider(1, 0, 5), "b": widgets.IntSlider(2, 0, 5)}, look)
    assert list(box.controls) == ["a", "b"] and box.message.value == "1 and 2"
    first = bytes(box.picture.value)
    box.controls["b"].value = 4
    second = bytes(box.picture.value)
    assert first.startswith(b"\x89PNG") and second != first and box.message.value == "1 and 4"
    box.controls["a"].value = 3
    assert box.message.value == "too much" and box.picture.value == second
    assert not plt.get_fignums(), "figures are closed"


def test_a_setting_is_computed_once():
    calls, known = [], {(1, "x"): "there"}
    at = once(lambda *setting: calls.append(setting) or setting, known)
    assert at(1, "x") == "there" and at(2, "y") == at(2, "y") == (2, "y")
    assert calls == [(2, "y")] and set(known) == {(1, "x"), (2, "y")}
