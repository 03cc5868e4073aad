"""Rules that keep rows of a bank by a judge's annotations; the calibration of lam. No torch.

`N` rows, `K` classes; `pair` [N,2] and `lam` [N] are those of the bank, `posterior` [N,K] is the
judge's.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

__all__ = [
    "CONFIDENT",
    "FEW",
    "Curve",
    "calibration",
    "dominant",
    "far",
    "few",
    "kept_by_class",
    "third",
]

CONFIDENT = 0.5
"""Posterior above which the judge is confident of a class."""

FEW = 0.3
"""Share of kept rows below which a class is named."""

_FAR = 2.0
_BINS = 10


def third(posterior: np.ndarray, pair: np.ndarray) -> np.ndarray:
    """Tells for each row if the judge is confident of a class that is neither a nor b: bool [N]."""
    top = posterior.argmax(axis=1)
    sure = posterior[np.arange(len(top)), top] > CONFIDENT
    return np.asarray(sure & (top != pair[:, 0]) & (top != pair[:, 1]))


def far(distance: np.ndarray, reach: np.ndarray, pair: np.ndarray) -> np.ndarray:
    """Tells for each row if it is far from both of its classes: bool [N].

    `distance` [N,2] are the cosine distances to the prototypes of a and b, and `reach` [K] that of
    real images of each class. Far is more than twice the reach, as Shao et al. (2024, DiffuLT)
    call a generated image out of distribution.
    """
    return np.asarray((distance > _FAR * reach[pair]).all(axis=1))


def dominant(pair: np.ndarray, lam: np.ndarray) -> np.ndarray:
    """Finds the class with the larger share of each row, a where both are equal: [N]."""
    return np.where(lam >= 0.5, pair[:, 0], pair[:, 1])


def kept_by_class(kept: np.ndarray, classes: np.ndarray, size: int) -> list[float | None]:
    """Computes the share of kept rows for each class [K]; None where it has no row."""
    counts = np.bincount(classes, minlength=size)
    shares = np.bincount(classes, kept, minlength=size) / np.maximum(counts, 1)
    return [float(share) if count else None for share, count in zip(shares, counts, strict=True)]


def few(classes: Sequence[str], kept: Sequence[float | None]) -> list[str]:
    """Names the classes of which fewer than `FEW` of the rows are kept."""
    return [name for name, one in zip(classes, kept, strict=True) if one is not None and one < FEW]


@dataclass(frozen=True)
class Curve:
    """The calibration of lam: in each bin the mean `lam`, the mean share of a that the judge sees
    among a and b (`seen`), and the number of `rows`."""

    lam: tuple[float, ...]
    seen: tuple[float, ...]
    rows: tuple[int, ...]


def calibration(posterior: np.ndarray, pair: np.ndarray, lam: np.ndarray) -> Curve:
    """Computes the curve of p_a / (p_a + p_b) over lam, in ten bins, for rows of two classes.

    Empty bins are left out.
    """
    rows = np.flatnonzero(pair[:, 0] != pair[:, 1])
    first, second = posterior[rows, pair[rows, 0]], posterior[rows, pair[rows, 1]]
    share = first.astype(np.float64) / np.maximum(first.astype(np.float64) + second, 1e-12)
    place = np.minimum((lam[rows] * _BINS).astype(np.int64), _BINS - 1)
    counts = np.bincount(place, minlength=_BINS)
    there = np.flatnonzero(counts)

    def means(values: np.ndarray) -> tuple[float, ...]:
        return tuple((np.bincount(place, values, minlength=_BINS)[there] / counts[there]).tolist())

    return Curve(means(lam[rows]), means(share), tuple(counts[there].tolist()))
