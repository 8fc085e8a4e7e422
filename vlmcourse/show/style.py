"""One look for all figures: colour-blind safe (Okabe and Ito, 2008), readable in grey through markers and hatches."""

import matplotlib as mpl

COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#555555", "#000000")
MARKERS = ("o", "s", "^", "D", "v", "P", "X", "*")
HATCHES = ("", "//", "..", "xx", "\\\\", "++", "oo", "--")


def use() -> None:
    """Set matplotlib's defaults for this process."""
    mpl.rcParams.update(
        {
            "figure.dpi": 80, "savefig.dpi": 80, "figure.figsize": (7, 3.6), "font.size": 10, "axes.titlesize": 11,
            "axes.spines.top": False, "axes.spines.right": False, "axes.grid": True, "grid.alpha": 0.25,
            "axes.prop_cycle": mpl.cycler(color=COLOURS), "legend.frameon": False, "image.interpolation": "nearest",
            "figure.constrained_layout.use": True,
        }
    )  # fmt: skip
