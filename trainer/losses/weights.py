"""Weights of classes in a loss. `K` classes, n_c training images of class c."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from stylegan_mix.datasets.class_weights import inverse_effective_number

__all__ = ["by_effective_number", "over_images"]


def by_effective_number(counts: Sequence[int], beta: float) -> Tensor:
    """Computes weights in proportion to the inverse effective number of classes, [K] float64.

    Cui et al. 2019, eq. 2, for n_c images and `beta` in [0, 1); with mean 1 over training images.
    counts: K numbers. beta = 0 and equal counts give equal weights.
    """
    inverse = inverse_effective_number(np.array(counts), beta)
    return over_images(torch.from_numpy(inverse), torch.tensor(counts, dtype=torch.float64))


def over_images(weights: Tensor, counts: Tensor) -> Tensor:
    """Scales class weights so that their mean over all training images is 1, [K].

    weights, counts: [K]. Re-weighting then keeps the size of a step. Published code of
    class-weighted losses divides each batch by the sum of its weights, which couples its rows; this
    is that divisor in expectation.
    """
    shares = counts.to(weights) / counts.sum()
    return weights / torch.dot(shares, weights)
