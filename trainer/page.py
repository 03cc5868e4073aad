"""A report as one HTML file: tables, their notes and pictures, nothing from elsewhere."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

from stylegan_mix.console import UsageFailure, nearest
from trainer import plots
from trainer.report import Row, Table, cells

__all__ = ["html"]

_STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; color: #222; background: #fff; margin: 2.5rem auto;
       max-width: 66rem; padding: 0 1.5rem; }
h1 { font-size: 1.5rem; margin: 0 0 .3rem } h2 { font-size: 1.15rem; margin: 2.6rem 0 .8rem }
.lead { color: #555; margin: 0 }
.wide { overflow-x: auto }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; margin: .4rem 0 1rem }
th, td { padding: .32rem .8rem; border-bottom: 1px solid #e4e4e4; text-align: left;
         white-space: nowrap }
th { border-bottom: 2px solid #888; font-weight: 600 }
th.number, td.number { text-align: right }
tr:hover td { background: #f5f8fb }
ul { padding-left: 1.2rem; color: #444; font-size: .92rem } li { margin: .15rem 0 }
figure { margin: 1.4rem 0 } svg { display: block }
details { margin: 1rem 0; font-size: .92rem } summary { cursor: pointer }
pre { background: #f6f6f6; padding: .8rem; overflow-x: auto; font-size: .82rem; line-height: 1.45 }
"""


def html(found: Sequence[Table], *, oracle: bool = False, matrix_of: str | None = None) -> str:
    """The page. `matrix_of` names the row whose confusion matrix is drawn, by its arm or name.

    By default that is "hybrid" where there is one, else the last row of a table.
    """
    parts = [_section(table, oracle, _chosen(table, matrix_of)) for table in found]
    count = sum(len(table.results) for table in found)
    lead = f"{count} finished runs in {len(found)} comparable set{'s' * (len(found) > 1)}."
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width">\n'
        f"<title>Long-tailed classification results</title>\n<style>{_STYLE}</style>\n</head>\n"
        "<body>\n<h1>Long-tailed classification results</h1>\n"
        f'<p class="lead">{lead} Accuracy in percent after the last epoch.</p>\n'
        + "\n".join(parts)
        + "\n</body>\n</html>\n"
    )


def _chosen(table: Table, wanted: str | None) -> Row:
    known = {name: row for row in reversed(table.rows) for name in (row.name, row.first.arm)}
    if wanted is None:
        return known.get("hybrid", table.rows[-1])
    if wanted not in known:
        raise UsageFailure(f"no row '{wanted}' in {table.title}{nearest(wanted, known)}")
    return known[wanted]


def _section(table: Table, oracle: bool, row: Row) -> str:
    pictures = [plots.class_bars(table), plots.curves(table), plots.confusion(row)]
    figures = [f"<figure>{plots.svg(one)}</figure>" for one in pictures if one is not None]
    notes = "".join(f"<li>{escape(note)}</li>" for note in table.notes())
    commands = "\n".join(escape(result.record["command"]) for result in table.results)
    return "\n".join(
        [
            f"<section>\n<h2>{escape(table.title)}</h2>",
            _table(table, oracle),
            f"<ul>{notes}</ul>",
            *figures,
            f"<details><summary>The command of every run</summary><pre>{commands}</pre></details>",
            "</section>",
        ]
    )


def _table(table: Table, oracle: bool) -> str:
    head, lines = cells(table, oracle=oracle)
    left = head.index("n")

    def row(texts: Sequence[str], tag: str) -> str:
        kinds = ["" if index < left else ' class="number"' for index in range(len(texts))]
        inner = (f"<{tag}{k}>{escape(t)}</{tag}>" for k, t in zip(kinds, texts, strict=True))
        return f"<tr>{''.join(inner)}</tr>"

    body = "\n".join(row(line, "td") for line in lines)
    return (
        f'<div class="wide"><table>\n<thead>{row(head, "th")}</thead>\n'
        f"<tbody>\n{body}\n</tbody>\n</table></div>"
    )
