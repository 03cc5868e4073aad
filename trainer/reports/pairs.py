"""Paired differences of several experiments as one table: `compare` for a page; no torch."""

from __future__ import annotations

from collections.abc import Sequence

from stylegan_mix.errors import UsageFailure, nearest
from trainer.reports import records
from trainer.reports.compare import Comparison, Difference, compare_runs
from trainer.reports.records import Result
from trainer.reports.tables import PARTS, aligned, markdown_rows

__all__ = ["markdown_pairs", "text_pairs"]

Pair = tuple[str, str]


def text_pairs(results: Sequence[Result], pairs: Sequence[Pair]) -> str:
    """Renders a line for each pair of experiments (see `records.named`), with an explanation."""
    found = [_compared(results, pair) for pair in pairs]
    return "\n".join([*aligned([_HEAD, *_lines(found, pairs)]), "", _note(found)])


def markdown_pairs(results: Sequence[Result], pairs: Sequence[Pair]) -> str:
    """Renders the same as Markdown."""
    found = [_compared(results, pair) for pair in pairs]
    rows = markdown_rows(_HEAD, _lines(found, pairs), left=2)
    return "\n".join([*rows, "", f"- {_note(found)}"])


_HEAD = ["A", "B", "n", *PARTS]


def _compared(results: Sequence[Result], pair: Pair) -> Comparison:
    sides = [records.named(results, name) for name in pair]
    for name, found in zip(pair, sides, strict=True):
        if not found:
            known = {f"{one.arm}/{one.recipe}" for one in results}
            raise UsageFailure(f"--pairs: no finished run of '{name}'{nearest(name, known)}")
    return compare_runs(*sides)


def _lines(found: Sequence[Comparison], pairs: Sequence[Pair]) -> list[list[str]]:
    lines = []
    for one, pair in zip(found, pairs, strict=True):
        known = {difference.part: difference for difference in one.differences}
        lines.append([*pair, str(len(one.seeds)), *(_cell(known.get(part)) for part in PARTS)])
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
