"""The panel of the explorers: controls above a picture and a sentence that follow them."""

from collections.abc import Callable, Mapping, MutableMapping
from typing import Any

import ipywidgets as widgets
from matplotlib.figure import Figure

from vlmcourse.show.playground import png


def panel(controls: Mapping[str, Any], look: Callable[..., tuple[Figure | None, str]]) -> widgets.VBox:
    """A box that calls look(*values of the controls, in their order) at each change.

    look returns a figure, or None where the picture is to stay, and the sentence below it. The box has the attributes
    `controls` (by name), `picture` and `message`.
    """
    picture, message = widgets.Image(format="png"), widgets.Label()

    def update(_=None) -> None:
        message.value = "working …"
        figure, message.value = look(*(control.value for control in controls.values()))
        if figure is not None:
            picture.value = png(figure)

    for control in controls.values():
        control.observe(update, names="value")
    update()
    box = widgets.VBox([widgets.HBox(list(controls.values()), layout={"flex_flow": "row wrap"}), picture, message])
    box.controls, box.picture, box.message = dict(controls), picture, message
    return box


def once(compute: Callable[..., Any], known: MutableMapping[tuple, Any]) -> Callable[..., Any]:
    """compute, called once for each combination of arguments; `known` holds the results, by the tuple of these."""

    def remembered(*setting):
        if setting not in known:
            known[setting] = compute(*setting)
        return known[setting]

    return remembered
