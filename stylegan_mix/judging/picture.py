"""The picture of a judged bank: calibration of lam, kept rows by class, examples of both kinds."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from stylegan_mix import rng
from stylegan_mix.banks.reader import Bank
from stylegan_mix.datasets import Dataset
from stylegan_mix.drawing.class_rows import class_rows, label_rows, letters
from stylegan_mix.drawing.colours import COLOURS, GROUP_COLOURS
from stylegan_mix.drawing.lettering import legible
from stylegan_mix.drawing.plots import styled
from stylegan_mix.judging.acceptance import FEW
from stylegan_mix.judging.annotations import Annotations

__all__ = ["draw"]

_SHOWN = 12
# Of a name, in letters: so many fit over a tile.
_LONGEST = 9


@styled
def draw(bank: Bank, found: Annotations, dataset: Dataset) -> Figure:
    """Draws the judged bank: two plots above, rows that are kept and left out below.

    `dataset` is that of the bank's generator; its training images order the classes.
    """
    figure = Figure(figsize=(11, 8.2), layout="constrained")
    parts = figure.subfigures(2, 1, height_ratios=(1.15, 1), squeeze=False)
    above, below = parts[0, 0], parts[1, 0]
    curve, bars = above.subplots(1, 2)
    _draw_calibration(curve, found)
    _draw_kept(bars, found, dataset)
    strips = below.subplots(2, _SHOWN)
    clean = found.clean(bank)
    for line, (kept, title) in enumerate(((True, "kept rows"), (False, "rows left out"))):
        _draw_rows(strips[line], bank, found, np.flatnonzero(clean == kept), title)
    figure.suptitle(
        f"Bank {bank.key[:12]} of {bank.facts['dataset']}, judged by {found.judge[:12]}: "
        f"{clean.mean():.0%} of {len(bank):,} rows kept",
        x=0.01,
        ha="left",
    )
    return figure


def _draw_calibration(axes: Axes, found: Annotations) -> None:
    axes.plot([0, 1], [0, 1], color="#aaaaaa", linewidth=1, linestyle=":")
    names = {"near": "near pairs (often confused)", "far": "other pairs"}
    for place, (kind, name) in enumerate(names.items()):
        curve = found.facts[f"calibration_{kind}"]
        if curve["lam"]:
            axes.plot(curve["lam"], curve["seen"], marker="o", color=COLOURS[place], label=name)
    axes.set(xlim=(0, 1), ylim=(0, 1), title="Calibration of lam")
    axes.set_xlabel("lam, the share of class a")
    axes.set_ylabel("share of a that the judge sees among a and b")
    if axes.get_legend_handles_labels()[0]:
        axes.legend(loc="upper left")
    else:
        axes.text(0.5, 0.5, "no row has two classes", ha="center", color="#666666")


def _draw_kept(axes: Axes, found: Annotations, dataset: Dataset) -> None:
    rows = class_rows(dataset.classes, dataset.counts.tolist(), dataset.groups.members)
    kept = found.facts["kept"]
    for place, row in enumerate(rows):
        known = [kept[label] for label in row.members if kept[label] is not None]
        if not known:
            axes.text(0.01, place, "no rows", va="center", color="#666666")
        else:
            axes.barh(
                place, sum(known) / len(known), color=GROUP_COLOURS.get(row.group, COLOURS[0])
            )
    label_rows(axes, rows)
    axes.set(xlim=(0, 1), title="Share of kept rows by class")
    axes.axvline(FEW, color=COLOURS[3], linestyle="--", linewidth=1)
    axes.set_xlabel(f"left of the dashed line, under {FEW:.0%}, a class is named")


def _draw_rows(
    axes: Sequence[Axes], bank: Bank, found: Annotations, rows: np.ndarray, title: str
) -> None:
    """Draws some of the rows, each with its label and the class that the judge sees."""
    names = legible(bank.classes, _LONGEST)
    order = rng.stream(0, "judge.picture").permutation(len(rows))[:_SHOWN]
    shown = rows[np.sort(order)].tolist()
    for axis in axes:
        axis.set_axis_off()
    for axis, row in zip(axes, shown, strict=False):
        image = bank.images[row]
        grey = image.shape[2] == 1
        axis.imshow(image[:, :, 0] if grey else image[:, :, :3], cmap="gray", vmin=0, vmax=255)
        axis.set_title(_label(bank, found, row, names), fontsize=7, loc="center", pad=2)
        letters([axis.title])
    axes[0].text(
        0, 1.95, title if shown else f"no {title}", transform=axes[0].transAxes, fontsize=10.5
    )


def _label(bank: Bank, found: Annotations, row: int, names: Sequence[str]) -> str:
    a, b = bank.pair[row].tolist()
    lam = float(bank.lam[row])
    top = int(found.posterior[row].argmax())
    mixed = f"{names[a]} {lam:.1f}\n{names[b]} {1 - lam:.1f}" if a != b else f"{names[a]}\n"
    seen = float(found.posterior[row, top])
    return f"{mixed}\nseen {seen:.1f}\n{names[top]}"
