"""Weights of classes in a loss. `K` classes, n_c training images of class c."""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = ["over_images"]


def over_images(weights: Tensor, counts: Tensor) -> Tensor:
    """Class weights scaled so that their mean over all training images is 1, [K].

    weights, counts: [K]. Re-weighting then leaves the size of a step as it is. Published code of
    class-weighted losses divides each batch by the sum of its weights, which couples its rows;
    this is that divisor in expectation.
    """
    shares = counts.to(weights) / counts.sum()
    return weights / torch.dot(shares, weights)
