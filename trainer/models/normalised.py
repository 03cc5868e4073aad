"""Weights and logits of a finished head, brought to other lengths."""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = ["best_temperature", "tau_normalised"]

# Halvings of an interval that is 10 000 times as wide as its lower end: more than float64 can tell.
_HALVINGS = 80


def tau_normalised(weight: Tensor, tau: float) -> Tensor:
    """Computes w_c / |w_c| ** tau for each class c (Kang et al. 2020, section 4.2), [K, D].

    weight: [K, D], rows w_c. tau = 0 changes nothing; tau = 1 makes every row a unit vector.
    """
    return weight / weight.norm(dim=1, keepdim=True) ** tau


def best_temperature(logits: Tensor, label: Tensor, *, most: float = 100.0) -> float:
    """Finds T in [1 / most, most] with the least mean of -log softmax(z / T)_y.

    logits: z, [N, K]; label: y, [N] int64. The mean is convex in b = 1 / T, with the slope
    mean(E_p z - z_y), p = softmax(b z); its zero is found by halving.
    """
    z = logits.double()
    own = z.gather(1, label[:, None])[:, 0]

    def slope(b: float) -> float:
        return float(((torch.softmax(b * z, dim=1) * z).sum(1) - own).mean())

    low, high = 1 / most, most
    for _ in range(_HALVINGS):
        middle = (low * high) ** 0.5
        low, high = (low, middle) if slope(middle) > 0 else (middle, high)
    return 1 / (low * high) ** 0.5
