"""The page of a generator: its facts, its report and its pictures; no torch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

from stylegan_mix.drawing.page import document, folded, listed, picture, table
from stylegan_mix.generators.in_words import in_words
from stylegan_mix.generators.store import Published
from stylegan_mix.metrics import report as reports
from stylegan_mix.pictures.picture import Picture

__all__ = ["MARK", "html"]

MARK = "stylegan-mix metrics --page"


def html(
    published: Published,
    report: Mapping[str, Any] | None,
    pictures: Sequence[Picture],
    left_out: Sequence[str],
    *,
    seed: int,
) -> str:
    """Renders the page; `report` is None if there is none, `left_out` lists missing parts."""
    card = published.card
    data = card["dataset"] or "unknown data"
    body = [table([], in_words(published), texts=2)]
    if left_out:
        body += ["<h2>Not on this page</h2>", listed(left_out)]
    if report is not None:
        body += _measured(report)
    for one in pictures:
        alt = f"{one.title}: {data}"
        body += [
            f"<h2>{escape(one.title)}</h2>",
            picture(one.file, one.size, alt=alt, caption=one.caption),
        ]
        if one.table:
            rows = table(one.table[0], one.table[1:])
            body.append(folded("The distances in numbers", rows))
    body += ["<h2>Hashes</h2>", table(["hash of", "SHA-256"], _hashes(published, report), texts=2)]
    return document(
        f"Generator {published.hash[:12]} of {data}",
        f"Pictures of seed {seed}; the same generator and seed give the same pictures.",
        body,
        mark=MARK,
    )


def _measured(report: Mapping[str, Any]) -> list[str]:
    """Renders the tables of the report; the table of classes is folded."""
    found = ["<h2>Metrics</h2>", listed(reports.heading_lines(report))]
    *groups, (title, classes) = reports.tables(report, every_class=True)
    for name, rows in groups:
        found += [f"<h3>{escape(name.capitalize())}</h3>", table(rows[0], rows[1:])]
    found.append(folded(title.capitalize(), table(classes[0], classes[1:])))
    found.append(listed([*reports.notes(report), f"made by: {report['command']}"]))
    return found


def _hashes(published: Published, report: Mapping[str, Any] | None) -> list[list[str]]:
    card = published.card
    known = {
        "generator": published.hash,
        "training split": card["split_id"],
        "test part": card["test_id"],
        "training": card["training"],
        "imported file": published.imported and published.imported["sha256"],
        **(reports.hashes(report) if report is not None else {}),
    }
    return [[name, str(value)] for name, value in known.items() if value]
