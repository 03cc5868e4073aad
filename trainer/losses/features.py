"""Distances between features of the same rows, of a student and teachers, or of two views.

`N` rows, `D` features.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

__all__ = ["agreement", "cosine_distance", "side_by_side"]


def cosine_distance(student: Tensor, teacher: Tensor) -> Tensor:
    """Computes 1 - cos(f_s, f_t) of every row, in [0, 2], [N] (Iscen et al. 2021, section 3).

    student, teacher: [N, D]. The lengths of the features do not matter.
    """
    return 1 - F.cosine_similarity(student, teacher, dim=1)


def agreement(projected: tuple[Tensor, Tensor], predicted: tuple[Tensor, Tensor]) -> Tensor:
    """Computes the mean of 1 - cos(u_1, sg h_2) and 1 - cos(u_2, sg h_1), [N].

    Each view predicts the other's projection, which has no gradient (Chen and He 2021, SimSiam).
    projected: h of both views, [N, D]; predicted: u.
    """
    (first, second), (u, v) = projected, predicted
    return (cosine_distance(u, second.detach()) + cosine_distance(v, first.detach())) / 2


def side_by_side(features: Sequence[Tensor]) -> Tensor:
    """Joins unit features of several teachers, [N, D_1 + D_2 + ...]; each has the same weight.

    features: [N, D_i] of teacher i.
    """
    return torch.cat([F.normalize(one, dim=1) for one in features], dim=1)
