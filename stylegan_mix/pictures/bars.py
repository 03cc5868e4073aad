"""Bars of a metrics report, class by class, with the floor of real images beside them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch

from stylegan_mix.datasets.groups import GROUPS, telling
from stylegan_mix.drawing.class_rows import ClassRow, class_rows, label_rows
from stylegan_mix.drawing.colours import COLOURS, GROUP_COLOURS
from stylegan_mix.drawing.plots import mark_zeros, styled
from stylegan_mix.metrics.report import FIGURES
from stylegan_mix.pictures.picture import Picture, of_figure

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["bars", "drawn", "shown_rows"]

# The figures that are drawn, with the units of their axes.
_SHOWN = {
    "diversity": "distance between samples over that between real images",
    "label_accuracy": "% of the samples of a class",
    "coverage": "share of the real images of a class",
    "memorisation": "distance to training images over that of unseen real images",
}
_BEST = {"higher": "higher is better", "near 1": "best near 1"}
_WIDTH, _ROW, _THICK = 8.6, 0.22, 0.72
_FLOOR: dict[str, Any] = {"color": "#111111", "linewidth": 1.6}
_MEAN: dict[str, Any] = {"color": "#555555", "linewidth": 1, "linestyle": "--"}

Rows = Sequence[Mapping[str, Any]]


def shown_rows(report: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """Selects the figures to draw; coverage against the test part, or else another reference."""
    present = [name for name, facts in report["references"].items() if "images" in facts]
    against = "test" if "test" in present else present[-1]
    return [
        row
        for name in _SHOWN
        for row in report["figures"]
        if row["figure"] == name and row["against"] in (None, against)
    ]


def bars(report: Mapping[str, Any], origin: str) -> Picture:
    """Makes the picture of a report."""
    seeds = ", ".join(str(seed) for seed in report["samples"]["seeds"])
    several = "; whiskers: one standard deviation" if len(report["samples"]["seeds"]) > 1 else ""
    caption = (
        f"Bars: {report['samples']['n']:,} samples a seed, seeds {seeds}{several}. "
        "Beside a name: its training images. Black line: "
        "the floor, what real images get in their place. Dashed: the mean of the shot group "
        f"({report['groups']['rule']}). Diversity and memorisation should be near 1, the others "
        f"high; n/a: not known; {origin}, report {report['key'][:12]}."
    )
    return of_figure("bars.png", "Figures of each class", caption, drawn(report))


@styled
def drawn(report: Mapping[str, Any]) -> Figure:
    """Draws a panel for each figure, two beside one another, coloured by shot group.

    Classes stand below one another from head to tail; of many, several make one bar.
    """
    shown = shown_rows(report)
    groups = telling(report["counts"], report["groups"])
    rows = class_rows(report["classes"], report["counts"], groups)
    deep = -(-len(shown) // 2)
    height = deep * (_ROW * len(rows) + 0.8) + 0.6
    figure = Figure(figsize=(_WIDTH, height), layout="constrained")
    panels = np.atleast_1d(figure.subplots(deep, 2, sharey=True)).ravel()
    for axes, row in zip(panels, shown, strict=False):
        _panel(axes, row, report, rows)
        _group_means(axes, row, report, rows)
    for axes in panels[::2]:
        label_rows(axes, rows)
    for axes in panels[len(shown) :]:
        axes.remove()
    handles = [
        *(Patch(color=GROUP_COLOURS[name], label=name) for name in groups),
        *([Line2D([], [], **_MEAN, label="mean of the group")] if groups else []),
        Line2D([], [], **_FLOOR, label="floor: real images"),
    ]
    figure.legend(handles=handles, loc="outside upper right", ncols=len(handles))
    return figure


def _panel(
    axes: Axes, row: Mapping[str, Any], report: Mapping[str, Any], rows: Sequence[ClassRow]
) -> None:
    cells = row["at"][len(report["scopes"]) - len(report["classes"]) :]
    values, floors, spreads = (
        _scale(row) * np.array([_mean(cells, one.members, key) for one in rows])
        for key in ("value", "floor", "std")
    )
    places = np.arange(len(rows))
    # The spread of a mean over classes is not that of its classes.
    whiskers = np.nan_to_num(spreads) if all(len(one.members) == 1 for one in rows) else None
    colours = [GROUP_COLOURS.get(one.group, COLOURS[0]) for one in rows]
    axes.barh(places, values, _THICK, color=colours, xerr=whiskers, error_kw={"elinewidth": 0.8})
    mark_zeros(axes, places, values, _THICK, colours)
    for place in np.flatnonzero(np.isnan(values)).tolist():
        axes.text(0, place, " n/a", va="center", fontsize=8, color="#777777")
    axes.vlines(floors, places - 0.42, places + 0.42, **_FLOOR)
    name, better = FIGURES[row["figure"]]
    against = f" against {row['against']}" if row["against"] else ""
    axes.set_title(f"{name}{against} ({_BEST[better]})")
    axes.set_xlabel(_SHOWN[row["figure"]])
    axes.set_xlim(left=0)
    axes.grid(visible=False, axis="y")
    axes.tick_params(axis="y", length=0)


def _mean(cells: Sequence[Mapping[str, Any]], members: Sequence[int], key: str) -> float:
    """Averages a part of the cells of some classes; NaN if none has it."""
    known = [cells[c][key] for c in members if cells[c][key] is not None]
    return sum(known) / len(known) if known else np.nan


def _group_means(
    axes: Axes, row: Mapping[str, Any], report: Mapping[str, Any], rows: Sequence[ClassRow]
) -> None:
    """Draws the value of each shot group in the report, from its first to its last row."""
    for name in GROUPS:
        places = [place for place, one in enumerate(rows) if one.group == name]
        if not places:
            continue
        value = row["at"][report["scopes"].index(name)]["value"]
        if value is not None:
            ends = (min(places) - 0.5, max(places) + 0.5)
            axes.plot([_scale(row) * value] * 2, ends, **_MEAN)


def _scale(row: Mapping[str, Any]) -> float:
    return 100.0 if row["figure"] == "label_accuracy" else 1.0
