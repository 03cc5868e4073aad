"""DiffAugment (Zhao et al. 2020): the same differentiable augmentation on reals and fakes.

Every transform is applied to every image. N batch, C channels, H W pixels; images are float,
about [-1, 1]. All draws come from the given `Draws`, one set of numbers per image.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional

from stylegan_mix.rng import Draws

__all__ = ["DIFFAUGMENT"]


def _uniform(images: Tensor, low: float, high: float, draws: Draws) -> Tensor:
    draw = draws.uniform(len(images), 1, 1, 1, device=images.device)
    return (draw * (high - low) + low).to(images.dtype)


def _color(images: Tensor, draws: Draws) -> Tensor:
    """Applies brightness + U(-.5, .5), saturation x U(0, 2), contrast x U(.5, 1.5), in turn."""
    brightness = _uniform(images, -0.5, 0.5, draws)
    saturation = _uniform(images, 0.0, 2.0, draws)
    contrast = _uniform(images, 0.5, 1.5, draws)
    images = images + brightness
    grey = images.mean(dim=1, keepdim=True)
    images = torch.lerp(grey.expand_as(images), images, saturation)
    mean = images.mean(dim=[1, 2, 3], keepdim=True)
    return torch.lerp(mean.expand_as(images), images, contrast)


def _translation(images: Tensor, draws: Draws) -> Tensor:
    """Shifts by up to an eighth of the size along each axis; zeros come in from outside."""
    count, _, height, width = images.shape
    most = max(round(height / 8), 1)
    shift_y, shift_x = (
        draws.integers(-most, most + 1, count, device=images.device) for _ in range(2)
    )
    padded = functional.pad(images, [most] * 4).permute(0, 2, 3, 1)
    rows = torch.arange(height, device=images.device) + most + shift_y[:, None]
    columns = torch.arange(width, device=images.device) + most + shift_x[:, None]
    sample = torch.arange(count, device=images.device)[:, None, None]
    return padded[sample, rows[:, :, None], columns[:, None, :]].permute(0, 3, 1, 2)


def _cutout(images: Tensor, draws: Draws) -> Tensor:
    """Zeroes a square of half the size around a random pixel, clipped at the borders."""
    count, _, height, width = images.shape
    inside = []
    for size in (height, width):
        centre = (draws.uniform(count, device=images.device) * size).floor()[:, None]
        pixels = torch.arange(size, device=images.device)
        inside.append((pixels >= centre - size // 4) & (pixels < centre + size // 4))
    hole = inside[0][:, :, None] & inside[1][:, None, :]
    return images * (~hole)[:, None].to(images.dtype)


DIFFAUGMENT: dict[str, Callable[[Tensor, Draws], Tensor]] = {
    "color": _color,
    "translation": _translation,
    "cutout": _cutout,
}
