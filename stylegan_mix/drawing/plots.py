"""Plots in the style of the project: matplotlib, no torch."""

from __future__ import annotations

import functools
import io
import textwrap
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, TypeVar, cast

import matplotlib as mpl
import numpy as np
from matplotlib.figure import Figure

from stylegan_mix.columns import width

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["blank", "legend_outside", "mark_zeros", "png", "styled", "titled", "wrapped"]

# A letter of a title, on average and rather wide; the letters of a legend in a whole figure.
_INCHES_A_LETTER = 0.085
_LETTERS_ACROSS = 100

Draw = TypeVar("Draw", bound=Callable[..., Any])

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


def mark_zeros(
    axes: Axes, places: np.ndarray, values: np.ndarray, thick: float, colours: Sequence[str]
) -> None:
    """Marks horizontal bars of length 0 at the axis, so that they do not look like missing ones."""
    for place, value, colour in zip(places, values, colours, strict=True):
        if value == 0:
            ends = (place - thick / 2, place + thick / 2)
            axes.vlines(0, *ends, color=colour, linewidth=5, zorder=3)


def titled(axes: Axes, text: str, inches: float) -> None:
    """Writes a title over the axes, in several lines if it is wider than so many inches."""
    axes.set_title(wrapped(text, int(inches / _INCHES_A_LETTER)))


def wrapped(text: str, letters: int) -> str:
    """Breaks a text into lines of at most so many letters."""
    return textwrap.fill(text, max(letters, 20), break_on_hyphens=False)


def legend_outside(figure: Figure, axes: Axes) -> None:
    """Puts the legend of the axes below the figure."""
    handles, names = axes.get_legend_handles_labels()
    names = [wrapped(name, _LETTERS_ACROSS) for name in names]
    longest = max(width(line) for name in names for line in name.split("\n"))
    across = max(1, min(len(names), 105 // (longest + 3)))
    figure.legend(handles, names, loc="outside lower center", ncols=across)


@styled
def png(figure: Figure) -> bytes:
    """Renders the figure as the bytes of a PNG file, without date or version."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=110, metadata={"Software": None})
    return buffer.getvalue()
