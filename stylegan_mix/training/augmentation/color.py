"""Colour: brightness, contrast, flip of luma, hue and saturation in one affine map per image.

All five act about the grey axis, the direction of (1, ..., 1). With g the projection of a colour
on it and r = x - g the rest, they compose to  f c (g + b) + s c R r : brightness adds b, contrast
multiplies by c, the flip of luma turns g round (f = -1), hue turns r about the axis by R,
saturation multiplies r by s. N batch, C channels, H W pixels.

One channel has no r: brightness, contrast and the flip remain. Four channels are colour with alpha,
and alpha does not change. Any other number is taken as colours about their own grey axis. Hue is
then left out, since a turn about an axis by one angle exists in three dimensions only.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from stylegan_mix.rng import Draws
from stylegan_mix.training.augmentation.coin import sometimes

__all__ = ["color", "recolored"]

# Standard deviations: of brightness, of log2 of contrast, of log2 of saturation.
_BRIGHTNESS_STD, _CONTRAST_STD, _SATURATION_STD = 0.2, 0.5, 1.0


def color(images: Tensor, p: Tensor, draws: Draws) -> Tensor:
    """Applies the five transforms of colour, each with probability p (Karras et al. 2020, ADA)."""
    count, device = len(images), images.device
    brightness = sometimes(draws.normal(count, device=device) * _BRIGHTNESS_STD, p, draws)
    contrast = sometimes(draws.normal(count, device=device) * _CONTRAST_STD, p, draws)
    flips = sometimes(draws.integers(0, 2, count, device=device), p, draws)
    hue = sometimes((draws.uniform(count, device=device) * 2 - 1) * math.pi, p, draws)
    saturation = sometimes(draws.normal(count, device=device) * _SATURATION_STD, p, draws)
    return recolored(images, brightness, contrast, flips, hue, saturation)


def recolored(
    images: Tensor,
    brightness: Tensor,
    contrast: Tensor,
    flips: Tensor,
    hue: Tensor,
    saturation: Tensor,
) -> Tensor:
    """Applies the map of the module's text to images [N,C,H,W]; all parameters are [N].

    `contrast` and `saturation` are log2 of the factors, `hue` is in radians, `flips` 0 or 1.
    """
    if images.shape[1] == 4:
        colors, alpha = images[:, :3], images[:, 3:]
        colors = recolored(colors, brightness, contrast, flips, hue, saturation)
        return torch.cat([colors, alpha], dim=1)
    shift, scale, turn, angle, chroma = (
        each.to(images.dtype).view(-1, 1, 1, 1)
        for each in (brightness, contrast.exp2(), 1 - 2 * flips, hue, saturation.exp2())
    )
    grey = images.mean(dim=1, keepdim=True)
    moved_grey = (grey + shift) * (scale * turn)
    if images.shape[1] == 1:
        return moved_grey
    rest = images - grey
    chroma = chroma * scale
    if images.shape[1] != 3:
        return moved_grey + chroma * rest
    # R r = cos r + sin v x r with the unit vector v = (1, 1, 1) / sqrt(3), as r is normal to v.
    across = rest.roll(1, dims=1) - rest.roll(-1, dims=1)
    side = chroma * angle.sin() / math.sqrt(3)
    return moved_grey + chroma * angle.cos() * rest + side * across
