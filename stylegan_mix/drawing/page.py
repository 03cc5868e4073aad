"""HTML pages in the style of the project: one text, light or dark, that fetches nothing; no torch.

All texts passed in are escaped here; only `body` of `document` is HTML already.
"""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

__all__ = ["document", "folded", "listed", "picture", "table"]

_STYLE = """
:root { color-scheme: light dark; --ink: #222; --paper: #fff; --quiet: #555; --line: #e4e4e4;
        --strong: #888; --hover: #f5f8fb; --inset: #f6f6f6 }
body { font: 15px/1.5 system-ui, sans-serif; color: var(--ink); background: var(--paper);
       margin: 2.5rem auto; max-width: 66rem; padding: 0 1.5rem; }
h1 { font-size: 1.5rem; margin: 0 0 .3rem } h2 { font-size: 1.15rem; margin: 2.6rem 0 .8rem }
h3 { font-size: 1rem; margin: 1.6rem 0 .4rem }
.lead { color: var(--quiet); margin: 0; overflow-wrap: anywhere }
.wide { overflow-x: auto }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; margin: .4rem 0 1rem;
        width: 100% }
th, td { padding: .32rem .8rem; border-bottom: 1px solid var(--line); text-align: left }
td.number { white-space: nowrap }
thead th { border-bottom: 2px solid var(--strong); font-weight: 600; vertical-align: bottom }
th.number, td.number { text-align: right }
.facts td { overflow-wrap: anywhere }
.facts td:first-child { white-space: nowrap }
tr:hover td { background: var(--hover) }
ul { padding-left: 1.2rem; color: var(--quiet); font-size: .92rem } li { margin: .15rem 0 }
figure { margin: 1.4rem 0 } svg { display: block }
figure img { display: block; max-width: 100%; height: auto }
figcaption { color: var(--quiet); font-size: .92rem; margin-top: .6rem; max-width: 54rem }
details { margin: 1rem 0; font-size: .92rem } summary { cursor: pointer }
pre { background: var(--inset); padding: .8rem; overflow-x: auto; font-size: .82rem;
      line-height: 1.45 }
@media (prefers-color-scheme: dark) {
  :root { --ink: #dcdde0; --paper: #16171a; --quiet: #a3a6ad; --line: #33363c; --strong: #7d8088;
          --hover: #1e2127; --inset: #202227 }
  a { color: #8ab4f8 }
  figure svg, figure img { background: #fff; border-radius: 6px; padding: .5rem;
                           box-sizing: border-box }
}
"""


def document(title: str, lead: str, body: Sequence[str], *, mark: str = "") -> str:
    """Renders the page: title, a line below it, then pieces of HTML. `mark` names the writer."""
    wrote = f'<meta name="generator" content="{escape(mark)}">\n' if mark else ""
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        f'<meta name="viewport" content="width=device-width">\n{wrote}'
        f"<title>{escape(title)}</title>\n<style>{_STYLE}</style>\n</head>\n"
        f'<body>\n<h1>{escape(title)}</h1>\n<p class="lead">{escape(lead)}</p>\n'
        + "\n".join(body)
        + "\n</body>\n</html>\n"
    )


def table(head: Sequence[str], rows: Sequence[Sequence[str]], *, texts: int = 1) -> str:
    """Renders a table that scrolls if too wide; columns after the first `texts` hold numbers.

    Without a `head` it is a list of names and facts, with long texts wrapped.
    """

    def row(cells: Sequence[str], tag: str) -> str:
        kinds = ["" if index < texts else ' class="number"' for index in range(len(cells))]
        inner = (f"<{tag}{k}>{escape(t)}</{tag}>" for k, t in zip(kinds, cells, strict=True))
        return f"<tr>{''.join(inner)}</tr>"

    top = f"<thead>{row(head, 'th')}</thead>\n" if head else ""
    body = "\n".join(row(cells, "td") for cells in rows)
    kind = "" if head else ' class="facts"'
    return f'<div class="wide"><table{kind}>\n{top}<tbody>\n{body}\n</tbody>\n</table></div>'


def listed(items: Sequence[str]) -> str:
    """Renders a list of short texts."""
    return f"<ul>{''.join(f'<li>{escape(item)}</li>' for item in items)}</ul>"


def picture(file: str, size: tuple[int, int], *, alt: str, caption: str) -> str:
    """Renders an image beside the page: its (width, height), its alternative text and caption."""
    name, (width, height) = escape(file), size
    return (
        f'<figure><a href="{name}"><img src="{name}" width="{width}" height="{height}" '
        f'alt="{escape(alt)}"></a>\n<figcaption>{escape(caption)}</figcaption></figure>'
    )


def folded(summary: str, body: str) -> str:
    """Renders a piece of HTML that is opened by its summary."""
    return f"<details><summary>{escape(summary)}</summary>{body}</details>"
