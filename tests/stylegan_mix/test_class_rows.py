"""Classes as rows of a plot: one each with its name, or several of one size and group."""

from __future__ import annotations

from itertools import pairwise

import pytest
from matplotlib.figure import Figure

from stylegan_mix.datasets.groups import shot_groups
from stylegan_mix.drawing.class_rows import MOST_ROWS, class_rows, label_rows, mark_groups
from stylegan_mix.drawing.colours import COLOURS, GROUP_COLOURS


def made(classes: int) -> tuple[list[str], list[int]]:
    counts = [
        max(round(400 * 0.01 ** (index / max(classes - 1, 1))), 1) for index in range(classes)
    ]
    return [f"{index}" for index in range(classes)], counts[::-1]


@pytest.mark.parametrize("classes", [1, 3, 10, MOST_ROWS, MOST_ROWS + 1, 100, 1000, 10_000])
def test_every_class_is_in_one_row_from_head_to_tail(classes: int) -> None:
    names, counts = made(classes)
    rows = class_rows(names, counts, shot_groups(counts).members)
    shown = [index for row in rows for index in row.members]
    assert sorted(shown) == list(range(classes))
    sizes = [counts[index] for index in shown]
    assert sizes == sorted(sizes, reverse=True)
    assert len(rows) == classes if classes <= MOST_ROWS else 15 <= len(rows) <= 25


def test_a_row_has_the_name_and_the_images_of_its_class() -> None:
    rows = class_rows(["cat", "dog"], [5, 1200], {})
    assert [(row.name, row.images, row.group) for row in rows] == [
        ("dog", "1,200", ""),
        ("cat", "5", ""),
    ]


def test_a_row_of_many_classes_says_which_and_how_large_they_are() -> None:
    names, counts = made(1000)
    rows = class_rows(names, counts, {})
    assert rows[0].name == "classes 1-50"
    assert rows[0].images == f"400 to {sorted(counts)[-50]}"
    assert rows[-1].name == "classes 951-1000"


def test_a_row_holds_classes_of_one_group() -> None:
    _, counts = made(137)
    groups = shot_groups(counts).members
    for row in class_rows([str(c) for c in range(137)], counts, groups):
        assert set(row.members) <= set(groups[row.group])


def test_a_group_has_a_colour_that_nothing_else_has() -> None:
    assert list(GROUP_COLOURS) == ["many", "medium", "few"]
    assert len({*COLOURS, *GROUP_COLOURS.values()}) == len(COLOURS) + 3


@pytest.mark.parametrize("classes", [3, 18, MOST_ROWS, 1000])
def test_labels_do_not_overlap_and_groups_are_marked(classes: int) -> None:
    names, counts = made(classes)
    names = [f"Copepods_with_a_long_name_{name}" for name in names]
    rows = class_rows(names, counts, shot_groups(counts).members)
    figure = Figure(figsize=(8, 0.2 * len(rows) + 1), layout="constrained")
    axes = figure.subplots()
    label_rows(axes, rows)
    mark_groups(axes, rows)
    figure.draw_without_rendering()
    boxes = [label.get_window_extent() for label in axes.get_yticklabels()]
    assert len(boxes) == len(rows)
    for upper, lower in pairwise(boxes):
        assert upper.y0 >= lower.y1
    assert [text.get_text() for text in axes.texts] == ["many", "medium", "few"]
    assert {line.get_color() for line in axes.lines} == set(GROUP_COLOURS.values())
