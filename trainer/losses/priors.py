"""Losses that put the shares of the classes into the logits, so that raw logits are balanced.

They are for training; argmax z predicts. `N` rows, `K` classes, pi_c the share of class c of all
training images. Use one of them alone: class-balanced draws or weights of classes beside it would
correct for the shares twice.
"""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

from trainer.losses.counts import Counts, as_counts, counts_for, log_shares
from trainer.losses.labels import cross_entropy

__all__ = ["balanced_sigmoid", "balanced_softmax", "log_odds", "logit_adjust", "vs_loss"]


def logit_adjust(logits: Tensor, label: Tensor, counts: Counts, tau: float = 1.0) -> Tensor:
    """Computes -log softmax(z + tau log pi)_y (Menon et al. 2021, eq. 10), [N].

    logits: z, [N, K]; label: y, [N] int64, or shares of all classes [N, K] as in `cross_entropy`;
    counts: [K]; tau = 0 is cross-entropy.
    """
    return cross_entropy(logits + (tau * log_shares(counts_for(logits, counts))).to(logits), label)


def balanced_softmax(logits: Tensor, label: Tensor, counts: Counts) -> Tensor:
    """Computes -log(n_y exp(z_y) / sum_c n_c exp(z_c)) (Ren et al. 2020, eq. 4), [N].

    It is `logit_adjust` at tau = 1. logits: z, [N, K]; label: y, [N] int64; counts: n, [K].
    """
    return logit_adjust(logits, label, counts)


def log_odds(counts: Counts) -> Tensor:
    """Computes log(pi_c / (1 - pi_c)), [K] float64; counts: [K] of at least two classes."""
    n = as_counts(counts)
    return (n / (n.sum() - n)).log()


def balanced_sigmoid(logits: Tensor, label: Tensor, counts: Counts) -> Tensor:
    """Computes sum_c BCE(sigmoid(z_c + log(pi_c / (1 - pi_c))), [c = y]), [N].

    Ren et al. 2020, Balanced Activation. A balanced prior of one class against the rest would add
    log(K - 1) to all shifts; published code leaves this constant out, and so does this function.
    logits: z, [N, K]; label: y, [N] int64; counts: [K] of at least two classes.
    """
    target = F.one_hot(label, logits.shape[1]).to(logits)
    shifted = logits + log_odds(counts_for(logits, counts)).to(logits)
    return F.binary_cross_entropy_with_logits(shifted, target, reduction="none").sum(1)


def vs_loss(
    logits: Tensor, label: Tensor, counts: Counts, *, gamma: float = 0.2, tau: float = 1.2
) -> Tensor:
    """Computes -log softmax(d z + tau log pi)_y, d_c = (n_c / n_max) ** gamma, [N].

    The vector-scaling loss (Kini et al. 2021). gamma = 0 leaves logit adjustment; the
    arguments are those of `logit_adjust`.
    """
    n = counts_for(logits, counts)
    scale = (n / n.max()) ** gamma
    return logit_adjust(scale.to(logits) * logits, label, n, tau)
