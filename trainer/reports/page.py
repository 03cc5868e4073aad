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
from trainer.reports.tables import Row, Table, cells

__all__ = ["html"]


def html(found: Sequence[Table], *, oracle: bool = False, matrix_of: str | None = None) -> str:
    """Renders the page. `matrix_of` names the row of the confusion matrix, by its arm or name.

    The default is "hybrid" if there is one, else the last row of a table.
    """
    parts = [_section(table, oracle, _chosen(table, matrix_of)) for table in found]
    count = sum(len(table.results) for table in found)
    lead = f"{count} finished runs in {len(found)} comparable set{'s' * (len(found) > 1)}."
    return document(
        "Long-tailed classification results",
        f"{lead} Accuracy in percent after the last epoch.",
        parts,
    )


def _chosen(table: Table, wanted: str | None) -> Row:
    known = {name: row for row in reversed(table.rows) for name in (row.name, row.first.arm)}
    if wanted is None:
        return known.get("hybrid", table.rows[-1])
    if wanted not in known:
        raise UsageFailure(f"no row '{wanted}' in {table.title}{nearest(wanted, known)}")
    return known[wanted]


def _listed(texts: Sequence[str]) -> list[str]:
    return [listed(texts)] if texts else []


def _names(table: Table) -> list[str]:
    """Lists the classes whose names the pictures write in another way."""
    classes = table.first.dataset["classes"]
    written = legible(classes) if len(classes) <= MOST_ROWS else classes
    changed = [f"{new} is {old}" for new, old in zip(written, classes, strict=True) if new != old]
    return [f"In the pictures, {'; '.join(changed)}."] if changed else []


def _section(table: Table, oracle: bool, row: Row) -> str:
    pictures = [plots.class_bars(table), plots.curves(table), plots.confusion(row)]
    drawn = [f"<figure>{plots.svg(one)}</figure>" for one in pictures if one is not None]
    commands = "\n".join(escape(result.command) for result in table.results)
    head, lines = cells(table, oracle=oracle)
    return "\n".join(
        [
            f"<section>\n<h2>{escape(table.title)}</h2>",
            rows_of(head, lines, texts=head.index("n")),
            listed(table.notes()),
            *drawn,
            *_listed(plots.single_points(table)),
            *_listed(_names(table)),
            folded("The command of every run", f"<pre>{commands}</pre>"),
            "</section>",
        ]
    )
