"""Pictures of a bank that explain themselves: pairs in rows, lam along the columns; no torch.

`R` rows of pairs, `S` columns; images are uint8 (H, W, C).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from stylegan_mix.banks.reader import Bank
from stylegan_mix.drawing.sheet import Sheet

__all__ = [
    "STEPS",
    "corner",
    "default_pairs",
    "heads",
    "lines_to_draw",
    "nearest_rows",
    "stored_sheet",
]

STEPS = 11
"""Columns: lam from 1.0 to 0.0 by tenths."""

Pair = tuple[int, int]


def default_pairs(classes: int, rows: int = 10) -> list[tuple[int, int]]:
    """Selects up to `rows` pairs of different classes, evenly spaced, no pair twice.

    The second class is half the list away. In most sets classes are ordered from many images to
    few, so a pair joins head and tail.
    """
    count = min(rows, classes)
    firsts = [index * classes // count for index in range(count)]
    # With an even number of classes, half the list away and back again would be the same pair.
    turn = classes % 2 == 0 and classes > 2
    return [
        (first, (first + classes // 2 + (turn and 2 * first >= classes)) % classes)
        for first in firsts
    ]


def nearest_rows(bank: Bank, pair: tuple[int, int], steps: int = STEPS) -> list[int | None]:
    """Finds, for each lam from 1 to 0, the stored row of two classes with the nearest share.

    Rows (b, a) count with 1 - lam. A column stays empty (None) if no row is within half a step. In
    the unmixed control, whose lam is always 1, these are the first `steps` rows.
    """
    first, second = pair
    if not bank.mixes:
        found = np.flatnonzero(bank.pair[:, 0] == first)[:steps].tolist()
        return found + [None] * (steps - len(found))
    straight = (bank.pair[:, 0] == first) & (bank.pair[:, 1] == second)
    turned = (bank.pair[:, 0] == second) & (bank.pair[:, 1] == first)
    rows = np.flatnonzero(straight | turned)
    share = np.where(straight[rows], bank.lam[rows], 1 - bank.lam[rows])
    chosen: list[int | None] = []
    for lam in np.linspace(1.0, 0.0, steps):
        distance = np.abs(share - lam)
        close = len(rows) > 0 and distance.min() <= 0.5 / (steps - 1)
        chosen.append(int(rows[distance.argmin()]) if close else None)
    return chosen


def lines_to_draw(bank: Bank, asked: Sequence[Pair]) -> list[Pair]:
    """Lists the pairs of a sheet: those that were asked for, or the default ones.

    Where nothing is mixed, no image has two classes: each class gets a line of its own.
    """
    if not bank.mixes:
        labels = [label for pair in asked for label in pair]
        labels = labels or [first for first, _ in default_pairs(len(bank.classes))]
        return [(label, label) for label in dict.fromkeys(labels)]
    return list(asked) or default_pairs(len(bank.classes))


def stored_sheet(bank: Bank, pairs: Sequence[Pair]) -> tuple[Sheet, list[str]]:
    """Makes the sheet of stored rows of the bank, for the given pairs of classes.

    Also returns the pairs of which the bank has no row to show, in words.
    """
    names = bank.classes
    chosen = [nearest_rows(bank, pair) for pair in pairs]
    where = (
        "lam is the share of the left class; each cell is the stored row of these two classes "
        "whose lam is nearest to the column's: neighbours are different latents"
        if bank.mixes
        else "unmixed; the first stored rows of each class"
    )
    if any(row is None for line in chosen for row in line):
        where += "; grey: no such row is stored"
    empty = [
        names[first] if first == second else f"{names[first]} and {names[second]}"
        for (first, second), line in zip(pairs, chosen, strict=True)
        if all(row is None for row in line)
    ]
    sheet = Sheet(
        title=f"{bank.facts['dataset']}: stored rows of bank {bank.key[:12]}",
        note=f"{len(bank):,} rows, space {bank.space}; {where}",
        left=[names[first] for first, _ in pairs],
        right=[names[second] for _, second in pairs] if bank.mixes else None,
        columns=heads(bank.mixes),
        corner=corner(bank.mixes),
        cells=[[None if row is None else bank.images[row] for row in line] for line in chosen],
    )
    return sheet, empty


def heads(mixes: bool, steps: int = STEPS) -> list[str]:
    """Makes the text above each column: lam, or the number of the sample if nothing is mixed."""
    if not mixes:
        return [str(index + 1) for index in range(steps)]
    return [f"{lam:.1f}" for lam in np.linspace(1.0, 0.0, steps)]


def corner(mixes: bool) -> str:
    """Names the meaning of those texts."""
    return "lam" if mixes else "sample"
