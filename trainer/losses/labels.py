"""Losses of labels alone. `N` rows, `K` classes."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

__all__ = ["cross_entropy", "logit_adjusted"]


def cross_entropy(logits: Tensor, target: Tensor) -> Tensor:
    """Computes -sum_c p_c log softmax(z)_c, [N].

    logits: z, [N, K]; target: classes [N] int64, or p itself, [N, K] shares that add to 1.
    """
    return F.cross_entropy(logits, target, reduction="none")


def logit_adjusted(logits: Tensor, label: Tensor, shift: Tensor) -> Tensor:
    """Computes -log softmax(z + shift)_y (Menon et al. 2021, eq. 10), [N].

    logits: z, [N, K]; label: y, [N] int64, or shares of all classes [N, K] as in `cross_entropy`;
    shift: [K], tau log pi with the shares pi of classes.
    """
    return cross_entropy(logits + shift.to(logits), label)
