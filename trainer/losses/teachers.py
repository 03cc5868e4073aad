"""Losses of the answers of a teacher. `N` rows, `K` classes."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

__all__ = ["distillation", "revised", "shrunk"]


def distillation(logits: Tensor, teacher: Tensor, temperature: float) -> Tensor:
    """Computes T^2 KL(softmax(z_t / T) || softmax(z / T)) (Hinton et al. 2015, section 2.1), [N].

    logits, teacher: z and z_t, [N, K]; temperature: T > 0.
    """
    log_student = F.log_softmax(logits / temperature, dim=1)  # [N, K]
    log_teacher = F.log_softmax(teacher / temperature, dim=1)
    each = F.kl_div(log_student, log_teacher, reduction="none", log_target=True)
    return temperature**2 * each.sum(1)


def shrunk(votes: Tensor, class_row: Tensor, pseudo_votes: float) -> Tensor:
    """Computes q = (n + a0 m) / (K + a0), the posterior mean of the shares of votes, [N, K].

    votes: n, [N, K] counts that sum to K views; class_row: m, [N, K], shares within the class;
    pseudo_votes: a0 >= 0. Our reconstruction of patched one-hot distillation.
    """
    return (votes + pseudo_votes * class_row) / (votes.sum(1, keepdim=True) + pseudo_votes)


def revised(shares: Tensor, label: Tensor, eta: float) -> Tensor:
    """Computes p = b q + (1 - b) e_y, b = eta / (max q - q_y + 1), [N, K] (Lan et al. 2024).

    shares: q, [N, K]; label: y, [N] int64. For every eta < 1 the label has the largest share of
    the result.
    """
    own = shares.gather(1, label[:, None])  # [N, 1]
    pull = eta / (shares.amax(1, keepdim=True) - own + 1)
    return (pull * shares).scatter_add(1, label[:, None], 1 - pull)
