"""Chosen arms of several data sets side by side, the first table for a reader; no torch.

The rows of a report are compared within one data set and budget. Here each of these is a few
columns, and a row is an arm. Nothing is averaged over data sets.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass, replace

from stylegan_mix.errors import UsageFailure, nearest
from trainer.reports import figures, records
from trainer.reports.notes import counted
from trainer.reports.records import Result
from trainer.reports.tables import Row, Table, aligned, markdown_rows, tables

__all__ = ["markdown_summary", "text_summary"]


def text_summary(results: Sequence[Result], arms: Sequence[str]) -> str:
    """Renders the summary for a terminal, with its notes."""
    one = _Summary.of(results, arms)
    return "\n".join([*aligned([one.head(), *one.body()]), "", *one.notes()])


def markdown_summary(results: Sequence[Result], arms: Sequence[str]) -> str:
    """Renders the summary as Markdown, with its notes."""
    one = _Summary.of(results, arms)
    rows = markdown_rows(one.head(), one.body(), left=2)
    return "\n".join([*rows, "", *(f"- {note}" for note in one.notes())])


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


def _cell(row: Row | None, figure: str) -> str:
    return "not run" if row is None else str(row.accuracy(figure) or "n/a")


@dataclass(frozen=True)
class _Summary:
    """The tables in which any of the lines was run, the lines, and the titles of other tables."""

    tables: tuple[Table, ...]
    lines: tuple[_Line, ...]
    others: tuple[str, ...]

    @classmethod
    def of(cls, results: Sequence[Result], arms: Sequence[str]) -> _Summary:
        """Finds the lines of these arms; see `_Line.named` for errors."""
        every = tables(results)
        lines = [_Line.named(every, arm) for arm in arms]
        used = [any(line.rows[place] for line in lines) for place in range(len(every))]
        return cls(
            tuple(itertools.compress(every, used)),
            tuple(replace(line, rows=tuple(itertools.compress(line.rows, used))) for line in lines),
            tuple(table.title for table, there in zip(every, used, strict=True) if not there),
        )

    def head(self) -> list[str]:
        """Composes the headings; data sets of one name are told apart by the titles of tables."""
        names = [table.first.dataset["name"] for table in self.tables]
        columns = [
            f"{table.title if names.count(name) > 1 else name}: {heading}"
            for table, name in zip(self.tables, names, strict=True)
            for heading in _summarised(table)
        ]
        return ["arm", "recipe", *columns]

    def body(self) -> list[list[str]]:
        """Composes a line of cells for each arm."""
        return [[line.arm, line.recipe, *self._figures(line)] for line in self.lines]

    def _figures(self, line: _Line) -> list[str]:
        return [
            _cell(row, name)
            for table, row in zip(self.tables, line.rows, strict=True)
            for name in _summarised(table).values()
        ]

    def notes(self) -> list[str]:
        """Describes, in a sentence each, the making of the columns of each set and the numbers."""
        found = []
        for place, table in enumerate(self.tables):
            there = [row for line in self.lines if (row := line.rows[place]) is not None]
            models = " and ".join(sorted({row.first.model for row in there}))
            found.append(f"{table.title}: {models}, {_runs(there)} an arm.")
        return [
            *found,
            *(f"{title}: none of these arms has a run." for title in self.others),
            _NUMBERS,
        ]


_NUMBERS = (
    "Accuracy in percent on the test part after the last epoch, mean ± standard deviation "
    "over the runs. Overall: the share of all test images; balanced: the mean over the "
    "classes, first where their test images differ in number; few: the mean over the few-shot "
    "classes."
)


def _runs(rows: Sequence[Row]) -> str:
    """Counts the runs of each row: "1 run", "3 or 5 runs", "1 to 5 runs"."""
    sizes = sorted({len(row.results) for row in rows})
    if len(sizes) < 3:
        return " or ".join([*map(str, sizes[:-1]), counted(sizes[-1], "run")])
    return f"{sizes[0]} to {counted(sizes[-1], 'run')}"
