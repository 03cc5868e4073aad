"""Paired differences of several experiments as one table: `compare` for a page; no torch."""

from __future__ import annotations

from collections.abc import Sequence

from stylegan_mix.errors import UsageFailure, nearest
from trainer.reports import figures, records
from trainer.reports.compare import Comparison, Difference, compare_runs
from trainer.reports.records import Result
from trainer.reports.tables import aligned, markdown_rows

__all__ = ["markdown_pairs", "text_pairs"]

Pair = tuple[str, str]


def text_pairs(results: Sequence[Result], pairs: Sequence[Pair]) -> str:
    """Renders a line for each pair of experiments (see `records.named`), with an explanation."""
    head, lines, notes = _table(results, pairs)
    return "\n".join([*aligned([head, *lines]), "", *notes])


def markdown_pairs(results: Sequence[Result], pairs: Sequence[Pair]) -> str:
    """Renders the same as Markdown."""
    head, lines, notes = _table(results, pairs)
    return "\n".join([*markdown_rows(head, lines, left=2), "", *(f"- {note}" for note in notes)])


def _table(
    results: Sequence[Result], pairs: Sequence[Pair]
) -> tuple[list[str], list[list[str]], list[str]]:
    """Makes the heading, the lines and the notes of the table."""
    sides = [_sides(results, pair) for pair in pairs]
    compared = [compare_runs(*both) for both in sides]
    used = [result for both in sides for side in both for result in side]
    names = figures.shown(used)
    head = ["A", "B", "n", *(figures.heading(name, used) for name in names)]
    notes = [_note(compared), f"Figures: {figures.explained(used)}"]
    return head, _lines(compared, pairs, names), notes


def _sides(results: Sequence[Result], pair: Pair) -> list[list[Result]]:
    sides = [records.named(results, name) for name in pair]
    for name, found in zip(pair, sides, strict=True):
        if not found:
            known = {f"{one.arm}/{one.recipe}" for one in results}
            raise UsageFailure(f"--pairs: no finished run of '{name}'{nearest(name, known)}")
        records.only_one(name, found)
    return sides


def _lines(
    found: Sequence[Comparison], pairs: Sequence[Pair], names: Sequence[str]
) -> list[list[str]]:
    lines = []
    for one, pair in zip(found, pairs, strict=True):
        known = {difference.part: difference for difference in one.differences}
        lines.append([*pair, str(len(one.seeds)), *(_cell(known.get(name)) for name in names)])
    return lines


def _cell(one: Difference | None) -> str:
    if one is None:
        return "n/a"
    if one.interval is None:
        return f"{one.mean:+.1f}"
    low, high = one.interval
    return f"{one.mean:+.1f} [{low:+.1f}, {high:+.1f}]"


def _note(found: Sequence[Comparison]) -> str:
    return (
        f"A - B in points of accuracy: mean over n paired seeds and its {100 * found[0].level:g} % "
        "interval. Where the interval includes 0, no difference is shown. It covers the chance "
        "of the classifier's seed only, not that of another split, generator or bank."
    )
