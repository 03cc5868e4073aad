"""The label-distribution-aware margin loss, LDAM (Cao et al. 2019).

`N` rows, `K` classes, n_c training images of class c.
"""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

from trainer.losses.counts import Counts, as_counts, counts_for

__all__ = ["ldam", "ldam_margins"]


def ldam_margins(counts: Counts, largest: float) -> Tensor:
    """Computes margins in proportion to n_c ** (-1/4), the greatest `largest`, [K] float64.

    counts: n_c, [K]. Cao et al. 2019, section 3.2; equal counts give `largest` everywhere.
    """
    roots = as_counts(counts) ** -0.25
    return largest * roots / roots.max()


def ldam(
    logits: Tensor, label: Tensor, counts: Counts, *, largest: float = 0.5, scale: float = 30.0
) -> Tensor:
    """Computes -log softmax(scale (cos - m_y e_y))_y, [N] (Cao et al. 2019, section 3.2).

    logits: scale times the cosines of features and class weights, [N, K]; label: y, [N] int64;
    counts: [K]; m: the `ldam_margins` with the greatest one `largest`. Only the row's own class is
    reduced, by its own margin.
    """
    cosines = logits / scale
    own = ldam_margins(counts_for(logits, counts), largest).to(cosines)[label]  # [N]
    held = cosines.scatter_add(1, label[:, None], -own[:, None])
    return F.cross_entropy(scale * held, label, reduction="none")
