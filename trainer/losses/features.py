"""Distances between the features of a student and those of its teachers. `N` rows, `D` features."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

__all__ = ["cosine_distance"]


def cosine_distance(student: Tensor, teacher: Tensor) -> Tensor:
    """1 - cos(f_s, f_t) of every row, in [0, 2], [N] (Iscen et al. 2021, section 3).

    student, teacher: [N, D]. The lengths of the features do not matter.
    """
    return 1 - F.cosine_similarity(student, teacher, dim=1)
