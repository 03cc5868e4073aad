"""Weights of classes in a loss. `K` classes, n_c training images of class c."""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = ["over_images"]


def over_images(weights: Tensor, counts: Tensor) -> Tensor:
    """Scales class weights so that their mean over all training images is 1, [K].

    weights, counts: [K]. Re-weighting then keeps the size of a step. Published code of
    class-weighted losses divides each batch by the sum of its weights, which couples its rows; this
    is that divisor in expectation.
    """
    shares = counts.to(weights) / counts.sum()
    return weights / torch.dot(shares, weights)
