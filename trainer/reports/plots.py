"""The pictures of a report, drawn from tables: matplotlib, no torch.

Every function returns a figure; `svg` makes it a text to put into a page, `save` a file. `K`
classes.
"""

from __future__ import annotations

import io
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from stylegan_mix import store
from stylegan_mix.columns import width
from stylegan_mix.datasets.groups import telling
from stylegan_mix.drawing.class_rows import (
    ClassRow,
    class_rows,
    label_rows,
    letters,
    mark_groups,
)
from stylegan_mix.drawing.colours import COLOURS
from stylegan_mix.drawing.plots import blank, legend_outside, mark_zeros, png, styled, titled
from trainer.reports import figures
from trainer.reports.notes import counted
from trainer.reports.records import Result
from trainer.reports.schema import class_mean
from trainer.reports.tables import Row, Spread, Table, spread

__all__ = ["class_bars", "confusion", "curves", "of_run", "save", "single_points", "svg"]

_WIDTH = 8.6
# Most classes whose confusions are written as numbers.
_MOST_WRITTEN = 20


def _rows_of(results: Sequence[Result]) -> list[ClassRow]:
    """Divides the classes of a data set into rows, with the shot groups that its tables show."""
    data = results[0].dataset
    groups = telling(data["counts"], data["groups"])
    return class_rows(data["classes"], data["counts"], groups)


@styled
def class_bars(table: Table) -> Figure:
    """Draws the accuracy of each class by experiment, error bars one standard deviation.

    An accuracy of 0 is a mark at the axis, and a missing one is nothing.
    Classes stand below one another, from the largest to the smallest, with their training images.
    Of many classes, a bar is the mean over several.
    """
    rows = _rows_of(table.results)
    thick = 0.8 / len(table.rows)
    one = min(max(0.1 * len(table.rows) + 0.08, 0.2), 0.55)
    figure, axes = blank(_WIDTH, one * len(rows) + 1.3)
    for number, row in enumerate(table.rows):
        found = [_mean_over(row, one.members) for one in rows]
        means = [np.nan if value is None else value.mean for value in found]
        sds = [0.0 if value is None else value.sd or 0.0 for value in found]
        places = np.arange(len(rows)) + (number - (len(table.rows) - 1) / 2) * thick
        errors = {"elinewidth": 0.8, "ecolor": "#333333"}
        colour = COLOURS[number % len(COLOURS)]
        spread: dict[str, Any] = {"xerr": sds, "error_kw": errors} if any(sds) else {}
        axes.barh(places, means, thick * 0.92, color=colour, label=row.name, **spread)
        mark_zeros(axes, places, np.array(means), thick * 0.92, [colour] * len(rows))
    _name_untested(axes, table.first, rows)
    label_rows(axes, rows)
    mark_groups(axes, rows)
    axes.set_xlim(0, 100)
    axes.set_xlabel("test accuracy in %; beside each name: training images of a class")
    one_each = all(len(row.members) == 1 for row in rows)
    size = len(table.first.per_class)
    of = "each class" if one_each else f"{size:,} classes, put together by training images"
    spread_told = _runs(table, "mean and standard deviation over seeds")
    titled(axes, f"Accuracy of {of} ({spread_told})", _WIDTH - 2)
    legend_outside(figure, axes)
    return figure


def _runs(table: Table, several: str) -> str:
    """Describes the values of a picture: of one run, or of `several`."""
    if all(len(row.results) == 1 for row in table.rows):
        return "one run" if len(table.rows) == 1 else "one run each"
    return several


def _name_untested(axes: Any, result: Result, rows: Sequence[ClassRow]) -> None:
    """Writes into the rows of classes without a test image that they have none."""
    for place, row in enumerate(rows):
        if class_mean([result.per_class[index] for index in row.members]) is None:
            axes.text(1, place, "no test image", va="center", fontsize=8, color="#777777")


def _mean_over(row: Row, members: Sequence[int]) -> Spread | None:
    """Averages over classes, then over the seeds of an experiment."""
    return spread(
        class_mean([result.per_class[index] for index in members]) for result in row.results
    )


@styled
def curves(table: Table) -> Figure | None:
    """Draws test accuracy of the last stage by epoch: mean over seeds, band from least to most.

    Experiments that were scored once are no curves but numbers, see `single_points`. None if all
    are.
    """
    name = _curve_figure(table)
    found = [_curve(row, name) for row in table.rows]
    if all(len(epochs) < 2 for epochs, _ in found):
        return None
    figure, axes = blank(_WIDTH, 3.6)
    for number, (row, (epochs, values)) in enumerate(zip(table.rows, found, strict=True)):
        if len(epochs) < 2:
            continue
        colour = COLOURS[number % len(COLOURS)]
        mark = "." if len(epochs) < 30 else ""
        axes.plot(epochs, values.mean(0), color=colour, marker=mark, linewidth=1.4, label=row.name)
        if len(values) > 1:
            axes.fill_between(
                epochs, values.min(0), values.max(0), color=colour, alpha=0.15, linewidth=0
            )
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.set_xlabel("epoch of the last stage")
    axes.set_ylabel(f"test accuracy in %, {name}")
    told = _runs(table, "mean over seeds; band from lowest to highest")
    axes.set_title(f"Learning curves ({told})")
    legend_outside(figure, axes)
    return figure


def single_points(table: Table) -> list[str]:
    """Describes the experiments that were scored once, a sentence each: a curve of one point."""
    name = _curve_figure(table)
    found = [(row, *_curve(row, name)) for row in table.rows]
    return [
        f"{row.name}: scored at epoch {epochs[0]} alone, {name} "
        f"{spread(map(float, values[:, 0]))}, so there is no curve."
        for row, epochs, values in found
        if len(epochs) == 1
    ]


def _curve_figure(table: Table) -> str:
    """Names the figure of the curves: the leading one, if every scored epoch has it."""
    name = figures.leading(table.results)
    scored = [
        event
        for result in table.results
        for event in result.record["history"]
        if event.get("accuracy") is not None
    ]
    there = all(event.get("balanced") is not None for event in scored)
    return name if there else "overall"


def _curve(row: Row, name: str) -> tuple[np.ndarray, np.ndarray]:
    """Collects epochs of the last stage evaluated for every seed [E], accuracies [seeds, E]."""
    field = "accuracy" if name == "overall" else name
    found: list[dict[int, float]] = []
    for result in row.results:
        history = result.record["history"]
        last = history[-1]["stage"] if history else None
        found.append(
            {
                int(event["epoch"]): float(event[field])
                for event in history
                if event["stage"] == last and event.get(field) is not None
            }
        )
    epochs = sorted(set.intersection(*(set(one) for one in found)))
    return np.array(epochs), np.array([[one[epoch] for epoch in epochs] for one in found])


@styled
def confusion(row: Row) -> Figure | None:
    """Draws the confusion matrix in percent of each class, over all seeds of an experiment.

    Classes stand from the largest to the smallest; of many classes, several make one cell. None if
    a result has no matrix, as committed results of many classes.
    """
    matrices = [result.record["confusion"] for result in row.results]
    if any(matrix is None for matrix in matrices):
        return None
    rows = _rows_of(row.results)
    counts = np.sum([np.array(matrix, np.float64) for matrix in matrices], axis=0)  # [K, K]
    counts = np.stack([counts[list(one.members)].sum(0) for one in rows])
    counts = np.stack([counts[:, list(one.members)].sum(1) for one in rows], axis=1)
    shares = 100 * counts / np.maximum(counts.sum(1, keepdims=True), 1)
    names, labels = [one.name for one in rows], [one.label for one in rows]
    side = min(max(0.3 * len(rows), 2.6), 7.0)
    across, down = (0.08 * max(map(width, texts)) for texts in (labels, names))
    figure, axes = blank(side + across + 1.3, side + down + 0.9)
    axes.grid(visible=False)
    image = axes.imshow(shares, cmap="Blues", vmin=0, vmax=100, interpolation="nearest")
    if len(rows) <= _MOST_WRITTEN:
        _write_shares(axes, shares)
    small = 8 if len(rows) <= _MOST_WRITTEN else 6.5
    axes.set_xticks(range(len(rows)), names, rotation=90, fontsize=small)
    axes.set_yticks(range(len(rows)), labels, fontsize=small)
    letters([*axes.get_xticklabels(), *axes.get_yticklabels()])
    axes.set_xlabel("predicted")
    axes.set_ylabel("true class and its training images")
    seeds = len(row.results)
    told = f"{row.name}: percent of each class, {counted(seeds, 'run')}"
    titled(axes, told, side + 0.5)
    figure.colorbar(image, ax=axes, shrink=0.7, label="%")
    return figure


def _write_shares(axes: Any, shares: np.ndarray) -> None:
    """Writes shares [K, K] of at least half a percent into their cells."""
    for (true, said), share in np.ndenumerate(shares):
        if share >= 0.5:
            colour = "white" if share > 55 else "#222222"
            place: dict[str, Any] = {"ha": "center", "va": "center", "fontsize": 7.5}
            axes.text(said, true, f"{share:.0f}", color=colour, **place)


def of_run(result: Result, folder: Path) -> None:
    """Writes the pictures of one finished run: its classes, its curve, its confusions."""
    row = Row((result,))
    table = Table((row,))
    pictures = {"classes": class_bars(table), "curve": curves(table), "confusion": confusion(row)}
    for name, figure in pictures.items():
        if figure is not None:
            save(figure, folder / f"{name}.png")


@styled
def svg(figure: Figure) -> str:
    """Renders the figure as an SVG element, without the XML prologue, dates or fixed size."""
    buffer = io.StringIO()
    figure.savefig(buffer, format="svg", metadata={"Date": None})
    text = buffer.getvalue()
    text = text[text.index("<svg") :]
    return (
        re.sub(r'(<svg[^>]*?) height="[\d.]+pt"', r"\1", text, count=1)
        .replace('width="', 'style="width:100%;max-width:', 1)
        .replace('pt"', 'pt;height:auto"', 1)
    )


def save(figure: Figure, path: Path) -> None:
    """Writes the figure as PNG, atomically."""
    store.write_bytes(path, png(figure))
