"""Stochastic discriminator augmentation (Karras et al. 2020, StyleGAN2-ADA), by families.

Every transform is applied to an image with the probability p of that image. Shapes never depend on
the draws, and nothing is read back from the device. N batch, C channels, H W pixels; images are
float32 or float64, about [-1, 1].
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from stylegan_mix.rng import Draws
from stylegan_mix.training.augmentation.blit import blit
from stylegan_mix.training.augmentation.coin import sometimes
from stylegan_mix.training.augmentation.color import color
from stylegan_mix.training.augmentation.geometry import geometry
from stylegan_mix.training.augmentation.octaves import octave_filter

__all__ = ["ADA"]

# Standard deviation of the standard deviation of the noise; side of the hole.
_NOISE_STD = 0.1
_CUTOUT_SHARE = 0.5


def noise(images: Tensor, p: Tensor, draws: Draws) -> Tensor:
    """Adds Gaussian noise of standard deviation |N(0, .1^2)|, one per image."""
    level = draws.normal(len(images), device=images.device).abs() * _NOISE_STD
    level = sometimes(level, p, draws).to(images.dtype)
    added = draws.normal(*images.shape, device=images.device).to(images.dtype)
    return images + added * level[:, None, None, None]


def cutout(images: Tensor, p: Tensor, draws: Draws) -> Tensor:
    """Zeroes a box of half of either side around a uniform centre, clipped at the borders."""
    count, _, height, width = images.shape
    centre = draws.uniform(count, 2, device=images.device)
    share = torch.full((count,), _CUTOUT_SHARE, device=images.device)
    reach = sometimes(share, p, draws)[:, None] / 2
    inside = []
    for axis, size in enumerate((width, height)):
        pixels = (torch.arange(size, device=images.device) + 0.5) / size
        inside.append((pixels - centre[:, axis, None]).abs() < reach)
    hole = inside[1][:, :, None] & inside[0][:, None, :]
    return images * (~hole)[:, None].to(images.dtype)


ADA: dict[str, Callable[[Tensor, Tensor, Draws], Tensor]] = {
    "blit": blit,
    "geometry": geometry,
    "color": color,
    "filter": octave_filter,
    "noise": noise,
    "cutout": cutout,
}
