"""Training curves: every series of the log, related ones in a common panel."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import matplotlib as mpl
import numpy as np
from matplotlib.figure import Figure

from stylegan_mix.drawing.class_rows import letters
from stylegan_mix.drawing.colours import COLOURS
from stylegan_mix.drawing.lettering import legible
from stylegan_mix.drawing.plots import styled
from stylegan_mix.pictures.choice import head_to_tail
from stylegan_mix.pictures.history import Panel, panels
from stylegan_mix.pictures.log_words import words_for
from stylegan_mix.pictures.picture import Picture, of_figure

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["AXIS", "curves", "drawn"]

_WIDTH, _HEIGHT = 10.0, 2.5
# The height of a panel of numbers.
_WRITTEN = 1.4
_MOST_NAMED = 10
_FEW_POINTS = 30
_MOST_NUMBERS = 6

AXIS = "thousand images shown, repeats included"
"""The horizontal axis of every curve."""


def curves(
    lines: Sequence[dict[str, Any]], classes: Sequence[str], counts: Sequence[int], origin: str
) -> Picture | None:
    """Makes the picture of a log; None if it holds no number."""
    found = panels(lines, classes)
    if not found:
        return None
    kimg = np.array([float(line["kimg"]) for line in lines])
    size = "1 line" if len(lines) == 1 else f"{len(lines):,} lines"
    caption = (
        f"Every number of the training's log, {size} to {kimg[-1]:,.4g} thousand images, each a "
        "mean since the line before. A panel of classes has a line for each, from dark (most "
        f"training images) to light (fewest); {origin}."
    )
    figure = drawn(found, kimg, [classes[c] for c in head_to_tail(counts)])
    return of_figure("curves.png", "Training", caption, figure)


@styled
def drawn(found: Sequence[Panel], kimg: np.ndarray, order: Sequence[str]) -> Figure:
    """Draws panels over kimg [T], two a row, or one for lists; classes in `order`."""
    halves = [panel for panel in found if len(panel.series) <= len(COLOURS) and not panel.by_class]
    wholes = [panel for panel in found if panel not in halves]
    rows = -(-len(halves) // 2) + len(wholes)
    high = _HEIGHT if len(kimg) > 1 else _WRITTEN
    figure = Figure(figsize=(_WIDTH, high * rows), layout="constrained")
    grid = figure.add_gridspec(rows, 2)
    for index, panel in enumerate(halves):
        axes = figure.add_subplot(grid[index // 2, index % 2])
        _plot(axes, panel, kimg, dict(zip(panel.series, COLOURS, strict=False)))
        if len(axes.lines) > 1:
            axes.legend(loc="best", fontsize=8)
    for index, panel in enumerate(wholes):
        axes = figure.add_subplot(grid[rows - len(wholes) + index, :])
        names = [name for name in order if name in panel.series] if panel.by_class else []
        names = names or list(panel.series)
        shades = mpl.colormaps["viridis"](np.linspace(0, 0.92, len(names)))
        _plot(axes, panel, kimg, dict(zip(names, map(tuple, shades), strict=True)))
        if axes.lines:
            _name_some(axes, names)
    return figure


def _plot(axes: Axes, panel: Panel, kimg: np.ndarray, colours: dict[str, Any]) -> None:
    if len(kimg) == 1:
        _write(axes, panel, kimg[0])
        return
    mark = "." if len(kimg) < _FEW_POINTS else ""
    words = words_for(panel.title, len(panel.series))
    for name, colour in colours.items():
        label = name if panel.by_class else words.name(name)
        axes.plot(kimg, panel.series[name], color=colour, marker=mark, linewidth=1.2, label=label)
    axes.set_title(words.title)
    axes.set_xlabel(AXIS)
    axes.set_ylabel(words.unit)


def _write(axes: Axes, panel: Panel, kimg: float) -> None:
    """Writes the numbers of a log of one line: a curve of one point is none."""
    known = {name: values[0] for name, values in panel.series.items() if np.isfinite(values[0])}
    words = words_for(panel.title, len(panel.series))
    names = legible(list(known)) if panel.by_class else [words.name(name) for name in known]
    if len(names) == 1 and not panel.by_class:
        names = [words.unit]
    told = [f"{name}: {value:.4g}" for name, value in zip(names, known.values(), strict=True)]
    if len(told) > _MOST_NUMBERS:
        least, most = min(known.values()), max(known.values())
        of = "classes" if panel.by_class else "numbers"
        told = [f"{len(told)} {of}, {least:.4g} to {most:.4g}"]
    axes.text(0.0, 0.95, "\n".join(told), transform=axes.transAxes, va="top")
    letters(axes.texts)
    axes.set_title(f"{words.title}\nafter {kimg:,.4g} thousand images")
    axes.set_axis_off()


def _name_some(axes: Axes, names: Sequence[str]) -> None:
    """Draws a legend beside the panel: all lines, or some evenly spaced ones."""
    handles, labels = axes.get_legend_handles_labels()
    most = min(len(names), _MOST_NAMED)
    places = np.linspace(0, len(names) - 1, most).round().astype(int)
    chosen = [handles[place] for place in places]
    shown = legible([labels[place] for place in places])
    where: dict[str, Any] = {"loc": "center left", "bbox_to_anchor": (1.0, 0.5)}
    letters(axes.legend(chosen, shown, fontsize=8, **where).get_texts())
