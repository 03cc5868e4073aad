"""A report as one HTML file: tables, their notes and pictures, nothing from elsewhere."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

from stylegan_mix.drawing.class_rows import MOST_ROWS
from stylegan_mix.drawing.lettering import legible
from stylegan_mix.drawing.page import document, folded, listed
from stylegan_mix.drawing.page import table as rows_of
from stylegan_mix.errors import UsageFailure, nearest
from trainer.reports import plots
from trainer.reports.notes import counted
from trainer.reports.tables import Row, Table, cells

__all__ = ["html"]

_MOST_MATRICES = 6


def html(found: Sequence[Table], *, oracle: bool = False, matrix_of: str | None = None) -> str:
    """Renders the page. `matrix_of` names the rows of the confusion matrices, by arm or name.

    The default is "hybrid" if there is one, else the last row of a table. Rows of one arm, recipe
    and network, such as those of several banks, have a matrix each.
    """
    parts = [_section(table, oracle, _chosen(table, matrix_of)) for table in found]
    runs = counted(sum(len(table.results) for table in found), "finished run")
    lead = f"{runs} in {counted(len(found), 'comparable set')}."
    return document(
        "Long-tailed classification results",
        f"{lead} Accuracy in percent after the last epoch.",
        parts,
    )


def _chosen(table: Table, wanted: str | None) -> list[Row]:
    """Selects the rows that get a confusion matrix."""
    for row in table.rows:
        if row.name == wanted:
            return [row]
    arms = {row.first.arm: row for row in reversed(table.rows)}
    if wanted is None:
        first = arms.get("hybrid", table.rows[-1])
    elif wanted in arms:
        first = arms[wanted]
    else:
        known = {*arms, *(row.name for row in table.rows)}
        raise UsageFailure(f"no row '{wanted}' in {table.title}{nearest(wanted, known)}")
    return [row for row in table.rows if _method(row) == _method(first)]


def _method(row: Row) -> tuple[str, str, str]:
    return row.first.arm, row.first.recipe, row.first.model


def _beyond(rows: Sequence[Row]) -> list[str]:
    """Tells how to see the matrices that are too many for the page."""
    left = [row.name for row in rows[_MOST_MATRICES:]]
    if not left:
        return []
    return [f"Confusion matrices left out: {'; '.join(left)}. --confusion NAME draws one."]


def _listed(texts: Sequence[str]) -> list[str]:
    return [listed(texts)] if texts else []


def _names(table: Table) -> list[str]:
    """Lists the classes whose names the pictures write in another way."""
    classes = table.first.dataset["classes"]
    written = legible(classes) if len(classes) <= MOST_ROWS else classes
    changed = [f"{new} is {old}" for new, old in zip(written, classes, strict=True) if new != old]
    return [f"In the pictures, {'; '.join(changed)}."] if changed else []


def _section(table: Table, oracle: bool, rows: Sequence[Row]) -> str:
    matrices = [plots.confusion(row) for row in rows[:_MOST_MATRICES]]
    pictures = [plots.class_bars(table), plots.curves(table), *matrices]
    drawn = [f"<figure>{plots.svg(one)}</figure>" for one in pictures if one is not None]
    commands = "\n".join(escape(result.command) for result in table.results)
    head, lines = cells(table, oracle=oracle)
    return "\n".join(
        [
            f"<section>\n<h2>{escape(table.title)}</h2>",
            rows_of(head, lines, texts=head.index("n")),
            listed(table.notes()),
            *drawn,
            *_listed([*_beyond(rows), *plots.single_points(table)]),
            *_listed(_names(table)),
            folded("The command of every run", f"<pre>{commands}</pre>"),
            "</section>",
        ]
    )
