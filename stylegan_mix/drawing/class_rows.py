"""Classes as the rows of a plot: each by its name, or several in one row where there are many."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING

from matplotlib.font_manager import FontProperties

from stylegan_mix.drawing.colours import GROUP_COLOURS
from stylegan_mix.drawing.lettering import face_of, legible

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.text import Text

__all__ = ["MOST_ROWS", "ClassRow", "class_rows", "label_rows", "letters", "mark_groups"]

MOST_ROWS = 40
"""Most classes that get a row with their name."""

_BINS = 20
# Without this mark, the number after an Arabic or Hebrew name would stand at its left.
_FROM_LEFT = "\N{LEFT-TO-RIGHT MARK}"


@dataclass(frozen=True)
class ClassRow:
    """A row: its name, training images of a class, the classes, their group ("" without groups)."""

    name: str
    images: str
    members: tuple[int, ...]
    group: str

    @property
    def label(self) -> str:
        """The name and the training images, in this order in every script."""
        return f"{_FROM_LEFT}{self.name}{_FROM_LEFT}  {self.images}"


def class_rows(
    classes: Sequence[str], counts: Sequence[int], groups: Mapping[str, Sequence[int]]
) -> list[ClassRow]:
    """Divides the classes into rows, from the largest class to the smallest.

    `groups` holds the class indices by the name of a shot group; it may be empty. Up to `MOST_ROWS`
    classes have a row each. More are put together, neighbours in size and of one group, into about
    20 rows of equally many classes.
    """
    order = sorted(range(len(classes)), key=lambda index: -counts[index])
    of = {index: name for name, members in groups.items() for index in members}
    if len(order) <= MOST_ROWS:
        names = legible([classes[index] for index in order])
        return [
            ClassRow(name, f"{counts[index]:,}", (index,), of.get(index, ""))
            for name, index in zip(names, order, strict=True)
        ]
    rows = []
    place = 1
    for group in (*groups, "") if groups else ("",):
        members = [index for index in order if of.get(index, "") == group]
        for part in _cut(members, max(round(_BINS * len(members) / len(order)), 1)):
            rows.append(
                ClassRow(_ranks(place, len(part)), _images(part, counts), tuple(part), group)
            )
            place += len(part)
    return rows


def _cut(members: list[int], parts: int) -> list[list[int]]:
    """Cuts a list into so many neighbouring parts of nearly equal length; none is empty."""
    ends = [round(len(members) * part / parts) for part in range(parts + 1)]
    cut = [members[start:end] for start, end in pairwise(ends)]
    return [part for part in cut if part]


def _ranks(first: int, size: int) -> str:
    return f"class {first}" if size == 1 else f"classes {first}-{first + size - 1}"


def _images(members: Sequence[int], counts: Sequence[int]) -> str:
    most, least = counts[members[0]], counts[members[-1]]
    return f"{most:,}" if most == least else f"{most:,} to {least:,}"


def label_rows(axes: Axes, rows: Sequence[ClassRow]) -> None:
    """Labels the places 0, 1, ... of the vertical axis, downwards, with names and sizes."""
    axes.set_ylim(len(rows) - 0.4, -0.6)
    axes.set_yticks(range(len(rows)), [row.label for row in rows])
    axes.grid(visible=False, axis="y")
    axes.tick_params(axis="y", length=0)
    letters(axes.get_yticklabels())


def letters(texts: Sequence[Text]) -> None:
    """Gives each text a font that has its letters."""
    for text in texts:
        face = face_of(text.get_text())
        if face is not None:
            families = list(dict.fromkeys([face.family, "DejaVu Sans"]))
            text.set_fontproperties(FontProperties(family=families, size=text.get_fontsize()))


def mark_groups(axes: Axes, rows: Sequence[ClassRow]) -> None:
    """Marks the rows of each shot group at the right border, with its colour and its name."""
    across = axes.get_yaxis_transform()
    for group, first, last in _spans(rows):
        colour = GROUP_COLOURS[group]
        ends = [first - 0.42, last + 0.42]
        axes.plot([1.012] * 2, ends, transform=across, color=colour, linewidth=3, clip_on=False)
        middle = (first + last) / 2
        axes.text(1.025, middle, group, transform=across, va="center", ha="left")


def _spans(rows: Sequence[ClassRow]) -> list[tuple[str, int, int]]:
    """Lists (group, first row, last row) of neighbouring rows of one group."""
    spans: list[tuple[str, int, int]] = []
    for place, row in enumerate(rows):
        if spans and spans[-1][0] == row.group:
            spans[-1] = (row.group, spans[-1][1], place)
        elif row.group:
            spans.append((row.group, place, place))
    return spans
