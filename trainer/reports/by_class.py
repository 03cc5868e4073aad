"""The accuracy of each class beside its images, a column an experiment; no torch."""

from __future__ import annotations

from collections.abc import Sequence

from stylegan_mix import columns
from stylegan_mix.columns import one_line
from stylegan_mix.showing import for_markdown
from trainer.reports.tables import Row, Table, markdown_rows

__all__ = ["markdown_by_class", "text_by_class"]

# Columns of names, before those of numbers.
_NAMES = 2


def text_by_class(found: Sequence[Table]) -> str:
    """Renders a line for each class of each table, for a terminal."""
    parts = []
    for table in found:
        lines = _lines(table)
        shown = columns.aligned(lines, right=range(_NAMES, len(lines[0])))
        parts.append("\n".join([table.title, "", *shown, "", *_notes(table)]))
    return "\n\n\n".join(parts)


def markdown_by_class(found: Sequence[Table]) -> str:
    """Renders the same as Markdown."""
    parts = []
    for table in found:
        head, *lines = _lines(table)
        rows = markdown_rows(head, lines, left=_NAMES)
        notes = [f"- {note}" for note in _notes(table)]
        parts.append("\n".join([f"**{for_markdown(table.title)}**", "", *rows, "", *notes]))
    return "\n\n".join(parts)


def _lines(table: Table) -> list[list[str]]:
    """Makes the heading, and a line for each class in the order of the data set."""
    data, tested = table.first.dataset, table.first.test_counts
    names = [one_line(name) for name in data["classes"]]
    groups = {place: name for name, places in data["groups"].items() for place in places}
    tests = ["n/a"] * len(names) if tested is None else [f"{count:,}" for count in tested]
    accuracies = [_column(row) for row in table.rows]
    head = ["class", "group", "training", "test", *(row.name for row in table.rows)]
    return [head] + [
        [name, groups.get(place, ""), f"{count:,}", tests[place], *(of[place] for of in accuracies)]
        for place, (name, count) in enumerate(zip(names, data["counts"], strict=True))
    ]


def _column(row: Row) -> list[str]:
    """Renders the accuracies of an experiment, class by class."""
    return ["n/a" if value is None else str(value) for value in row.per_class()]


def _notes(table: Table) -> list[str]:
    """Explains the numbers, and says how many runs each experiment has."""
    runs = ", ".join(f"{row.name}: {len(row.results)}" for row in table.rows)
    return [
        (
            "Accuracy in percent of the test images of a class after the last epoch, mean ± "
            "standard deviation over seeds; training, test: images of the class."
        ),
        f"Runs: {runs}.",
    ]
