"""Chosen arms of several data sets side by side, the first table for a reader; no torch.

The rows of a report are compared within one data set and budget. Here each of these is a few
columns, and a row is an arm. Nothing is averaged over data sets.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from stylegan_mix.errors import UsageFailure, nearest
from trainer.reports import figures, records
from trainer.reports.records import Result
from trainer.reports.tables import Row, Table, aligned, markdown_rows, tables

__all__ = ["markdown_summary", "text_summary"]


def text_summary(results: Sequence[Result], arms: Sequence[str]) -> str:
    """Renders the summary for a terminal, with its notes."""
    found = tables(results)
    lines = [_Line.named(found, arm) for arm in arms]
    return "\n".join([*aligned([_head(found), *_body(found, lines)]), "", *_notes(found, lines)])


def markdown_summary(results: Sequence[Result], arms: Sequence[str]) -> str:
    """Renders the summary as Markdown, with its notes."""
    found = tables(results)
    lines = [_Line.named(found, arm) for arm in arms]
    rows = markdown_rows(_head(found), _body(found, lines), left=2)
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
    columns = [
        f"{table.first.dataset['name']}: {heading}"
        for table in found
        for heading in _summarised(table)
    ]
    return ["arm", "recipe", *columns]


def _summarised(table: Table) -> dict[str, str]:
    """Selects the figures of a summary by their headings: all images, all classes, rare classes.

    Where the test part is even, the first two are the same numbers and stand in one column.
    """
    used = [name for name in table.figures if name in ("overall", "balanced", "few")]
    headings = {figures.heading(name, table.results): name for name in used}
    if figures.leading(table.results) == "balanced":
        return headings
    _, second, *others = headings
    return {f"overall = {second}": "balanced", **{name: headings[name] for name in others}}


def _body(found: Sequence[Table], lines: Sequence[_Line]) -> list[list[str]]:
    return [_cells(found, line) for line in lines]


def _cells(found: Sequence[Table], line: _Line) -> list[str]:
    cells = [
        _cell(row, name)
        for table, row in zip(found, line.rows, strict=True)
        for name in _summarised(table).values()
    ]
    return [line.arm, line.recipe, *cells]


def _cell(row: Row | None, figure: str) -> str:
    return "not run" if row is None else str(row.accuracy(figure) or "n/a")


def _notes(found: Sequence[Table], lines: Sequence[_Line]) -> list[str]:
    """Describes, in a sentence each, the making of the columns of each set and the numbers."""
    notes = []
    for table, rows in zip(found, zip(*(line.rows for line in lines), strict=True), strict=True):
        there = [row for row in rows if row is not None]
        models = ", ".join(sorted({row.first.model for row in there}))
        runs = " or ".join(map(str, sorted({len(row.results) for row in there})))
        notes.append(f"{table.title}: {models}, {runs} runs an arm.")
    numbers = (
        "Accuracy in percent on the test part after the last epoch, mean ± standard deviation "
        "over the runs. Overall: the share of all test images; balanced: the mean over the "
        "classes, first where their test images differ in number; few: the mean over the few-shot "
        "classes."
    )
    return [*notes, numbers]
