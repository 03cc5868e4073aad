"""Figures by nearest neighbours: precision, recall, density, coverage; copies of training images.

`N` samples ("fake"), `M` real rows, `D` width. Exact search in blocks, in NumPy.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

__all__ = ["Copying", "Prdc", "copying", "evenly_spaced", "nearest", "prdc", "radii"]

_ROWS = 512


@dataclass(frozen=True)
class Prdc:
    """Precision, recall, density and coverage; all but density lie in [0, 1]."""

    precision: float
    recall: float
    density: float
    coverage: float


def prdc(
    real: np.ndarray, fake: np.ndarray, *, k: int, weights: np.ndarray | None = None
) -> Prdc | None:
    """Computes the four of real [M,D] and fake [N,D]; None if a set has no k neighbours a row.

    A row's ball reaches to its k-th nearest neighbour in its own set. Precision is the share of
    fakes in any real ball, recall the share of reals in any fake ball (Kynkaanniemi et al. 2019).
    Density is the mean number of real balls around a fake, over k; coverage is the share of real
    balls that hold a fake (Naeem et al. 2020). `weights` [N] of the fakes count in precision and
    density.
    """
    if min(len(real), len(fake)) <= k:
        return None
    real_radius, fake_radius = radii(real, k), radii(fake, k)
    hits = np.zeros(len(fake))
    in_fake, covered = np.zeros(len(real), bool), np.zeros(len(real), bool)
    for rows, squared in _squared_distances(fake, real):
        distance = np.sqrt(squared)
        inside = distance <= real_radius
        hits[rows] = inside.sum(axis=1)
        covered |= inside.any(axis=0)
        in_fake |= (distance <= fake_radius[rows, None]).any(axis=0)
    return Prdc(
        precision=float(np.average(hits > 0, weights=weights)),
        recall=float(in_fake.mean()),
        density=float(np.average(hits, weights=weights)) / k,
        coverage=float(covered.mean()),
    )


def radii(features: np.ndarray, k: int) -> np.ndarray:
    """Measures the distance of each row [N,D] to its k-th nearest other row -> [N]."""
    found = np.empty(len(features))
    for rows, squared in _squared_distances(features, features, own=np.arange(len(features))):
        found[rows] = np.sqrt(np.partition(squared, k - 1, axis=1)[:, k - 1])
    return found


def nearest(
    queries: np.ndarray, base: np.ndarray, *, own: np.ndarray | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """Finds the nearest row of `base` [M,D] for each query [N,D]: (index int64, distance) [N].

    `own` [N] names for each query a row of `base` that does not count: the query itself. The search
    is in the dtype of the inputs, the resulting distance in float64.
    """
    index = np.empty(len(queries), np.int64)
    for rows, squared in _squared_distances(queries, base, own=own):
        index[rows] = squared.argmin(axis=1)
    distance = np.empty(len(queries))
    for start in range(0, len(queries), _ROWS):
        rows = slice(start, start + _ROWS)
        apart = queries[rows].astype(np.float64) - base[index[rows]]
        distance[rows] = np.sqrt(np.square(apart).sum(axis=1))
    return index, distance


def _squared_distances(
    a: np.ndarray, b: np.ndarray, *, own: np.ndarray | None = None
) -> Iterator[tuple[slice, np.ndarray]]:
    """Yields blocks of rows of the squared distances [N,M]; infinity from row i to `own[i]`."""
    # Around the common centre the difference of large numbers loses little.
    centre = b.mean(axis=0, dtype=np.float64).astype(b.dtype)
    a, b = a - centre, b - centre
    b_norm = np.square(b).sum(axis=1)
    for start in range(0, len(a), _ROWS):
        rows = slice(start, min(start + _ROWS, len(a)))
        squared = np.square(a[rows]).sum(axis=1)[:, None] + b_norm - 2.0 * (a[rows] @ b.T)
        np.clip(squared, 0.0, None, out=squared)
        if own is not None:
            squared[np.arange(rows.stop - start), own[rows]] = np.inf
        yield rows, squared


@dataclass(frozen=True)
class Copying:
    """`ratio` of median distances, and `share` of samples nearer than real images ever are."""

    ratio: float
    share: float


def copying(samples: np.ndarray, held_out: np.ndarray, *, quantile: float = 0.01) -> Copying | None:
    """Compares distances to the nearest training image: of samples [N] and of unseen reals [M].

    The ratio is the median of the samples' over that of the reals': about 1 for new images, 0 for
    copies. The share is that of samples nearer than the `quantile` of the reals, which real images
    reach with that probability (after the test of Meehan et al. 2020). None without rows, or if
    half of the unseen reals are in the training set.
    """
    if not len(samples) or not len(held_out):
        return None
    typical = float(np.median(held_out))
    if typical == 0.0:
        return None
    limit = float(np.quantile(held_out, quantile))
    return Copying(float(np.median(samples)) / typical, float((samples < limit).mean()))


def evenly_spaced(count: int, most: int) -> np.ndarray:
    """Selects up to `most` of `count` positions, evenly spaced -> int64."""
    if count <= most:
        return np.arange(count)
    return np.linspace(0, count - 1, most).round().astype(np.int64)
