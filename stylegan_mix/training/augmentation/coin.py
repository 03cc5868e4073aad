"""A coin for each image, thrown on the device, that decides on a transform. N is the batch."""

from __future__ import annotations

import torch
from torch import Tensor

from stylegan_mix.rng import Draws

__all__ = ["sometimes"]


def sometimes(values: Tensor, chance: Tensor, draws: Draws) -> Tensor:
    """Keeps the values [N, ...] of images whose coin of `chance` [N] falls; zeros the others.

    A parameter is written such that zero means no change: an angle, a shift, the logarithm of a
    factor. Values and coins are drawn for every chance, so it changes no later draw.
    """
    happens = draws.uniform(len(values), device=values.device) < chance
    return torch.where(happens.view(-1, *[1] * (values.ndim - 1)), values, 0)
