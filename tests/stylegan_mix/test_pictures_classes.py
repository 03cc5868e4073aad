"""Pictures of classes: bars of a metrics report, grids of real and generated images."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
import torch
from matplotlib.colors import to_rgba

from stylegan_mix.datasets import Part
from stylegan_mix.drawing.colours import GROUP_COLOURS
from stylegan_mix.generators.class_grid import class_grid, shown_classes
from stylegan_mix.pictures.bars import bars, shown_rows
from stylegan_mix.pictures.bars import drawn as plotted


def report_of(classes: int, values: Callable[[int], float | None]) -> dict[str, Any]:
    """A report with the figures that are drawn."""
    names = [f"class {number}" for number in range(classes)]
    third = max(classes // 3, 1)
    groups = {
        "rule": "thirds",
        "many": list(range(third)),
        "medium": [],
        "few": list(range(third, classes)),
    }
    cells = [{"value": values(c), "floor": 1.0, "std": None} for c in range(-3, classes)]
    wanted = [("diversity", None), ("coverage", "train"), ("coverage", "test"), ("cas", None)]
    return {
        "key": "c" * 64,
        "classes": names,
        "counts": list(range(classes, 0, -1)),
        "scopes": ["all", "many", "few", *names],
        "groups": groups,
        "samples": {"n": 10, "seeds": [0, 1]},
        "references": {"train": {"images": 1}, "test": {"images": 1}, "balanced": {"absent": ""}},
        "figures": [{"figure": name, "against": of, "at": cells} for name, of in wanted],
    }


def test_bars_are_of_the_test_part_where_there_is_one() -> None:
    report = report_of(4, lambda c: 0.5)
    assert [(row["figure"], row["against"]) for row in shown_rows(report)] == [
        ("diversity", None),
        ("coverage", "test"),
    ]
    report["references"]["test"] = {"absent": "not asked for"}
    assert shown_rows(report)[1]["against"] == "train"


@pytest.mark.parametrize("classes", [4, 40])
def test_bars_leave_out_what_is_not_known(classes: int) -> None:
    report = report_of(classes, lambda c: None if c == 1 else 0.1 * (c + 3))
    lengths = [patch.get_width() for patch in plotted(report).axes[0].patches]
    assert np.isnan(lengths[1])
    assert lengths[2] == pytest.approx(0.5)


def test_bars_mark_zeros_and_name_what_is_not_known() -> None:
    axes = plotted(report_of(4, lambda c: {0: 0.0, 1: None}.get(c, 0.5))).axes[0]
    told = [text.get_position()[1] for text in axes.texts if text.get_text().strip() == "n/a"]
    assert told == [1]
    zeros = [
        round(float(segment[:, 1].mean()))
        for lines in axes.collections
        for segment in lines.get_segments()
        if lines.get_linewidth()[0] == 5
    ]
    assert zeros == [0]
    assert axes.get_title(loc="left") == "diversity (best near 1)"
    assert axes.get_xlabel() == "distance between samples over that between real images"


@pytest.mark.parametrize("classes", [3, 18, 40, 1000])
def test_bars_name_their_classes_without_overlaps(classes: int) -> None:
    report = report_of(classes, lambda c: 0.5)
    report["classes"] = [f"copepods_with_eggs_and_long_names_{c}" for c in range(classes)]
    figure = plotted(report)
    figure.draw_without_rendering()
    boxes = [label.get_window_extent() for label in figure.axes[0].get_yticklabels()]
    assert len(boxes) == (classes if classes <= 40 else 20)
    assert all(upper.y0 >= lower.y1 for upper, lower in pairwise(boxes))
    assert all(box.x0 >= 0 for box in boxes)
    colours = {patch.get_facecolor() for axes in figure.axes for patch in axes.patches}
    assert colours == {to_rgba(GROUP_COLOURS[name]) for name in ("many", "few")}


def test_bars_are_drawn_the_same_again() -> None:
    report = report_of(3, lambda c: 0.5)
    first, again = (bars(report, "seed 0") for _ in range(2))
    assert first.data == again.data
    assert "seeds 0, 1" in first.caption


def test_a_class_grid_needs_no_samples_of_classes_that_it_does_not_show() -> None:
    class Many:
        classes, num_classes, resolution = tuple(map(str, range(41))), 41, 4
        counts = (*(2,) * 10, *(3,) * 31)
        train = Part(np.zeros((41, 4, 4, 1), np.uint8), np.arange(41))

    shown = shown_classes(Many.counts)
    assert 0 not in shown
    samples = {c: torch.full((3, 4, 4, 1), 7, dtype=torch.uint8) for c in shown}
    picture = class_grid(samples, Many())  # type: ignore[arg-type]
    assert picture.width > (5 + 3) * 40


def test_a_class_grid_goes_from_head_to_tail() -> None:
    images = np.stack([np.full((4, 4, 1), 40 * c, np.uint8) for c in range(3)]).repeat(2, axis=0)
    labels = np.repeat(np.arange(3), 2)

    class Three:
        classes, counts, num_classes, resolution = ("a", "b", "c"), [1, 2, 3], 3, 4
        train = Part(images, labels)

    samples = {c: torch.full((1, 4, 4, 1), 200 + c, dtype=torch.uint8) for c in range(3)}
    picture = np.array(class_grid(samples, Three()))  # type: ignore[arg-type]
    rows = [picture[24 + 42 * row + 20, -27, 0] for row in range(3)]
    assert rows == [202, 201, 200]
