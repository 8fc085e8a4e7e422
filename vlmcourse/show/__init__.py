"""Figures (matplotlib) and explorers (ipywidgets) of the notebooks. Call `use()` once; all figures share the style."""

from vlmcourse.show.figures import bars, curves, grid, heatmap, scatter_text
from vlmcourse.show.style import COLOURS, MARKERS, use

__all__ = ["COLOURS", "MARKERS", "bars", "curves", "grid", "heatmap", "scatter_text", "use"]
