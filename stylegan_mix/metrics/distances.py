"""Distances between two sets of features: Frechet, and the kernel distance.

`N`, `M` rows, `D` feature width, `K` classes, `G` groups of the jackknife. NumPy, in float64.
Frechet distances are in squared units of the features; kernel distances have no unit.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

__all__ = [
    "Kernel",
    "Labelled",
    "Moments",
    "effective_count",
    "frechet_distance",
    "groups_for",
    "kernel_distance",
    "kernel_sums",
    "moments",
]

_ROWS = 512
_MOST_CELLS = 2000


@dataclass(frozen=True, eq=False)
class Labelled:
    """`features` float64 [N,D] with a class each: `labels` int64 [N]."""

    features: np.ndarray
    labels: np.ndarray

    def __len__(self) -> int:
        return len(self.labels)

    def of(self, classes: Sequence[int]) -> Labelled:
        """Selects the rows of these classes."""
        return self.at(np.flatnonzero(np.isin(self.labels, classes)))

    def at(self, rows: np.ndarray) -> Labelled:
        """Selects rows by position."""
        return Labelled(self.features[rows], self.labels[rows])


# Frechet


@dataclass(frozen=True, eq=False)
class Moments:
    """`mean` [D] and `covariance` [D,D] of a set, and the number of equal rows it is worth."""

    mean: np.ndarray
    covariance: np.ndarray
    count: float


def effective_count(weights: np.ndarray) -> float:
    """Computes the worth of weights in equal rows: (sum w)^2 / sum w^2 (Kish 1965)."""
    return float(weights.sum() ** 2 / np.square(weights).sum())


def moments(features: np.ndarray, weights: np.ndarray | None = None) -> Moments:
    """Computes mean and covariance of features [N,D] under weights [N], equal by default.

    The covariance is divided by 1 - sum w^2 (weights of sum 1), which is (N - 1) / N for equal
    weights.
    """
    if weights is None:
        weights = np.ones(len(features))
    share = weights / weights.sum()
    mean = share @ features
    centred = features - mean
    covariance = (centred * share[:, None]).T @ centred
    count = effective_count(share)
    return Moments(mean, covariance / (1.0 - 1.0 / count), count)


def frechet_distance(a: Moments, b: Moments) -> float:
    """Computes |m_a - m_b|^2 + tr(A + B - 2 (AB)^1/2) of two Gaussians (Dowson and Landau 1982).

    As a distance of features: Heusel et al. 2017. tr (AB)^1/2 is the sum of the square roots of the
    eigenvalues of the symmetric A^1/2 B A^1/2, which has the same ones as AB. So no complex square
    root is needed, and rank-deficient covariances need no constant on their diagonal.
    """
    values, vectors = np.linalg.eigh(a.covariance)
    root = (vectors * np.sqrt(np.clip(values, 0.0, None))) @ vectors.T
    product = root @ b.covariance @ root
    shared = np.sqrt(np.clip(np.linalg.eigvalsh((product + product.T) / 2), 0.0, None)).sum()
    apart = np.square(a.mean - b.mean).sum()
    spread = np.trace(a.covariance) + np.trace(b.covariance)
    return max(float(apart + spread - 2.0 * shared), 0.0)


# Kernel


@dataclass(frozen=True, eq=False)
class Kernel:
    """Sums of the kernel over pairs of rows, by (class, group) of both, and rows of each cell.

    `sums` [K,G,K,G]; `rows` and `columns` [K,G] count the two sets. `within`: the two are the same
    set, and a row is not paired with itself.
    """

    sums: np.ndarray
    rows: np.ndarray
    columns: np.ndarray
    within: bool

    def mean(self, row_share: np.ndarray, column_share: np.ndarray, keep: np.ndarray) -> float:
        """Averages the kernel over rows and columns with these class shares [K], in `keep` [G].

        Every pair of classes is averaged first, so the result is unbiased for any numbers of rows.
        NaN if a class with a share has too few rows.
        """
        left, right = np.flatnonzero(row_share), np.flatnonzero(column_share)
        sums = self.sums[left][:, :, right][:, keep][..., keep].sum(axis=(1, 3))
        rows, columns = self.rows[left][:, keep].sum(axis=1), self.columns[right][:, keep]
        pairs = rows[:, None] * columns.sum(axis=1)
        if self.within:
            pairs = pairs - np.where(left[:, None] == right, rows[:, None], 0)
        if (pairs == 0).any():
            return float("nan")
        return float(row_share[left] @ (sums / pairs) @ column_share[right])


def groups_for(classes: int) -> int:
    """Chooses G, the number of parts that the jackknife leaves out in turn: 10 or fewer."""
    return max(2, min(10, _MOST_CELLS // classes))


def kernel_sums(x: Labelled, y: Labelled | None, classes: int) -> Kernel:
    """Sums k(x, y) = (x.y / D + 1)^3 (Binkowski et al. 2018) over all pairs; of x if y is None.

    The rows of a class go to the groups in turn.
    """
    groups = groups_for(classes)
    x_order, x_cells, x_counts = _cells(x.labels, classes, groups)
    left = x.features[x_order].astype(np.float64)
    right, y_counts, y_cells = left, x_counts, x_cells
    if y is not None:
        y_order, y_cells, y_counts = _cells(y.labels, classes, groups)
        right = y.features[y_order].astype(np.float64)
    cells = classes * groups
    sums = np.zeros((cells, cells))
    for start in range(0, len(left), _ROWS):
        rows = slice(start, start + _ROWS)
        values = _kernel(left[rows] @ right.T, left.shape[1])
        sums += _added(_added(values, y_cells, cells, 1), x_cells[rows], cells, 0)
    if y is None:
        own = _kernel(np.square(left).sum(axis=1), left.shape[1])
        sums[np.diag_indices(cells)] -= np.bincount(x_cells, weights=own, minlength=cells)
    shape = (classes, groups)
    return Kernel(
        sums.reshape(*shape, *shape), x_counts.reshape(shape), y_counts.reshape(shape), y is None
    )


def _kernel(product: np.ndarray, width: int) -> np.ndarray:
    return (product / width + 1.0) ** 3


def _cells(
    labels: np.ndarray, classes: int, groups: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Sorts rows by cell: returns the order, the cells in that order [N], their sizes [K*G]."""
    by_class = np.argsort(labels, kind="stable")
    sizes = np.bincount(labels, minlength=classes)
    place = np.arange(len(labels)) - np.repeat(np.cumsum(sizes) - sizes, sizes)
    cells = labels[by_class] * groups + place % groups
    order = np.argsort(cells, kind="stable")
    return by_class[order], cells[order], np.bincount(cells, minlength=classes * groups)


def _added(values: np.ndarray, cells: np.ndarray, count: int, axis: int) -> np.ndarray:
    """Sums the entries of each cell along one axis; `cells` are sorted."""
    there, starts = np.unique(cells, return_index=True)
    found = np.add.reduceat(values, starts, axis=axis)
    shape = list(values.shape)
    shape[axis] = count
    sums = np.zeros(shape)
    sums[(slice(None), there) if axis else there] = found
    return sums


def kernel_distance(
    x: Kernel, y: Kernel, across: Kernel, x_share: np.ndarray, y_share: np.ndarray
) -> tuple[float | None, float | None]:
    """Estimates the squared maximum mean discrepancy without bias, and its standard error.

    Gretton et al. 2012. `x_share` and `y_share` [K] are the class shares of the two distributions.
    The value takes all pairs. The error is that of the jackknife, which leaves out one group of
    both sets at a time. The value is None if a class with a share has fewer than two rows; the
    error, if that holds after leaving a group out.
    """

    def value(keep: np.ndarray) -> float:
        return (
            x.mean(x_share, x_share, keep)
            + y.mean(y_share, y_share, keep)
            - 2.0 * across.mean(x_share, y_share, keep)
        )

    groups = across.rows.shape[1]
    whole = value(np.ones(groups, bool))
    if np.isnan(whole):
        return None, None
    left = np.array([value(np.arange(groups) != group) for group in range(groups)])
    if np.isnan(left).any():
        return whole, None
    variance = (groups - 1) / groups * np.square(left - left.mean()).sum()
    return whole, float(np.sqrt(variance))
