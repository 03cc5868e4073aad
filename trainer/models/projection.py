"""Small networks of two layers, for projections of features."""

from __future__ import annotations

from torch import nn

__all__ = ["mlp"]


def mlp(width: int, hidden: int, outputs: int, *, normed: bool = False) -> nn.Sequential:
    """Makes a map [N, width] -> [N, outputs]: linear, ReLU, linear; not yet initialised.

    normed: True if a batch norm stands before the ReLU.
    """
    norm = [nn.BatchNorm1d(hidden)] if normed else []
    return nn.Sequential(nn.Linear(width, hidden), *norm, nn.ReLU(), nn.Linear(hidden, outputs))
