"""Mixing of rows within a batch: mixup, CutMix and Remix. Labels are mixed in the loop, by losses.

`N` rows. `lam` is the share of a row itself, 1 - lam that of its partner.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

__all__ = ["boxes", "kept_share", "mix", "paste", "remixed", "shares"]


def shares(alpha: float, count: int, draws: np.random.Generator) -> np.ndarray:
    """lam ~ Beta(alpha, alpha), one for each row: the share of the row itself, [count] float32."""
    return draws.beta(alpha, alpha, count).astype(np.float32)


def mix(images: Tensor, partner: Tensor, lam: Tensor) -> Tensor:
    """lam x_i + (1 - lam) x_partner(i) for each row i (Zhang et al. 2018).

    images: [N, C, H, W] float; partner: [N] int64, rows of the same batch; lam: [N] in [0, 1].
    """
    share = lam[:, None, None, None]
    return share * images + (1 - share) * images[partner]


def boxes(lam: np.ndarray, height: int, width: int, draws: np.random.Generator) -> np.ndarray:
    """Boxes of about (1 - lam) of the image, centred anywhere and cut off at its edges.

    Sides are sqrt(1 - lam) times the image's (Yun et al. 2019, eq. 2), rounded down. lam: [N] in
    [0, 1]. Returns [N, 4] int64: top, bottom, left, right, ends excluded.
    """
    size = np.array([height, width])
    side = (size * np.sqrt(1 - lam.astype(np.float64))[:, None]).astype(np.int64)  # [N, 2]
    first = draws.integers(size, size=side.shape) - side // 2
    ends = np.stack([first, first + side], axis=2).clip(0, size[:, None])
    return ends.reshape(-1, 4)


def kept_share(boxes: np.ndarray, height: int, width: int) -> np.ndarray:
    """The share of each image outside its box, [N] float32: lam of the pasted image's label."""
    top, bottom, left, right = boxes.T
    return (1 - (bottom - top) * (right - left) / (height * width)).astype(np.float32)


def paste(images: Tensor, partner: Tensor, boxes: Tensor) -> Tensor:
    """x_i with the box of x_partner(i) in its place (Yun et al. 2019, eq. 1).

    images: [N, C, H, W]; partner: [N] int64, rows of the same batch; boxes: [N, 4] int64.
    """
    top, bottom, left, right = boxes[:, :, None].unbind(1)  # [N, 1]
    row = torch.arange(images.shape[2], device=images.device)
    column = torch.arange(images.shape[3], device=images.device)
    tall = (top <= row) & (row < bottom)  # [N, H]
    wide = (left <= column) & (column < right)  # [N, W]
    inside = (tall[:, :, None] & wide[:, None, :])[:, None]
    return torch.where(inside, images[partner], images)


def remixed(
    lam: np.ndarray, count: np.ndarray, partner_count: np.ndarray, kappa: float, tau: float
) -> np.ndarray:
    """The share of a mixed row's own label, where a rare class takes all of it (Chou et al. 2020).

    0 where the row's class has at least `kappa` times the partner's images and lam < tau; 1 where
    the partner's has as much more and 1 - lam < tau; else lam. lam: [N] float32; count,
    partner_count: [N], training images of the two classes. Returns [N] float32.
    """
    gives = (count >= kappa * partner_count) & (lam < tau)
    takes = (partner_count >= kappa * count) & (1 - lam < tau)
    return np.where(gives, 0, np.where(takes, 1, lam)).astype(np.float32)
