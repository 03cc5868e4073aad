"""The label-distribution-aware margin loss, LDAM (Cao et al. 2019).

`N` rows, `K` classes, n_c training images of class c.
"""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

__all__ = ["ldam", "ldam_margins"]


def ldam_margins(counts: Tensor, largest: float) -> Tensor:
    """Computes margins in proportion to n_c ** (-1/4), the greatest `largest`, [K] float64.

    counts: n_c, [K]. Cao et al. 2019, section 3.2; equal counts give `largest` everywhere.
    """
    roots = counts.double() ** -0.25
    return largest * roots / roots.max()


def ldam(cosines: Tensor, label: Tensor, margins: Tensor, scale: float) -> Tensor:
    """Computes -log softmax(scale (cos - m_y e_y))_y, [N] (Cao et al. 2019, section 3.2).

    cosines: [N, K], of features and class weights; label: [N] int64; margins: m, [K]. Only the
    row's own class is reduced, by its own margin.
    """
    own = margins.to(cosines)[label]  # [N]
    held = cosines.scatter_add(1, label[:, None], -own[:, None])
    return F.cross_entropy(scale * held, label, reduction="none")
