"""Losses that contrast views of a batch. `V` views of `N` rows, `P` numbers of a projection."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

__all__ = ["balanced_contrast", "parametric_contrast"]


def balanced_contrast(
    views: Tensor, label: Tensor, prototypes: Tensor, temperature: float = 0.1
) -> Tensor:
    """Computes the balanced contrastive loss of each row, the mean over its views, [N].

    Zhu et al. 2022. Items are all views of all rows, and one prototype for each class. s_ik =
    cos(x_i, x_k) / temperature; B_c counts the items of class c. For each view i of class y

        L_i = log sum_{k != i} exp(s_ik) / (B_{c(k)} - [c(k) = y]) - mean_p s_ip

    with p over the other items of class y. So each class has the mean of its terms in the
    denominator, and all classes are there by their prototypes. views: [V, N, P]; label: [N]
    int64; prototypes: [K, P]. Vectors need not be of unit length.
    """
    count, classes = views.shape[0] * views.shape[1], len(prototypes)
    own = F.normalize(views.flatten(0, 1), dim=1)  # [V N, P]
    items = torch.cat([own, F.normalize(prototypes, dim=1)])  # [V N + K, P]
    of = torch.cat([label.repeat(len(views)), torch.arange(classes, device=label.device)])
    same = of[:count, None] == of  # [V N, V N + K]
    itself = torch.eye(count, len(items), dtype=torch.bool, device=label.device)
    scores = own @ items.T / temperature
    terms = (of.bincount(minlength=classes)[of] - same.long()).to(scores)
    all_classes = (scores - terms.log()).masked_fill(itself, -torch.inf).logsumexp(1)
    alike = same & ~itself
    pull = (scores * alike).sum(1) / alike.sum(1)
    return (all_classes - pull).view(views.shape[:2]).mean(0)


def parametric_contrast(
    logits: Tensor,
    label: Tensor,
    queries: Tensor,
    keys: Tensor,
    key_label: Tensor,
    *,
    alpha: float = 0.01,
    temperature: float = 0.05,
    among: bool = False,
) -> Tensor:
    """Computes cross-entropy on classes and keys in one softmax, [N] (Cui et al. 2021, PaCo).

        L = -(log p_y + alpha sum_k log p_k) / (1 + alpha |P|),

    p = softmax of the logits of all classes beside cos(q, k) / temperature of all keys, k in P the
    keys of class y. The text adds the terms; divided by their weights, a row of a large class, with
    many keys, weighs no more than others: our choice. logits: [N, K], shifted by log pi to be
    balanced; label: y, [N] int64; queries: q, [N, P]; keys: [M, P]; key_label: [M] int64, -1 for
    keys that do not count; among: True if the other queries are keys, too. alpha = 0 without keys
    is cross-entropy.
    """
    count = len(label)
    own = F.normalize(queries, dim=1)
    known = torch.cat([own, F.normalize(keys, dim=1)]) if among else F.normalize(keys, dim=1)
    of = torch.cat([label, key_label]) if among else key_label
    counts = (of >= 0).expand(count, -1)
    if among:
        counts = counts & ~torch.eye(count, len(of), dtype=torch.bool, device=label.device)
    scores = (own @ known.T / temperature).masked_fill(~counts, -torch.inf)
    log_p = torch.cat([logits, scores], 1).log_softmax(1)
    alike = counts & (label[:, None] == of)
    near = torch.where(alike, log_p[:, logits.shape[1] :], 0).sum(1)
    right = log_p.gather(1, label[:, None])[:, 0]
    return -(right + alpha * near) / (1 + alpha * alike.sum(1))
