"""`trainer report`: tables and plots of finished runs."""

from __future__ import annotations

import os
import shlex
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import click

from stylegan_mix import console, errors, output, progress
from stylegan_mix.special_files import is_special

if TYPE_CHECKING:
    from trainer.reports.records import Result

__all__ = ["report"]


@dataclass(frozen=True)
class Chosen:
    """The options that decide the content of a report."""

    oracle: bool
    confusion: str | None
    summary: str | None
    pairs: str | None
    groups: str | None
    per_class: bool

    def words(self) -> list[str]:
        """Composes these options as words of a command line that writes a block."""
        named = {"--summary": self.summary, "--pairs": self.pairs, "--groups": self.groups}
        given = [word for name, value in named.items() if value for word in (name, value)]
        return given + ["--oracle"] * self.oracle + ["--per-class"] * self.per_class


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
@click.option("--confusion", metavar="ARM", help="Arm of the page's confusion matrix.")
@click.option("--summary", metavar="ARMS", help="Only these, with data sets side by side.")
@click.option("--per-class", is_flag=True, help="The accuracy of each class instead.")
@click.option("--pairs", metavar="A:B,...", help="Paired differences of these arms instead.")
@console.groups_option
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
    summary: str | None,
    per_class: bool,
    pairs: str | None,
    groups: str | None,
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
    trainer report runs --summary none,mixup,hybrid,hybrid/one-hot
    trainer report runs --pairs hybrid:mixup,hybrid:none
    trainer report runs --per-class
    trainer report runs --groups 500,50
    """
    from trainer.reports import data_now, records

    output.check(out)
    if not check:
        output.check(into, elsewhere="choose another file with --into")
    chosen = Chosen(oracle, confusion, summary, pairs, groups, per_class)
    shape = "json" if as_json else form or _by_ending(out)
    if into is None and check:
        raise errors.UsageFailure("--check needs --into FILE")
    if into is not None and (form not in (None, "md") or as_json or out is not None):
        raise errors.UsageFailure("--into writes Markdown; leave --format and --out out")
    with records.surveyed(paths or (Path("runs"),)) as every:
        for line in data_now.changed(every):
            progress.say(line)
        found = records.regrouped(every, groups)
        if into is None:
            _write(_rendered(found, shape, chosen), out)
            return
        words = ["trainer", "report", *map(str, paths), *chosen.words()]
        words += ["--into", os.path.relpath(into), "--block", block]
        text = _rendered(found, "md", chosen)
        _into(into, block, text, command=shlex.join(words), check=check)


def _write(text: str, out: Path | None) -> None:
    """Prints a report, or writes it to a file and prints the file's name."""
    if out is None:
        console.result(text)
        return
    output.write_text(out, text.rstrip() + "\n")
    console.result(str(out))


_ENDINGS = {".md": "md", ".html": "html", ".json": "json", ".txt": "table"}


def _by_ending(out: Path | None) -> str:
    if out is None or (not out.suffix and is_special(out)):
        return "table"
    if out.suffix not in _ENDINGS:
        raise errors.UsageFailure(
            f"the format of {out} cannot be told from its ending"
            f"{errors.nearest(out.suffix, _ENDINGS)}",
            remedy="say --format table, md, html or json",
        )
    return _ENDINGS[out.suffix]


def _rendered(found: list[Result], form: str, chosen: Chosen) -> str:
    from trainer.reports import tables

    if chosen.confusion is not None and form != "html":
        raise errors.UsageFailure("--confusion chooses a picture of --format html")
    if chosen.per_class:
        return _by_class(found, form, chosen)
    if chosen.summary is not None or chosen.pairs is not None:
        return _chosen_arms(found, form, chosen)
    if form == "json":
        return console.as_json(tables.plain(found))
    if form == "md":
        return tables.markdown_table(found, oracle=chosen.oracle)
    if form == "html":
        from trainer.reports import page

        return page.html(tables.tables(found), oracle=chosen.oracle, matrix_of=chosen.confusion)
    return tables.text_table(tables.tables(found), oracle=chosen.oracle)


def _by_class(found: list[Result], form: str, chosen: Chosen) -> str:
    """Renders the table of `--per-class`."""
    from trainer.reports import by_class, tables

    if form not in ("md", "table") or chosen.oracle or chosen.summary or chosen.pairs:
        raise errors.UsageFailure(
            "--per-class is a table of its own: --format table or md, without --oracle, --summary "
            "and --pairs",
            remedy="--json has the accuracy of each class as per_class",
        )
    rendered = by_class.markdown_by_class if form == "md" else by_class.text_by_class
    return rendered(tables.tables(found))


def _chosen_arms(found: list[Result], form: str, chosen: Chosen) -> str:
    """Renders the table of `--summary` or `--pairs`."""
    from trainer.reports.pairs import markdown_pairs, text_pairs
    from trainer.reports.summary import markdown_summary, text_summary

    if chosen.summary is not None and chosen.pairs is not None:
        raise errors.UsageFailure("--summary and --pairs are two tables: ask for one")
    if form not in ("md", "table") or chosen.oracle:
        raise errors.UsageFailure(
            "--summary and --pairs are tables: --format table or md, without --oracle"
        )
    if chosen.summary is not None:
        names = [name.strip() for name in chosen.summary.split(",")]
        return (markdown_summary if form == "md" else text_summary)(found, names)
    pairs = [_pair(text) for text in str(chosen.pairs).split(",")]
    return (markdown_pairs if form == "md" else text_pairs)(found, pairs)


def _pair(text: str) -> tuple[str, str]:
    a, colon, b = text.strip().partition(":")
    if not (a and colon and b):
        raise errors.UsageFailure(f"--pairs holds A:B, two arms with a colon, got '{text}'")
    return a, b


def _into(into: Path, block: str, text: str, *, command: str, check: bool) -> None:
    from trainer.reports import markdown_blocks

    if not check:
        changed = markdown_blocks.fill(into, block, text, command=command)
        console.result(f"{into}: block {block} {'written' if changed else 'was fresh'}")
    elif not markdown_blocks.is_fresh(into, block, text, command=command):
        raise errors.UsageFailure(f"{into}: block '{block}' is stale", remedy=command)
    else:
        console.result(f"{into}: block {block} is fresh")
