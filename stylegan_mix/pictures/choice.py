"""The choice of classes, and of pairs of them, to show; no torch. `K` classes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

__all__ = ["MOST_CLASSES", "Choice", "chosen", "head_to_tail", "pairs"]

MOST_CLASSES = 10

# Places from the head (0, 1, ...) and from the tail (-1, -2, ...), in the order of the strips.
_PAIRS = {
    "head and tail": ((0, -1), (1, -2)),
    "tail and tail": ((-1, -2), (-2, -3)),
    "head and head": ((0, 1), (1, 2)),
}


def head_to_tail(counts: Sequence[int] | np.ndarray) -> list[int]:
    """Sorts classes from most training images to fewest; the first of equals first."""
    return [int(label) for label in np.argsort(-np.asarray(counts), kind="stable")]


@dataclass(frozen=True)
class Choice:
    """Classes from head to tail, and a text that names them."""

    labels: tuple[int, ...]
    text: str


def chosen(names: Sequence[str], counts: Sequence[int] | np.ndarray) -> Choice:
    """Selects up to ten classes: all, or three of the head, three of the middle, four last."""
    order = head_to_tail(counts)
    if len(order) <= MOST_CLASSES:
        return Choice(tuple(order), "all classes, from head to tail")
    middle = len(order) // 2
    parts = {
        "head": order[:3],
        "middle": order[middle - 1 : middle + 2],
        "tail": order[-4:],
    }
    told = "; ".join(
        f"{part}: {', '.join(names[c] for c in labels)}" for part, labels in parts.items()
    )
    labels = tuple(label for part in parts.values() for label in part)
    return Choice(labels, f"{len(labels)} of {len(order)} classes ({told})")


def pairs(counts: Sequence[int] | np.ndarray) -> dict[str, list[tuple[int, int]]]:
    """Selects up to two pairs of different classes of each kind, no pair twice."""
    order = head_to_tail(counts)
    seen: set[frozenset[int]] = set()
    found: dict[str, list[tuple[int, int]]] = {}
    for kind, places in _PAIRS.items():
        for first, second in places:
            if max(abs(first), abs(second)) >= len(order):
                continue
            pair = order[first], order[second]
            if len(set(pair)) == 2 and frozenset(pair) not in seen:
                seen.add(frozenset(pair))
                found.setdefault(kind, []).append(pair)
    return found
