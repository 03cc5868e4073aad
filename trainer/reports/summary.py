"""Chosen arms of several data sets side by side, the first table for a reader; no torch.

The rows of a report are compared within one data set and budget. Here each of these is a pair of
columns, and a row is an arm. Nothing is averaged over data sets.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from stylegan_mix.errors import UsageFailure, nearest
from trainer.reports import records
from trainer.reports.records import Result
from trainer.reports.tables import Row, Table, aligned, markdown_rows, tables

__all__ = ["markdown_summary", "text_summary"]

_PARTS = ("overall", "few")


def text_summary(results: Sequence[Result], arms: Sequence[str]) -> str:
    """Renders the summary for a terminal, with its notes."""
    found = tables(results)
    lines = [_Line.named(found, arm) for arm in arms]
    return "\n".join([*aligned([_head(found), *map(_cells, lines)]), "", *_notes(found, lines)])


def markdown_summary(results: Sequence[Result], arms: Sequence[str]) -> str:
    """Renders the summary as Markdown, with its notes."""
    found = tables(results)
    lines = [_Line.named(found, arm) for arm in arms]
    rows = markdown_rows(_head(found), map(_cells, lines), left=2)
    return "\n".join([*rows, "", *(f"- {note}" for note in _notes(found, lines))])


@dataclass(frozen=True)
class _Line:
    """One arm and recipe: its row in each of the tables, None if it was not run there."""

    arm: str
    recipe: str
    rows: tuple[Row | None, ...]

    @classmethod
    def named(cls, found: Sequence[Table], reference: str) -> _Line:
        """Finds the line of `reference`, see `records.named`; else `UsageFailure`."""
        chosen = records.named((row.first for table in found for row in table.rows), reference)
        if not chosen:
            known = {f"{row.first.arm}/{row.first.recipe}" for table in found for row in table.rows}
            raise UsageFailure(
                f"--summary: no finished run of '{reference}'{nearest(reference, known)}"
            )
        inside = [[row for row in table.rows if row.first in chosen] for table in found]
        kinds = {(one.arm, one.recipe) for one in chosen}
        if len(kinds) > 1 or any(len(rows) > 1 for rows in inside):
            names = ", ".join(f"{one.arm}/{one.recipe}/{one.model}/{one.key}" for one in chosen)
            raise UsageFailure(
                f"--summary: '{reference}' means several rows: {names}",
                remedy="add recipe, model or key, such as hybrid/ce/1a2b3c4d",
            )
        return cls(*kinds.pop(), tuple(next(iter(rows), None) for rows in inside))


def _head(found: Sequence[Table]) -> list[str]:
    columns = [f"{table.first.dataset['name']}: {part}" for table in found for part in _PARTS]
    return ["arm", "recipe", *columns]


def _cells(line: _Line) -> list[str]:
    cells = [_cell(row, part) for row in line.rows for part in _PARTS]
    return [line.arm, line.recipe, *cells]


def _cell(row: Row | None, part: str) -> str:
    return "not run" if row is None else str(row.accuracy(part) or "n/a")


def _notes(found: Sequence[Table], lines: Sequence[_Line]) -> list[str]:
    """Describes, in a sentence each, the making of each pair of columns and the numbers."""
    notes = []
    for table, rows in zip(found, zip(*(line.rows for line in lines), strict=True), strict=True):
        there = [row for row in rows if row is not None]
        models = ", ".join(sorted({row.first.model for row in there}))
        runs = " or ".join(map(str, sorted({len(row.results) for row in there})))
        notes.append(f"{table.title}: {models}, {runs} runs an arm.")
    numbers = (
        "Accuracy in percent on the test part after the last epoch, mean ± standard deviation "
        "over the runs; few: the mean over the few-shot classes."
    )
    return [*notes, numbers]
