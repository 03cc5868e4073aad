"""Orders of rows, as functions of seed, stream and absolute position.

Positions count rows from the start of a stage, without end; a pass is `length` of them. So a batch
may straddle two passes, every batch is full, and a resumed run asks for the same rows. `K` classes,
n_c training images of class c.

A sampler by its name in `SAMPLERS` gives each class a share of the draws; a class is drawn by it,
then a row of that class. `LoaderSampler` offers the same to a loader of PyTorch.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import numpy as np

from stylegan_mix.datasets.class_weights import class_probabilities
from stylegan_mix.errors import UsageFailure, nearest
from stylegan_mix.rng import stream

__all__ = [
    "SAMPLERS",
    "LoaderSampler",
    "Order",
    "balanced",
    "class_shares",
    "effective_number_shares",
    "instance",
    "progressive_shares",
    "weighted",
]

Shares = Callable[[np.ndarray, float], np.ndarray]
"""(counts [K], progress in [0, 1)) -> the share of each class in the draws, [K], with sum 1."""


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

    def drawn(draws: np.random.Generator, number: int) -> np.ndarray:
        return draws.integers(classes, size=len(labels))

    return _by_class(labels, classes, drawn, seed, name, stage)


def weighted(
    labels: np.ndarray,
    shares: Callable[[int], np.ndarray],
    seed: int,
    name: str,
    stage: int,
) -> Order:
    """Draws a class by its share, then a row of it; a pass is as long as the data.

    shares: the shares of the classes in pass 0, 1, ..., [K] with sum 1.
    """

    def drawn(draws: np.random.Generator, number: int) -> np.ndarray:
        return draws.choice(len(shares(number)), size=len(labels), p=shares(number))

    return _by_class(labels, len(shares(0)), drawn, seed, name, stage)


def _by_class(
    labels: np.ndarray,
    classes: int,
    drawn: Callable[[np.random.Generator, int], np.ndarray],
    seed: int,
    name: str,
    stage: int,
) -> Order:
    """Orders rows by classes that `drawn` gives for each pass, and a random row of each."""
    rows_of = [np.flatnonzero(labels == index) for index in range(classes)]

    def one_pass(number: int) -> np.ndarray:
        draws = stream(seed, name, stage, number)
        chosen = drawn(draws, number)
        share = draws.random(len(labels))  # which row of the class, in [0, 1)
        sizes = np.array([len(rows) for rows in rows_of])[chosen]
        places = (share * sizes).astype(np.int64)
        return np.array([rows_of[c][i] for c, i in zip(chosen, places, strict=True)], np.int64)

    return Order(len(labels), one_pass)


# Shares of classes in the draws


def _even(counts: np.ndarray, progress: float = 0.0) -> np.ndarray:
    """Gives all classes the same share: class-balanced draws."""
    return class_probabilities(counts, 0.0)


def _square_root(counts: np.ndarray, progress: float = 0.0) -> np.ndarray:
    """Gives shares in proportion to sqrt(n_c) (Mahajan et al. 2018; Kang et al. 2020, eq. 1)."""
    return class_probabilities(counts, 0.5)


def progressive_shares(counts: np.ndarray, progress: float) -> np.ndarray:
    """Computes (1 - t) n_c / n + t / K, from natural to even shares (Kang et al. 2020, eq. 2), [K].

    counts: n_c, [K]; progress: t in [0, 1], the share of the epochs that are done.
    """
    return (1 - progress) * class_probabilities(counts, 1.0) + progress * _even(counts)


def effective_number_shares(
    counts: np.ndarray, progress: float = 0.0, *, beta: float = 0.9999, spread: float = 1e-5
) -> np.ndarray:
    """Computes shares in proportion to n_c (1 - b_c) / (1 - b_c ** n_c), [K].

    Each image is weighed by the inverse effective number of its class (Cui et al. 2019), so large
    classes keep a little more than an even share. b_c = beta + spread d_c, d_c = 0 for the largest
    class and 1 for the rarest, in proportion to -log n_c: known by the published code of Li et al.
    2022. spread = 0 gives all classes the same beta.
    """
    n = counts.astype(np.float64)
    behind = np.log(n.max()) - np.log(n)
    betas = beta + spread * (behind / behind.max() if behind.max() > 0 else behind)
    mass = n * (1 - betas) / (1 - betas**n)
    return np.asarray(mass / mass.sum(), np.float64)


SAMPLERS: dict[str, Shares] = {
    "class": _even,
    "square-root": _square_root,
    "progressive": progressive_shares,
    "effective-number": effective_number_shares,
}
"""The samplers that draw a class first, by name; "instance" takes every row once a pass."""


def class_shares(
    name: str, counts: Sequence[int] | np.ndarray, progress: float = 0.0
) -> np.ndarray:
    """Computes the share of each class in the draws of a sampler, [K] float64 with sum 1.

    name: one of `SAMPLERS`, or a `UsageFailure`; counts: training images of each class, [K];
    progress: share of the epochs that are done, in [0, 1], which only "progressive" reads.
    """
    if name not in SAMPLERS:
        raise UsageFailure(f"unknown sampler '{name}'{nearest(name, SAMPLERS)}")
    return SAMPLERS[name](np.asarray(counts), progress)


class LoaderSampler:
    """A sampler for a loader of PyTorch: ``DataLoader(data, sampler=LoaderSampler(...))``.

    labels: of all images of the loader's data set, [N]; name: one of `SAMPLERS`, or "instance";
    epochs: the length of the training, over which "progressive" goes from natural to even draws.
    Every pass over it is the next epoch, of N draws. A resumed training sets `epoch`.
    """

    def __init__(
        self, labels: Sequence[int] | np.ndarray, name: str, *, epochs: int = 1, seed: int = 0
    ) -> None:
        found = np.asarray(labels)
        self.epoch = 0
        self._length = len(found)
        if name == "instance":
            self._order = instance(len(found), seed, "loader.order", 0)
            return
        classes, places, counts = np.unique(found, return_inverse=True, return_counts=True)
        del classes  # drawn by their places among the labels that occur

        def shares(number: int) -> np.ndarray:
            return class_shares(name, counts, min(number / epochs, 1.0))

        self._order = weighted(places, shares, seed, "loader.class", 0)

    def __len__(self) -> int:
        return self._length

    def __iter__(self) -> Iterator[int]:
        epoch, self.epoch = self.epoch, self.epoch + 1
        return iter(self._order.rows(epoch * self._length, self._length).tolist())
