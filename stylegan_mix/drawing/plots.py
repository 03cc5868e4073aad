"""Plots in the style of the project: matplotlib, no torch."""

from __future__ import annotations

import functools
import io
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeVar, cast

import matplotlib as mpl
from matplotlib.figure import Figure

from stylegan_mix.columns import width

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["blank", "legend_outside", "png", "styled"]

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


def legend_outside(figure: Figure, axes: Axes) -> None:
    """Puts the legend of the axes below the figure."""
    handles, names = axes.get_legend_handles_labels()
    across = max(1, min(len(names), 105 // (max(map(width, names)) + 3)))
    figure.legend(handles, names, loc="outside lower center", ncols=across)


@styled
def png(figure: Figure) -> bytes:
    """Renders the figure as the bytes of a PNG file, without date or version."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=110, metadata={"Software": None})
    return buffer.getvalue()
