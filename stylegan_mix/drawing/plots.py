"""Plots in the style of the project: matplotlib, no torch."""

from __future__ import annotations

import functools
import io
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, TypeVar, cast

import matplotlib as mpl
from matplotlib.figure import Figure

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["COLOURS", "MOST_BARS", "blank", "legend_outside", "name_classes", "png", "styled"]

Draw = TypeVar("Draw", bound=Callable[..., Any])

# Colours of Okabe and Ito, distinct for colour-blind readers too; the pale yellow comes last.
COLOURS = (
    "#0072b2",
    "#e69f00",
    "#009e73",
    "#cc3311",
    "#7a5195",
    "#56b4e9",
    "#666666",
    "#b8a800",
)
MOST_BARS = 20
"""Most classes that fit side by side with their names."""

_STYLE: dict[str, Any] = {
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.edgecolor": "#888888",
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": "#e4e4e4",
    "grid.linewidth": 0.7,
    "font.size": 9.5,
    "axes.titlesize": 10.5,
    "axes.titlelocation": "left",
    "legend.frameon": False,
    "svg.fonttype": "none",
    "svg.hashsalt": "stylegan-mix",
    # A class called "$x$" is not a formula.
    "text.parse_math": False,
}


def styled(draw: Draw) -> Draw:
    """Decorates a function to draw in this style, without changing matplotlib's own settings."""

    @functools.wraps(draw)
    def drawn(*arguments: Any) -> Any:
        with mpl.rc_context(_STYLE):
            return draw(*arguments)

    return cast(Draw, drawn)


def blank(width: float, height: float) -> tuple[Figure, Axes]:
    """Makes a figure of so many inches with one pair of axes."""
    made = Figure(figsize=(width, height), layout="constrained")
    return made, made.subplots()


def name_classes(axes: Axes, classes: Sequence[tuple[str, int]]) -> None:
    """Labels the places 0, 1, ... of the horizontal axis with (class, training images).

    With more than `MOST_BARS` classes, only some numbers of images are written.
    """
    axes.grid(visible=False, axis="x")
    axes.set_xlim(-0.6, len(classes) - 0.4)
    if len(classes) > MOST_BARS:
        step = max(1, len(classes) // 12)
        places = range(0, len(classes), step)
        axes.set_xticks(list(places), [f"{classes[place][1]:,}" for place in places])
        axes.set_xlabel("training images of the class")
        return
    names = [f"{name}\n{count:,}" for name, count in classes]
    longest = max(len(name) for name, _ in classes)
    axes.set_xticks(range(len(names)), names)
    if longest * len(classes) > 90:
        axes.tick_params(axis="x", rotation=40)
        for label in axes.get_xticklabels():
            label.set_horizontalalignment("right")
    axes.set_xlabel("class and its training images")


def legend_outside(figure: Figure, axes: Axes) -> None:
    """Puts the legend of the axes below the figure."""
    handles, names = axes.get_legend_handles_labels()
    columns = max(1, min(len(names), 105 // (max(map(len, names)) + 3)))
    figure.legend(handles, names, loc="outside lower center", ncols=columns)


@styled
def png(figure: Figure) -> bytes:
    """Renders the figure as the bytes of a PNG file, without date or version."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=110, metadata={"Software": None})
    return buffer.getvalue()
