"""Figures and the explorer of "Zero-shot in five minutes": compose a scene, type names, read the probabilities.

    scene(...)              one scene of held-out (or novel) drawings, on a background, in a style
    ask(backbone, ...)      cosines and probabilities of names for one image
    ask_figure(...)         the image beside one bar per name
    playground(backbone)    the same with controls (an ipywidgets box)
Shapes: C candidate names, N images, S pixels a side.
"""

import io
from collections.abc import Sequence
from dataclasses import replace

import ipywidgets as widgets
import matplotlib.pyplot as plt
import numpy as np
import torch
from matplotlib.figure import Figure
from torch import Tensor

from vlmcourse.methods.class_text import check_templates, class_features
from vlmcourse.show.style import COLOURS
from vlmcourse.world.backgrounds import KINDS
from vlmcourse.world.colours import NAMES
from vlmcourse.world.compose import SEVERAL, TASK, Scenes, compose
from vlmcourse.world.concepts import load_concepts
from vlmcourse.world.sprites import SpriteLibrary, artwork
from vlmcourse.world.styles import STYLES, compose_in_style

ANY, AS_DRAWN, NOTHING = "any background", "as drawn", "nothing"
BACKGROUNDS = (ANY, *NAMES, *(kind for kind in KINDS if kind != "plain"))
UNSEEN = ("held_out", "novel")  # the cuts that the explorer draws from: artwork that pretraining never saw


def scene(
    library: SpriteLibrary, names: Sequence[str], seed: int = 0, background: str = ANY, style: str = AS_DRAWN,
    severity: int | None = None, cut: str | Sequence[str] = UNSEEN,
) -> Scenes:  # fmt: skip
    """One scene (B = 1) with a drawing of each named concept.

    seed picks drawings and composition. background: a colour, a pattern, or ANY. style: AS_DRAWN or a key of STYLES, at
    its severity (1 to 5). cut: which drawings may be used. ValueError for unknown names, and for a concept without a
    drawing in that cut.
    """
    if background not in BACKGROUNDS:
        raise ValueError(f"background={background!r} must be one of {', '.join(BACKGROUNDS)}")
    if not 1 <= len(names) <= 5:
        raise ValueError(f"names={list(names)} must be 1 to 5 concepts")
    rng, concepts, chosen = np.random.default_rng(seed), load_concepts(), []
    for name in names:
        ids = library.select(cut=cut, concept=concepts.by_name(name).id)
        if not len(ids):
            raise ValueError(f"names: {name!r} has no drawing in the cut {cut!r}")
        chosen.append(rng.choice(ids))
    ids = np.array(chosen)[None]
    settings = TASK if len(names) == 1 else SEVERAL
    if background in NAMES:
        settings = replace(settings, kinds=(("plain", 1.0),), colours=(background,))
    elif background != ANY:
        settings = replace(settings, kinds=((background, 1.0),))
    arguments = {"settings": settings, "mono": library.mono[ids]}
    if style == AS_DRAWN:
        return compose(library.rgba(ids), seed, **arguments)
    return compose_in_style(style, library.rgba(ids), seed, severity, **arguments)


@torch.no_grad()
def ask(backbone, image: Tensor, names: Sequence[str], templates="a picture of a {}") -> tuple[Tensor, Tensor]:
    """Cosines (C,) and probabilities (C,) of names for one image (3, S, S) uint8; templates as ZeroShot takes them."""
    if not names:
        raise ValueError("names must hold at least one candidate")
    text = class_features(backbone, list(names), check_templates(templates))  # (C, E)
    cosine = (backbone.encode_image(image[None]).float() @ text.T)[0]  # (C,)
    return cosine.cpu(), (backbone.logit_scale.float() * cosine).softmax(dim=0).cpu()


def ask_figure(image: Tensor, names: Sequence[str], cosine: Tensor, probability: Tensor, title: str = "") -> Figure:
    """The image (3, S, S) beside one bar per name, longest on top, with the cosine written behind it."""
    order = torch.argsort(probability).tolist()
    figure, (left, right) = plt.subplots(1, 2, figsize=(7.4, max(2.1, 0.9 + 0.26 * len(names))), width_ratios=(1, 2))
    bare_image(left, image, title)
    right.barh([names[i] for i in order], [float(probability[i]) for i in order], color=COLOURS[0])
    for row, i in enumerate(order):
        right.text(float(probability[i]) + 0.01, row, f"cos {float(cosine[i]):.2f}", va="center", fontsize=8)
    right.set(xlim=(0, 1.17), xticks=np.linspace(0, 1, 6), xlabel="probability among the candidates")
    right.grid(axis="y", visible=False)
    return figure


def bare_image(axis, image: Tensor, title: str = "") -> None:
    """An image (3, S, S) on an axis without ticks and frame."""
    axis.imshow(image.permute(1, 2, 0).numpy())
    axis.set_title(title, fontsize=9)
    axis.set_xticks([]), axis.set_yticks([])
    axis.grid(False)
    for spine in axis.spines.values():
        spine.set_visible(False)


def outlined(images: Tensor, masks: Tensor, strength: float = 0.55) -> Tensor:
    """Images (N, 3, S, S) uint8 with the background of masks (N, S, S) faded and each object tinted in its colour."""
    tint = torch.tensor([[int(c[i : i + 2], 16) for i in (1, 3, 5)] for c in COLOURS[:5]]).float()  # (5, 3)
    painted = tint[(masks.long() - 1).clamp(min=0) % 5].permute(0, 3, 1, 2)  # (N, 3, S, S)
    on = (masks > 0)[:, None]
    mixed = torch.where(on, (1 - strength) * images + strength * painted, 0.3 * images + 0.7 * 255)
    return mixed.round().clamp(0, 255).to(torch.uint8)


def matching_figure(images: Tensor, captions: Sequence[str], values, label: str, digits: int = 2) -> Figure:
    """A matrix (N, N) of numbers, with images (N, 3, S, S) as labels of its rows and captions of its columns."""
    values, n = np.asarray(values), len(images)
    figure, axis = plt.subplots(figsize=(1.6 + 0.72 * n, 2.4 + 0.55 * n))
    shown = axis.imshow(values, cmap="viridis", aspect="auto")
    axis.grid(False)
    axis.set_xticks(range(n), captions, rotation=35, ha="right", fontsize=8)
    axis.set_yticks([])
    axis.set_title("rows: images, columns: captions")
    middle = (values.max() + values.min()) / 2
    for r, c in np.ndindex(values.shape):
        colour, weight = ("black" if values[r, c] > middle else "white"), ("bold" if r == c else "normal")
        axis.text(c, r, f"{values[r, c]:.{digits}f}", ha="center", va="center", color=colour, fontsize=8, weight=weight)
    for row, image in enumerate(images):
        small = axis.inset_axes((-0.9 / n - 0.01, 1 - (row + 0.95) / n, 0.9 / n, 0.9 / n))
        bare_image(small, image)
    figure.colorbar(shown, ax=axis, label=label)
    return figure


def nearest_training(library: SpriteLibrary, ids: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """For each sprite of ids (n,): correlation (n,) of its 16 x 16 luminance with the most similar training sprite of
    the same concept, and that sprite's number (n,); -1 and -1 for a concept without training sprites."""
    from vlmcourse.world.build.cluster import thumbnails

    train = library.select(cut="train", concept=np.unique(library.concept[ids]))
    best, which = np.full(len(ids), -1.0), np.full(len(ids), -1)
    for concept in np.unique(library.concept[train]):
        rows, own = np.flatnonzero(library.concept[ids] == concept), train[library.concept[train] == concept]
        similarity = thumbnails(library.rgba(ids[rows]).numpy()) @ thumbnails(library.rgba(own).numpy()).T
        best[rows], which[rows] = similarity.max(1), own[similarity.argmax(1)]
    return best, which


def training_figure(history: Sequence[dict]) -> Figure:
    """Both losses, and the accuracy on held-out drawings, over the steps of a pretraining history."""
    figure, (left, right) = plt.subplots(1, 2, figsize=(8, 3))
    steps = [row["step"] for row in history]
    for name, colour, line in (("contrast", COLOURS[0], "-"), ("naming", COLOURS[1], "--")):
        left.plot(steps, [row[name] for row in history], line, color=colour, label=name)
    left.set(xlabel="optimiser step", ylabel="loss in nats", title="what is minimised")
    left.legend()
    watched = [(row["step"], 100 * row["held_out_top1"]) for row in history if "held_out_top1" in row]
    right.plot(*zip(*watched), marker="o", color=COLOURS[2])
    right.set(xlabel="optimiser step", ylabel="top-1 in %, 652 names", title="held-out drawings", ylim=(0, None))
    return figure


def png(figure: Figure) -> bytes:
    """A figure as PNG bytes; the figure is closed."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png")
    plt.close(figure)
    return buffer.getvalue()


def playground(backbone, library: SpriteLibrary | None = None) -> widgets.VBox:
    """Compose a scene and ask. Returns a box; its attribute `controls` holds the widgets by name."""
    library, concepts = library or artwork(), load_concepts()
    drawn = set(library.concept[library.select(cut=UNSEEN)].tolist())
    names = sorted(c.name for c in concepts if c.id in drawn)
    wide = {"layout": widgets.Layout(width="320px"), "style": {"description_width": "90px"}}
    c = {
        "first": widgets.Dropdown(options=names, value="cat", description="object", **wide),
        "second": widgets.Dropdown(options=[NOTHING, *names], value=NOTHING, description="and", **wide),
        "background": widgets.Dropdown(options=BACKGROUNDS, value=ANY, description="background", **wide),
        "style": widgets.Dropdown(options=[AS_DRAWN, *STYLES], value=AS_DRAWN, description="style", **wide),
        "severity": widgets.IntSlider(value=3, min=1, max=5, description="severity", **wide),
        "seed": widgets.IntSlider(value=0, min=0, max=99, description="drawing", continuous_update=False, **wide),
        "names": widgets.Textarea(
            value="cat, dog, lion, rocket, house, coffee", description="candidates", continuous_update=False, **wide
        ),
        "template": widgets.Text(
            value="a picture of a {}", description="template", continuous_update=False, **wide
        ),
    }  # fmt: skip
    picture, message = widgets.Image(format="png"), widgets.Label()

    def update(_=None) -> None:
        candidates = list(dict.fromkeys(n.strip() for n in c["names"].value.split(",") if n.strip()))
        objects = [w.value for w in (c["first"], c["second"]) if w.value != NOTHING]
        c["severity"].disabled = c["style"].value == AS_DRAWN
        try:
            made = scene(
                library, objects, c["seed"].value, c["background"].value, c["style"].value, c["severity"].value
            )  # fmt: skip
            cosine, probability = ask(backbone, made.images[0], candidates, c["template"].value)
        except (ValueError, IndexError, KeyError) as error:  # a half-typed template, no candidates, a sentence too long
            message.value = f"{error}"
            return
        message.value = f"{' and '.join(objects)} on a {made.background[0]} background"
        picture.value = png(ask_figure(made.images[0], candidates, cosine, probability))

    for control in c.values():
        control.observe(update, names="value")
    update()
    left = widgets.VBox(list(c.values()))
    box = widgets.VBox([widgets.HBox([left, widgets.VBox([picture, message])])])
    box.controls, box.picture, box.message = c, picture, message
    return box
