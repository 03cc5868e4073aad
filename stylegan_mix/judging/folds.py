"""Folds of the training part, class by class; no torch."""

from __future__ import annotations

import numpy as np

from stylegan_mix.rng import stream

__all__ = ["KEPT", "folds_of"]

KEPT = -1
"""The fold of an image that no fold holds out."""


def folds_of(labels: np.ndarray, folds: int, seed: int) -> np.ndarray:
    """Deals the images of each class to the folds, in random order: labels [N] -> int64 [N].

    The single image of a class is dealt to no fold (`KEPT`): every classifier learns every class.
    """
    dealt = np.full(len(labels), KEPT, np.int64)
    for label in np.unique(labels):
        rows = np.flatnonzero(labels == label)
        if len(rows) > 1:
            order = stream(seed, "judge.fold", int(label)).permutation(len(rows))
            dealt[rows[order]] = np.arange(len(rows)) % folds
    return dealt
