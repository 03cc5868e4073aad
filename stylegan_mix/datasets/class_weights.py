"""Class weights by the effective number of samples (Cui et al. 2019), and class probabilities.

K classes, n_c images of class c.
"""

from __future__ import annotations

import numpy as np

__all__ = ["class_probabilities", "inverse_effective_number"]


def inverse_effective_number(counts: np.ndarray, beta: float) -> np.ndarray:
    """Computes lambda_c ~ 1 / E(n_c), E(n) = (1 - beta^n) / (1 - beta), scaled to mean 1: [K].

    The rarer a class, the larger its weight; beta = 0 gives 1 everywhere.
    """
    counts = np.maximum(counts.astype(np.float64), 1)
    weights = (1 - beta) / (1 - beta**counts)
    return np.asarray(weights * (len(counts) / weights.sum()), np.float64)


def class_probabilities(counts: np.ndarray, power: float) -> np.ndarray:
    """Computes q_c in proportion to n_c ** power: [K] counts -> [K] probabilities."""
    weights = counts.astype(np.float64) ** power
    return weights / weights.sum()
