"""Sheets: pictures of labelled rows of images."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from PIL import Image, ImageDraw

from stylegan_mix.drawing.lettering import drawable, font, legible
from stylegan_mix.drawing.tiles import tile, tile_side

__all__ = ["Sheet", "draw"]


_NAME, _SMALL, _BIG = 15, 13, 19
_LEGIBLE = 72
_LARGEST = 144
_GAP, _BREAK, _CAPTION = 4, 14, 20
_INK, _QUIET, _EMPTY = (24, 24, 27), (113, 113, 122), (238, 238, 240)


@dataclass(frozen=True)
class Sheet:
    """The content of a sheet: `cells` [R][S], images or None; names at both sides; column heads.

    `right` is None if the rows have no second class. `corner` explains the column heads.
    `captions` [R][S] stand below the cells. After every `group` columns the gap is wider.
    """

    title: str
    note: str
    left: Sequence[str]
    right: Sequence[str] | None
    columns: Sequence[str]
    cells: Sequence[Sequence[np.ndarray | None]]
    corner: str = "sample"
    captions: Sequence[Sequence[str]] | None = None
    group: int | None = None


def draw(sheet: Sheet) -> Image.Image:
    """Draws a sheet: tiny images are enlarged by whole factors, unsmoothed, large ones shrunk."""
    size = _side(sheet)
    title = drawable(sheet.title)
    small, big = font(_SMALL), font(_BIG, title)
    # Together, so that two names do not look the same across the sheet.
    names = legible([*sheet.left, *(sheet.right or ())])
    lefts, rights = names[: len(sheet.left)], names[len(sheet.left) :]
    left = 28 + _widest([*lefts, sheet.corner])
    right = 28 + _widest(rights)
    places = [left + offset for offset in _offsets(sheet, size)]
    tall = size + _GAP + (_CAPTION if sheet.captions else 0)
    notes = _wrapped(sheet.note, small, max(places[-1] + size + _GAP, 480))
    top = 50 + 20 * len(notes) + 30
    width = max(places[-1] + size + right, int(big.getlength(title)) + 32)
    canvas = Image.new("RGB", (width, top + len(sheet.cells) * tall + 12), "white")
    pen = ImageDraw.Draw(canvas)
    pen.text((16, 12), title, fill=_INK, font=big)
    for index, line in enumerate(notes):
        pen.text((16, 42 + 20 * index), line, fill=_QUIET, font=small)
    pen.text((left - 12, top - 8), sheet.corner, fill=_QUIET, font=small, anchor="rs")
    for x, text in zip(places, sheet.columns, strict=True):
        pen.text((x + size // 2, top - 8), text, fill=_INK, font=small, anchor="ms")
    for row, cells in enumerate(sheet.cells):
        y = top + row * tall
        pen.text(
            (left - 12, y + size // 2),
            lefts[row],
            fill=_INK,
            font=font(_NAME, lefts[row]),
            anchor="rm",
        )
        for column, (x, cell) in enumerate(zip(places, cells, strict=True)):
            _place(canvas, pen, cell, (x, y), size)
            if sheet.captions:
                below = (x + size // 2, y + size + 1)
                pen.text(below, sheet.captions[row][column], fill=_QUIET, font=small, anchor="ma")
        if rights:
            x = places[-1] + size + 12
            pen.text(
                (x, y + size // 2),
                rights[row],
                fill=_INK,
                font=font(_NAME, rights[row]),
                anchor="lm",
            )
    return canvas


def _widest(names: Sequence[str]) -> int:
    """Measures the longest name in pixels."""
    return int(max((font(_NAME, name).getlength(name) for name in names), default=0))


def _offsets(sheet: Sheet, size: int) -> list[int]:
    """Computes the left edge of each column, in pixels from the first one."""
    columns = range(len(sheet.columns))
    wider = [column // sheet.group if sheet.group else 0 for column in columns]
    return [
        column * (size + _GAP) + gaps * _BREAK for column, gaps in zip(columns, wider, strict=True)
    ]


def _side(sheet: Sheet) -> int:
    heights = [cell.shape[0] for line in sheet.cells for cell in line if cell is not None]
    return tile_side(heights[0] if heights else _LEGIBLE, least=_LEGIBLE, most=_LARGEST)


def _place(
    canvas: Image.Image,
    pen: ImageDraw.ImageDraw,
    cell: np.ndarray | None,
    corner: tuple[int, int],
    size: int,
) -> None:
    if cell is None:
        x, y = corner
        pen.rectangle((x, y, x + size - 1, y + size - 1), fill=_EMPTY)
        return
    canvas.paste(tile(cell, size), corner)


def _wrapped(text: str, font: Any, width: float) -> list[str]:
    lines = [""]
    for word in text.split():
        longer = f"{lines[-1]} {word}".strip()
        if font.getlength(longer) > width and lines[-1]:
            lines.append(word)
        else:
            lines[-1] = longer
    return lines
