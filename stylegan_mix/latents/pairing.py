"""The classes of a row: how a and b are drawn, and how often a row has one class alone.

K classes, of which class c has n_c training images. Class a is drawn by a fill, class b by a
pairing. Draws use whole numbers or float64, so they are the same on every machine. Names are read
without numpy.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np

__all__ = [
    "FILLS",
    "PAIRINGS",
    "Fill",
    "Pairing",
    "PairingKind",
    "Partners",
    "deficits",
    "partners_of",
]

Partners = tuple[tuple[tuple[int, float], ...], ...]
"""For each class a, the classes b it is paired with, each with a positive weight."""


@dataclass(frozen=True)
class Fill:
    """A distribution of class a, described by `about`; `weights` computes it from counts [K]."""

    name: str
    about: str
    weights: Callable[[Sequence[int]], tuple[int, ...]] | None = None


def deficits(counts: Sequence[int]) -> tuple[int, ...]:
    """Computes the deficit of each class against the largest: max(n) - n_c, [K]."""
    most = max(counts)
    return tuple(int(most - count) for count in counts)


FILLS: dict[str, Fill] = {
    fill.name: fill
    for fill in (
        Fill("uniform", "evenly over the classes"),
        Fill("balance", "by the deficit of a class against the largest one", deficits),
    )
}
"""All fills by name; a new one is a line here."""


@dataclass(frozen=True)
class PairingKind:
    """A way to choose class b, described by `about`.

    `reads` names the source that `partners` is computed from: "counts" [K] of the training images,
    "listed" pairs (a, b, weight), such pairs by a "judge", or "" where there is none. Without
    `partners`, b is drawn as a is.
    """

    name: str
    about: str
    reads: str = ""
    partners: Callable[[int, Sequence[int], Sequence[tuple[int, int, float]]], Partners] | None = (
        None
    )


def _same(classes: int, counts: Sequence[int], listed: object) -> Partners:
    return tuple(((label, 1.0),) for label in range(classes))


def _across(classes: int, counts: Sequence[int], listed: object) -> Partners:
    """Pairs each class with the half of the classes, by training images, that it is not in."""
    order = sorted(range(classes), key=lambda label: -counts[label])
    head, tail = order[: classes // 2], order[classes // 2 :]
    other = {**dict.fromkeys(head, tail), **dict.fromkeys(tail, head or tail)}
    return tuple(tuple((b, 1.0) for b in sorted(other[a])) for a in range(classes))


def _directed(classes: int, counts: object, listed: Sequence[tuple[int, int, float]]) -> Partners:
    found: list[list[tuple[int, float]]] = [[] for _ in range(classes)]
    for a, b, weight in listed:
        found[a].append((b, weight))
    return tuple(tuple(one) for one in found)


def _listed(classes: int, counts: object, listed: Sequence[tuple[int, int, float]]) -> Partners:
    found: list[dict[int, float]] = [{} for _ in range(classes)]
    for a, b, weight in listed:
        for one, other in {(a, b), (b, a)}:
            found[one][other] = found[one].get(other, 0.0) + weight
    # A class without a partner is paired with itself, so that every class can be drawn.
    return tuple(tuple(sorted(one.items())) or ((a, 1.0),) for a, one in enumerate(found))


PAIRINGS: dict[str, PairingKind] = {
    kind.name: kind
    for kind in (
        PairingKind("uniform", "b drawn as a is, independently, a = b included"),
        PairingKind("same", "b is a", partners=_same),
        PairingKind(
            "head-tail",
            "b drawn evenly from the half of the classes, by training images, that a is not in",
            "counts",
            _across,
        ),
        PairingKind(
            "near",
            "b drawn evenly from the third of the classes that a judge confuses most with a",
            "judge",
            _directed,
        ),
        PairingKind("listed", "b drawn from the listed partners of a", "listed", _listed),
    )
}
"""All pairings by name; a new one is a line here. "listed" is typed as the name of a file."""


def partners_of(
    name: str,
    classes: int,
    counts: Sequence[int] = (),
    listed: Sequence[tuple[int, int, float]] = (),
) -> Partners | None:
    """Computes the partners of each class under a pairing of `PAIRINGS`; None if there are none."""
    compute = PAIRINGS[name].partners
    return None if compute is None else compute(classes, counts, listed)


@dataclass(frozen=True)
class Pairing:
    """The distribution of the classes of a row.

    Class a is drawn in proportion to `weights` [K]; None draws evenly. Class b is drawn from the
    `partners` of a by their weights; None draws it as a. A share `unmixed` of the rows, in [0, 1],
    has b = a and lam = 1: a sample of class a alone.
    """

    weights: tuple[int, ...] | None = None
    partners: Partners | None = None
    unmixed: float = 0.0

    def draw(self, draws: np.random.Generator, classes: int, rows: int) -> np.ndarray:
        """Draws the classes of rows: [rows, 2] int32."""
        import numpy as np

        if self.weights is None:
            pair = draws.integers(0, classes, size=(rows, 2), dtype=np.int32)
        else:
            ends = np.cumsum(np.array(self.weights, np.int64))
            place = draws.integers(0, ends[-1], size=(rows, 2))
            pair = np.searchsorted(ends, place, side="right").astype(np.int32)
        if self.partners is not None:
            share = draws.random(rows)
            pair[:, 1] = [
                _partner(self.partners[a], at) for a, at in zip(pair[:, 0], share, strict=True)
            ]
        return pair


def _partner(partners: tuple[tuple[int, float], ...], share: float) -> int:
    """Finds the partner at a share, in [0, 1), of the sum of weights."""
    ends = list(accumulate(weight for _, weight in partners))
    return partners[min(bisect_right(ends, share * ends[-1]), len(partners) - 1)][0]
