"""The pictures of a report, drawn from tables: matplotlib, no torch.

Every function returns a figure; `svg` makes it a text to put into a page, `save` a file.
"""

from __future__ import annotations

import io
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from matplotlib.figure import Figure

from stylegan_mix import store
from stylegan_mix.drawing.plots import (
    COLOURS,
    MOST_BARS,
    blank,
    legend_outside,
    name_classes,
    png,
    styled,
)
from trainer.reports.records import Result
from trainer.reports.tables import Row, Table

if TYPE_CHECKING:
    pass

__all__ = ["class_bars", "confusion", "curves", "of_run", "save", "svg"]


@styled
def class_bars(table: Table) -> Figure:
    """Draws the accuracy of each class by row, error bars one standard deviation.

    Classes stand from the largest to the smallest, with their training images on the axis. More
    than 20 classes are drawn as points in a line instead of bars.
    """
    data = table.first.dataset
    order = sorted(range(len(data["classes"])), key=lambda index: -data["counts"][index])
    many = len(order) > MOST_BARS
    figure, axes = blank(max(8.0, min(0.11 * len(order) * max(len(table.rows), 4), 13.0)), 3.9)
    places = np.arange(len(order))
    width = 0.8 / len(table.rows)
    for number, row in enumerate(table.rows):
        found = row.per_class()
        means = [np.nan if (one := found[i]) is None else one.mean for i in order]
        sds = [0.0 if (one := found[i]) is None else one.sd or 0.0 for i in order]
        colour = COLOURS[number % len(COLOURS)]
        if many:
            axes.plot(places, means, color=colour, marker=".", linewidth=1, label=row.name)
            continue
        shift = (number - (len(table.rows) - 1) / 2) * width
        errors = {"elinewidth": 0.8, "ecolor": "#333333"}
        bars: dict[str, Any] = {"color": colour, "label": row.name, "error_kw": errors}
        axes.bar(places + shift, means, width * 0.92, yerr=sds, **bars)
    name_classes(axes, [(data["classes"][i], data["counts"][i]) for i in order])
    axes.set_ylim(0, 100)
    axes.set_ylabel("test accuracy in %")
    axes.set_title("Accuracy by class (mean and standard deviation over seeds)")
    legend_outside(figure, axes)
    return figure


@styled
def curves(table: Table) -> Figure:
    """Draws test accuracy of the last stage by epoch: mean over seeds, band from least to most."""
    figure, axes = blank(8.0, 3.6)
    for number, row in enumerate(table.rows):
        epochs, values = _curve(row)
        if not len(epochs):
            continue
        colour = COLOURS[number % len(COLOURS)]
        mark = "." if len(epochs) < 30 else ""
        axes.plot(epochs, values.mean(0), color=colour, marker=mark, linewidth=1.4, label=row.name)
        if len(values) > 1:
            axes.fill_between(
                epochs, values.min(0), values.max(0), color=colour, alpha=0.15, linewidth=0
            )
    axes.set_xlabel("epoch of the last stage")
    axes.set_ylabel("test accuracy in %")
    axes.set_title("Learning curves (mean over seeds; band from lowest to highest)")
    if axes.lines:
        legend_outside(figure, axes)
    return figure


def _curve(row: Row) -> tuple[np.ndarray, np.ndarray]:
    """Collects epochs of the last stage evaluated for every seed [E], accuracies [seeds, E]."""
    found: list[dict[int, float]] = []
    for result in row.results:
        history = result.record["history"]
        last = history[-1]["stage"] if history else None
        found.append(
            {
                int(event["epoch"]): float(event["accuracy"])
                for event in history
                if event["stage"] == last and event.get("accuracy") is not None
            }
        )
    epochs = sorted(set.intersection(*(set(one) for one in found)))
    return np.array(epochs), np.array([[one[epoch] for epoch in epochs] for one in found])


@styled
def confusion(row: Row) -> Figure | None:
    """Draws the confusion matrix in percent of each class, over all seeds of a row.

    None if a result has no matrix, as committed results of many classes.
    """
    matrices = [result.record["confusion"] for result in row.results]
    if any(matrix is None for matrix in matrices):
        return None
    counts = np.sum([np.array(matrix, np.float64) for matrix in matrices], axis=0)  # [K, K]
    shares = 100 * counts / np.maximum(counts.sum(1, keepdims=True), 1)
    names = row.first.dataset["classes"]
    side = 4.6 if len(names) <= 12 else 6.6
    figure, axes = blank(side + 1.0, side)
    axes.grid(visible=False)
    image = axes.imshow(shares, cmap="Blues", vmin=0, vmax=100, interpolation="nearest")
    if len(names) <= MOST_BARS:
        size = 8 if len(names) <= 12 else 6
        for (true, said), share in np.ndenumerate(shares):
            if share >= 0.5:
                colour = "white" if share > 55 else "#222222"
                place: dict[str, Any] = {"ha": "center", "va": "center", "fontsize": size}
                axes.text(said, true, f"{share:.0f}", color=colour, **place)
        turn = 40 if max(map(len, names)) > 3 else 0
        axes.set_xticks(range(len(names)), names, rotation=turn, ha="right" if turn else "center")
        axes.set_yticks(range(len(names)), names)
    axes.set_xlabel("predicted")
    axes.set_ylabel("true")
    axes.set_title(f"{row.name}: percent of each class, {len(row.results)} seeds")
    figure.colorbar(image, ax=axes, shrink=0.85, label="%")
    return figure


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
