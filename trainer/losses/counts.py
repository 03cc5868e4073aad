"""Numbers of training images by class, as the losses read them. `K` classes."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from stylegan_mix.errors import InvalidInput

__all__ = ["Counts", "as_counts", "counts_for", "log_shares", "rarity"]

Counts = Tensor | Sequence[int]
"""n_c, the training images of each class, [K]; at least one each."""


def as_counts(counts: Counts) -> Tensor:
    """Converts counts to a tensor, [K] float64; `InvalidInput` unless each is at least 1."""
    made = torch.as_tensor(counts, dtype=torch.float64)
    if made.dim() != 1 or not len(made) or not bool((made >= 1).all()):
        raise InvalidInput(
            f"counts must hold the training images of each class, at least one, got {counts}"
        )
    return made


def counts_for(logits: Tensor, counts: Counts) -> Tensor:
    """Converts counts as `as_counts` does; `InvalidInput` unless there is one for each logit."""
    made = as_counts(counts)
    if logits.dim() != 2 or logits.shape[1] != len(made):
        raise InvalidInput(
            f"logits must be [N, {len(made)}] for the counts of {len(made)} classes, "
            f"got {list(logits.shape)}"
        )
    return made


def log_shares(counts: Counts) -> Tensor:
    """Computes log pi, pi_c = n_c / sum_k n_k, [K] float64."""
    n = as_counts(counts)
    return (n / n.sum()).log()


def rarity(counts: Counts) -> Tensor:
    """Computes (log n_max - log n_c) / (log n_max - log n_min), [K] float64 in [0, 1].

    0 for the largest class, 1 for the smallest; 0 for all classes of equal counts.
    """
    n = as_counts(counts)
    behind = n.max().log() - n.log()
    return behind / behind.max() if bool(behind.max() > 0) else behind
