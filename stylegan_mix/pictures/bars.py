"""Bars of a metrics report, class by class, with the floor of real images beside them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch

from stylegan_mix.drawing.plots import COLOURS, MOST_BARS, name_classes, styled
from stylegan_mix.metrics.report import FIGURES
from stylegan_mix.pictures.choice import head_to_tail
from stylegan_mix.pictures.picture import Picture, of_figure

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["bars", "drawn", "shown_rows"]

_SHOWN = ("diversity", "label_accuracy", "coverage", "memorisation")
_GROUPS = ("many", "medium", "few")
_WIDTH, _HEIGHT = 8.6, 1.9
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
        f"Bars: {report['samples']['n']:,} samples a seed, seeds {seeds}{several}. Black line: "
        "the floor, what real images get in their place. Dashed: the mean of the shot group "
        f"({report['groups']['rule']}). Diversity and memorisation should be near 1, the others "
        f"high; a bar that is missing is n/a; {origin}, report {report['key'][:12]}."
    )
    return of_figure("bars.png", "Figures of each class", caption, drawn(report))


@styled
def drawn(report: Mapping[str, Any]) -> Figure:
    """Draws a panel for each figure, classes from head to tail, coloured by shot group."""
    rows = shown_rows(report)
    order = head_to_tail(report["counts"])
    figure = Figure(figsize=(_WIDTH, _HEIGHT * len(rows) + 1.0), layout="constrained")
    panels = np.atleast_1d(figure.subplots(len(rows), 1, sharex=True))
    groups = {c: name for name in _GROUPS for c in report["groups"][name]}
    colours = dict(zip(_GROUPS, COLOURS, strict=False))
    for axes, row in zip(panels, rows, strict=True):
        _panel(axes, row, report, order, [colours[groups[c]] for c in order])
        _group_means(axes, row, report, order)
    name_classes(panels[-1], [(report["classes"][c], report["counts"][c]) for c in order])
    present = [name for name in _GROUPS if report["groups"][name]]
    handles = [
        *(Patch(color=colours[name], label=name) for name in present),
        Line2D([], [], **_MEAN, label="mean of the group"),
        Line2D([], [], **_FLOOR, label="floor: real images"),
    ]
    figure.legend(handles=handles, loc="outside upper right", ncols=len(handles))
    return figure


def _panel(
    axes: Axes,
    row: Mapping[str, Any],
    report: Mapping[str, Any],
    order: Sequence[int],
    colours: Sequence[str],
) -> None:
    cells = row["at"][len(report["scopes"]) - len(report["classes"]) :]
    scale = _scale(row)
    values, floors, spreads = (
        scale * np.array([np.nan if cells[c][key] is None else cells[c][key] for c in order])
        for key in ("value", "floor", "std")
    )
    places = np.arange(len(order))
    whiskers = np.nan_to_num(spreads) if len(order) <= MOST_BARS else None
    axes.bar(places, values, 0.72, color=colours, yerr=whiskers, error_kw={"elinewidth": 0.8})
    axes.hlines(floors, places - 0.42, places + 0.42, **_FLOOR)
    name, better = FIGURES[row["figure"]]
    against = f" against {row['against']}" if row["against"] else ""
    unit = " in %" if scale != 1 else ""
    axes.set_title(f"{name}{unit}{against} ({better})")
    axes.set_ylim(bottom=0)
    axes.grid(visible=False, axis="x")


def _group_means(
    axes: Axes, row: Mapping[str, Any], report: Mapping[str, Any], order: Sequence[int]
) -> None:
    """Reads the value of each shot group from the report, from its first to its last class."""
    for name in _GROUPS:
        if name not in report["scopes"]:
            continue
        value = row["at"][report["scopes"].index(name)]["value"]
        places = [place for place, c in enumerate(order) if c in report["groups"][name]]
        if value is not None:
            ends = (min(places) - 0.5, max(places) + 0.5)
            axes.plot(ends, [_scale(row) * value] * 2, **_MEAN)


def _scale(row: Mapping[str, Any]) -> float:
    return 100.0 if row["figure"] == "label_accuracy" else 1.0
