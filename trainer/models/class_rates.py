"""Rates of drawing, learned for each class beside a head."""

from __future__ import annotations

import torch
from torch import Tensor, nn

__all__ = ["ClassRates"]


class ClassRates(nn.Module):
    """Rates sigmoid(raw_c) at which rows of class c are drawn from a batch; all begin at 1/2.

    raw: [K], learned; counts: the training images of each class.
    """

    def __init__(self, counts: tuple[int, ...]) -> None:
        super().__init__()
        self.counts = counts
        self.raw = nn.Parameter(torch.zeros(len(counts)))

    @property
    def rates(self) -> Tensor:
        """The rates, [K] in (0, 1); only their ratios matter."""
        return self.raw.detach().sigmoid()
