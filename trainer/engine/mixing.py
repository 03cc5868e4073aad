"""Mixup of rows within a batch (Zhang et al. 2018). Labels are mixed in the loop, by losses."""

from __future__ import annotations

import numpy as np
from torch import Tensor

__all__ = ["mix", "shares"]


def shares(alpha: float, count: int, draws: np.random.Generator) -> np.ndarray:
    """lam ~ Beta(alpha, alpha), one for each row: the share of the row itself, [count] float32."""
    return draws.beta(alpha, alpha, count).astype(np.float32)


def mix(images: Tensor, partner: Tensor, lam: Tensor) -> Tensor:
    """lam x_i + (1 - lam) x_partner(i) for each row i.

    images: [N, C, H, W] float; partner: [N] int64, rows of the same batch; lam: [N] in [0, 1].
    """
    share = lam[:, None, None, None]
    return share * images + (1 - share) * images[partner]
