"""The figures and the explorer of "Why transfer? The two gaps", without a browser."""

import matplotlib.pyplot as plt
import pytest
import torch

from vlmcourse.methods.base import list_methods
from vlmcourse.show import gaps


@pytest.fixture(autouse=True)
def close_figures():
    yield
    plt.close("all")


def test_dumbbells_put_the_largest_loss_below():
    figure = gaps.dumbbells({"a": 80.0, "b": 80.0}, {"a": 70.0, "b": 20.0}, "top-1 in %")
    assert [t.get_text() for t in figure.axes[0].get_yticklabels()] == ["b", "a"]


def test_feature_picture_has_one_legend_entry_per_group():
    groups = {name: torch.randn(20, 6) for name in ("train", "test", "names")}
    figure = gaps.feature_picture(groups, torch.eye(6)[:2], torch.zeros(6))
    assert [t.get_text() for t in figure.axes[0].get_legend().get_texts()] == list(groups)


def test_object_scores_counts_every_scene():
    figure = gaps.object_scores({"present": torch.rand(50), "absent": torch.rand(50)})
    assert len(figure.axes[0].patches) == 2


def test_dense_figure_has_a_column_per_path():
    images = torch.zeros(2, 3, 16, 16, dtype=torch.uint8)
    masks = torch.zeros(2, 16, 16, dtype=torch.uint8)
    masks[:, :4], masks[:, 8:] = 1, 2
    maps = {"value": torch.rand(2, 4, 4), "full": torch.rand(2, 4, 4)}
    figure = gaps.dense_figure(images, masks, [("cat", "dog")] * 2, maps)
    assert len(figure.axes) == 2 * 4 + 1  # and a colour bar
    assert [a.get_title() for a in figure.axes[1:4]] == ["true regions", "value", "full"]


def test_taxonomy_map_shows_every_method_once():
    texts = [t.get_text() for t in gaps.taxonomy_map().axes[0].texts]
    names = [m.rsplit(" ", 1)[0] for parts in gaps.TAXONOMY.values() for ms in parts.values() for m in ms]
    assert len(names) == len(set(names)) and set(gaps.OBJECTIVE) <= set(names)
    for name in names:
        assert texts.count(name) + texts.count(f"{name} *") == 1
    built = {"coop": "CoOp", "tip_adapter": "Tip-Adapter"}
    assert all(name in names for method, name in built.items() if method in list_methods())


def test_severity_explorer_shows_the_accuracy_of_what_is_chosen():
    asked, labels = [], torch.arange(24) % 3

    def render(style, severity):
        asked.append((style, severity))
        return torch.full((24, 3, 8, 8), 40 * severity, dtype=torch.uint8)

    def predict(images):
        wrong = int(images[0, 0, 0, 0]) // 40  # as many mistakes as the severity
        return torch.cat([(labels[:wrong] + 1) % 3, labels[wrong:]])

    box = gaps.severity_explorer(render, predict, labels, ["a", "b", "c"], ["grey", "blur"])
    first = bytes(box.picture.value)
    assert asked == [("grey", 3)] and "Top-1 87.5 %" in box.message.value
    box.controls["severity"].value = 5
    box.controls["style"].value = "blur"
    assert asked[-1] == ("blur", 5) and bytes(box.picture.value) != first
    assert box.message.value.startswith("blur, severity 5") and "Top-1 79.2 %" in box.message.value
