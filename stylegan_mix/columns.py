"""Columns of text for a terminal; a Chinese letter takes two places there, an accent none."""

from __future__ import annotations

from collections.abc import Sequence

from rich.cells import cell_len

__all__ = ["aligned", "one_line", "padded", "width"]


def width(text: str) -> int:
    """Counts the places that a text takes on a terminal."""
    return cell_len(text)


def padded(text: str, places: int, *, right: bool = False) -> str:
    """Fills a text with spaces to so many places, at its end or, with `right`, before it."""
    spaces = " " * max(places - width(text), 0)
    return spaces + text if right else text + spaces


def aligned(lines: Sequence[Sequence[str]], *, right: Sequence[int]) -> list[str]:
    """Aligns lines of cells in columns; those numbered in `right` stand at the right."""
    widths = [max(map(width, column)) for column in zip(*lines, strict=True)]
    return [
        "  ".join(
            padded(cell, places, right=number in right)
            for number, (cell, places) in enumerate(zip(line, widths, strict=True))
        ).rstrip()
        for line in lines
    ]


def one_line(text: str) -> str:
    """Replaces what does not show, so that a name can neither break a line nor move the cursor."""
    return "".join(letter if letter.isprintable() else "?" for letter in text)
