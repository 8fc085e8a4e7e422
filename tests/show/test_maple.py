"""Figures and explorer of 21_maple: they draw what they are given, and a setting is fitted once."""

import matplotlib

matplotlib.use("Agg")

import matplotlib.pyplot as plt
import pytest

from vlmcourse.show import maple


@pytest.fixture(autouse=True)
def close_figures():
    yield
    plt.close("all")


def outcome(new=30.0):
    return {"loss": [1.0, 0.5], "base": 80.0, "new": new}


def test_prompts_and_couplings_stop_at_the_depth():
    texts = {t.get_text() for t in maple.coupling_figure(layers=4, depth=2).axes[0].texts}
    assert {"$P_0$", "$F_1$", "$V_1$", "text block 3"} <= texts and "$P_2$" not in texts


def test_outcome_stands_beside_the_reference():
    left, right = maple.outcome_figure(outcome(), (40.0, 45.0), "zero-shot", "coupled, J = 3").axes
    assert left.get_lines()[0].get_ydata().tolist() == [1.0, 0.5] and left.get_title() == "coupled, J = 3"
    assert [bar.get_height() for bar in right.patches] == [40, 45, 80, 30]


def test_attention_has_a_bar_per_block_and_the_even_share():
    axis = maple.attention_figure({"start": [1, 2], "learned": [3, 4]}, even=3.0).axes[0]
    assert [bar.get_height() for bar in axis.patches] == [1, 2, 3, 4] and axis.get_lines()[0].get_ydata()[0] == 3


def test_explorer_fits_each_setting_once_and_shows_it():
    asked = []

    def fit(prompting, depth):
        asked.append((prompting, depth))
        return outcome(10.0 * len(asked))

    box = maple.explorer(
        fit, (40.0, 45.0), "zero-shot", ["coupled", "vision"], [1, 3], known={("coupled", 1): outcome()}
    )
    assert asked == [("coupled", 3)] and bytes(box.picture.value[:4]) == b"\x89PNG" and "new 10.0" in box.message.value
    box.controls["depth"].value = 1
    assert "new 30.0" in box.message.value
    box.controls["prompting"].value = "vision"
    box.controls["prompting"].value = "coupled"
    box.controls["depth"].value = 3
    assert asked == [("coupled", 3), ("vision", 1)] and "new 10.0" in box.message.value
    with pytest.raises(ValueError, match="must not be empty"):
        maple.explorer(fit, (40.0, 45.0), "zero-shot", [], [1])
