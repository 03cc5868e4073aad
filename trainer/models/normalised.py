"""Norms of classifier weights made independent of the sizes of the classes."""

from __future__ import annotations

from torch import Tensor

__all__ = ["tau_normalised"]


def tau_normalised(weight: Tensor, tau: float) -> Tensor:
    """Computes w_c / |w_c| ** tau for each class c (Kang et al. 2020, section 4.2), [K, D].

    weight: [K, D], rows w_c. tau = 0 changes nothing; tau = 1 makes every row a unit vector.
    """
    return weight / weight.norm(dim=1, keepdim=True) ** tau
