"""`trainer report`: tables and plots of finished runs."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import TYPE_CHECKING

import click

from stylegan_mix import console, errors

if TYPE_CHECKING:
    from trainer.reports.records import Result

__all__ = ["report"]


@click.command()
@click.argument("paths", nargs=-1, type=click.Path(path_type=Path))
@click.option(
    "--format",
    "form",
    type=click.Choice(["table", "md", "html", "json"]),
    help="Default: by the ending of --out, else table.",
)
@click.option("--json", "as_json", is_flag=True, help="The same as --format json.")
@click.option("--out", type=click.Path(path_type=Path), help="Write to this file.")
@click.option("--oracle", is_flag=True, help="Add the epoch that is best on the test part.")
@click.option("--confusion", metavar="ARM", help="Whose confusion matrix the page shows.")
@click.option("--into", type=click.Path(path_type=Path), help="Write into a block of this file.")
@click.option("--block", default="results", show_default=True, help="Name of that block.")
@click.option("--check", is_flag=True, help="With --into: only say whether the block is fresh.")
@click.option("--debug", is_flag=True, help="Print tracebacks.")
def report(
    paths: tuple[Path, ...],
    form: str | None,
    as_json: bool,
    out: Path | None,
    oracle: bool,
    confusion: str | None,
    into: Path | None,
    block: str,
    check: bool,
    debug: bool,
) -> None:
    """Report the finished runs in PATHS: run folders, folders of them, committed results.

    Without PATHS, `runs` is read. Only runs of the same data, split and budget share a table.

    \b
    trainer report runs --out report.html
    trainer report tools/results --format md
    """
    from trainer.reports import records

    found = records.collect(paths or (Path("runs"),))
    if into is not None:
        if form not in (None, "md") or as_json or out is not None:
            raise errors.UsageFailure("--into writes Markdown; leave --format and --out out")
        _into(into, block, found, paths, oracle=oracle, check=check)
        return
    if check:
        raise errors.UsageFailure("--check needs --into FILE")
    chosen = "json" if as_json else form or _by_ending(out)
    text = _rendered(found, chosen, oracle, confusion)
    if out is None:
        console.result(text)
        return
    from stylegan_mix import store

    store.write_bytes(out, (text.rstrip() + "\n").encode())
    console.result(str(out))


_ENDINGS = {".md": "md", ".html": "html", ".json": "json", ".txt": "table"}


def _by_ending(out: Path | None) -> str:
    if out is None:
        return "table"
    if out.suffix not in _ENDINGS:
        raise errors.UsageFailure(
            f"the format of {out} cannot be told from its ending"
            f"{errors.nearest(out.suffix, _ENDINGS)}",
            remedy="say --format table, md, html or json",
        )
    return _ENDINGS[out.suffix]


def _rendered(found: list[Result], form: str, oracle: bool, confusion: str | None) -> str:
    from trainer.reports import tables as tables

    if confusion is not None and form != "html":
        raise errors.UsageFailure("--confusion chooses a picture of --format html")
    if form == "json":
        return console.as_json(tables.plain(found))
    if form == "md":
        return tables.markdown_table(found, oracle=oracle)
    if form == "html":
        from trainer.reports import page

        return page.html(tables.tables(found), oracle=oracle, matrix_of=confusion)
    return tables.text_table(tables.tables(found), oracle=oracle)


def _into(
    into: Path,
    block: str,
    found: list[Result],
    paths: tuple[Path, ...],
    *,
    oracle: bool,
    check: bool,
) -> None:
    from trainer.reports import markdown_blocks, tables

    words = ["trainer", "report", *map(str, paths), "--into", into.name, "--block", block]
    command = shlex.join(words + ["--oracle"] * oracle)
    text = tables.markdown_table(found, oracle=oracle)
    if not check:
        changed = markdown_blocks.fill(into, block, text, command=command)
        console.result(f"{into}: block {block} {'written' if changed else 'was fresh'}")
    elif not markdown_blocks.is_fresh(into, block, text, command=command):
        raise errors.UsageFailure(f"{into}: block '{block}' is stale", remedy=command)
    else:
        console.result(f"{into}: block {block} is fresh")
