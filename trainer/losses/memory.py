"""A memory of class means as a nearest-mean classifier that teaches a second head.

Defined by the code of Sonseca (2021), a thesis without a published text:
https://github.com/Sonseca97/fyp-long-tail-recognition. `N` rows, `K` classes, `D` features.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

__all__ = ["matched", "moved", "nearness", "transfer"]


def moved(memory: Tensor, features: Tensor, label: Tensor, taken: Tensor, rate: Tensor) -> Tensor:
    """Moves m_c + rate_c (mean of f_i / |f_i| over taken rows i of class c - m_c), [K, D].

    memory: m, [K, D]; features: f, [N, D]; label: [N] int64; taken: [N] bool; rate: [K] in [0, 1].
    A class without such a row keeps its mean.
    """
    unit = F.normalize(features, dim=1)
    member = (F.one_hot(label, len(memory)) * taken[:, None]).to(unit)  # [N, K]
    count = member.sum(0)[:, None]  # [K, 1]
    mean = member.T @ unit / count.clamp(min=1)
    return torch.lerp(memory, mean, rate[:, None] * (count > 0))


def nearness(features: Tensor, memory: Tensor) -> Tensor:
    """Computes cos(f_i, m_c) of rows and class means, [N, K]. features: [N, D]; memory: [K, D]."""
    return F.normalize(features, dim=1) @ F.normalize(memory, dim=1).T


def matched(scores: Tensor, logits: Tensor) -> Tensor:
    """Maps the scores of each row to the range of its logits by an increasing line, [N, K].

    scores, logits: [N, K]. Scores that are all equal go to the smallest logit.
    """
    low, high = scores.amin(1, keepdim=True), scores.amax(1, keepdim=True)
    floor, ceiling = logits.amin(1, keepdim=True), logits.amax(1, keepdim=True)
    spread = (high - low).clamp(min=torch.finfo(scores.dtype).tiny)
    return floor + (scores - low) / spread * (ceiling - floor)


def transfer(
    logits: Tensor, label: Tensor, taught: Tensor, *, label_weight: float, temperature: float
) -> Tensor:
    """Computes cross-entropy, softened toward the memory in rows that the memory gets right, [N].

    a CE(z, y) + (1 - a) KL(softmax(v / T) || softmax(z / T)) if argmax v = y, else CE(z, y).

    logits: z, [N, K], of the second head; label: y, [N] int64; taught: v, [N, K], the answer of the
    memory in the range of logits; label_weight: a; temperature: T, without a factor T^2. The code
    averages the rows of either kind apart and adds the two means; here every row weighs the same.
    """
    plain = F.cross_entropy(logits, label, reduction="none")
    pull = F.kl_div(
        F.log_softmax(logits / temperature, dim=1),
        F.log_softmax(taught / temperature, dim=1),
        reduction="none",
        log_target=True,
    ).sum(1)
    right = taught.argmax(1) == label
    return torch.where(right, label_weight * plain + (1 - label_weight) * pull, plain)
