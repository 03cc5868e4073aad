"""Losses of labels and logits alone. `N` rows, `K` classes, n_c training images of class c."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from trainer.losses.counts import Counts, as_counts, counts_for

__all__ = [
    "cross_entropy",
    "focal",
    "label_aware_smoothing",
    "missed",
    "sigmoid_focal",
    "smoothing_shares",
]


def cross_entropy(logits: Tensor, target: Tensor) -> Tensor:
    """Computes -sum_c p_c log softmax(z)_c, [N].

    logits: z, [N, K]; target: classes [N] int64, or p itself, [N, K] shares that add to 1.
    """
    return F.cross_entropy(logits, target, reduction="none")


def focal(logits: Tensor, label: Tensor, gamma: float = 1.0) -> Tensor:
    """Computes -(1 - p_y) ** gamma log p_y, p = softmax(z) (Lin et al. 2017, eq. 4), [N].

    logits: z, [N, K]; label: y, [N] int64; gamma >= 0, and 0 is cross-entropy. The paper has two
    classes and a sigmoid; this is its form for K classes. p never includes weights of classes.
    """
    plain = cross_entropy(logits, label)
    return missed(plain) ** gamma * plain


def missed(log_loss: Tensor) -> Tensor:
    """Computes 1 - p of losses -log p, kept above zero so that every power has a gradient."""
    return (-torch.expm1(-log_loss)).clamp(min=torch.finfo(log_loss.dtype).tiny)


def sigmoid_focal(logits: Tensor, label: Tensor, gamma: float = 1.0) -> Tensor:
    """Computes -sum_c (1 - q_c) ** gamma log q_c, each class against the rest, [N].

    Cui et al. 2019, section 4; q_y = sigmoid(z_y), and q_c = sigmoid(-z_c) for every other class.
    logits: z, [N, K]; label: y, [N] int64; gamma >= 0.
    """
    own = F.one_hot(label, logits.shape[1]).bool()
    signed = torch.where(own, logits, -logits)
    factor = torch.exp(gamma * F.logsigmoid(-signed))
    return (-factor * F.logsigmoid(signed)).sum(1)


def smoothing_shares(counts: Counts, first: float, last: float) -> Tensor:
    """Computes the share of a label that is spread over all classes, by class, [K] float64.

    last + (first - last) sin(pi (n_c - n_min) / (2 (n_max - n_min))): `first` for the largest
    class, `last` for the smallest, and for all classes of equal counts (Zhong et al. 2021, the
    concave form). counts: n_c, [K].
    """
    n = as_counts(counts)
    above, spread = n - n.min(), n.max() - n.min()
    relative = above / spread if bool(spread > 0) else above
    return last + (first - last) * torch.sin(relative * torch.pi / 2)


def label_aware_smoothing(
    logits: Tensor, label: Tensor, counts: Counts, *, first: float = 0.3, last: float = 0.0
) -> Tensor:
    """Computes -(1 - e_y) log p_y - e_y mean_c log p_c, p = softmax(z), [N].

    Zhong et al. 2021. e are the `smoothing_shares` of `first` and `last`; the mean is
    over all K classes, with y among them. logits: z, [N, K]; label: y, [N] int64; counts: [K].
    """
    log_p = F.log_softmax(logits, dim=1)
    share = smoothing_shares(counts_for(logits, counts), first, last).to(logits)[label]
    own = log_p.gather(1, label[:, None])[:, 0]
    return -(1 - share) * own - share * log_p.mean(1)
