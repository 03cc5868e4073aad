"""Orders of rows, as functions of seed, stream and absolute position.

Positions count rows from the start of a stage, without end; a pass is `length` of them. So a batch
may straddle two passes, every batch is full, and a resumed run asks for the same rows.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from stylegan_mix.rng import stream

__all__ = ["Order", "balanced", "instance"]


class Order:
    """An endless order of rows, made pass by pass."""

    def __init__(self, length: int, one_pass: Callable[[int], np.ndarray]) -> None:
        self.length = length
        self._one_pass = one_pass
        self._made: dict[int, np.ndarray] = {}

    def rows(self, start: int, count: int) -> np.ndarray:
        """Returns the rows at positions start .. start + count - 1, [count] int64."""
        parts = []
        while count > 0:
            number, offset = divmod(start, self.length)
            taken = self._pass(number)[offset : offset + count]
            parts.append(taken)
            start, count = start + len(taken), count - len(taken)
        return np.concatenate(parts)

    def _pass(self, number: int) -> np.ndarray:
        if number not in self._made:
            self._made = {number: self._one_pass(number)}
        return self._made[number]


def instance(length: int, seed: int, name: str, stage: int) -> Order:
    """Orders every row once a pass, each pass differently; `name` is the stream's."""
    return Order(length, lambda number: stream(seed, name, stage, number).permutation(length))


def balanced(labels: np.ndarray, classes: int, seed: int, name: str, stage: int) -> Order:
    """Draws a class with equal probability, then a row of it; a pass is as long as the data."""
    rows_of = [np.flatnonzero(labels == index) for index in range(classes)]

    def one_pass(number: int) -> np.ndarray:
        draws = stream(seed, name, stage, number)
        drawn = draws.integers(classes, size=len(labels))
        share = draws.random(len(labels))  # which row of the class, in [0, 1)
        sizes = np.array([len(rows) for rows in rows_of])[drawn]
        places = (share * sizes).astype(np.int64)
        return np.array([rows_of[c][i] for c, i in zip(drawn, places, strict=True)], np.int64)

    return Order(len(labels), one_pass)
