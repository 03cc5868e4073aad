"""The view of contrastive learning: a resized box, a flip, jittered colours, sometimes grey.

SimCLR (Chen et al. 2020, appendix A), with the numbers of the field's code for CIFAR: boxes of a
fifth of the image at least, jitter 0.4, 0.4, 0.4, 0.1, and no blur. `N` rows, `H W` pixels, `C`
channels.
"""

from __future__ import annotations

import math

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from trainer.engine.augmentation.colours import grey

__all__ = ["simclr", "turned"]

# Of a box: its smallest share of the area, and its largest ratio of width to height.
_LEAST_AREA, _MOST_RATIO = 0.2, 4 / 3
_JITTERED, _JITTER, _HUE = 0.8, 0.4, 0.1
_GREY = 0.2


def simclr(images: Tensor, draws: np.random.Generator, *, flip: bool) -> Tensor:
    """Makes the view of each row, [N, H, W, C] float32 in [0, 255].

    images: [N, H, W, C] uint8; flip: True if a mirrored image keeps its label. Of four channels
    the last is alpha, whose values do not change.
    """
    count = len(images)
    boxes = _boxes(count, draws)
    mirrored = (draws.random(count) < 0.5) & flip
    jittered = draws.random(count) < _JITTERED
    factors = np.where(jittered, draws.uniform(1 - _JITTER, 1 + _JITTER, (3, count)), 1)
    hue = np.where(jittered, draws.uniform(-_HUE, _HUE, count), 0)
    to_grey = draws.random(count) < _GREY
    numbers = np.concatenate([factors, hue[None], to_grey[None]]).astype(np.float32)
    shown = _resized(images, boxes, mirrored)
    by = torch.from_numpy(numbers).to(images.device)
    if shown.shape[3] == 4:
        return torch.cat([_jittered(shown[..., :3], by), shown[..., 3:]], 3)
    return _jittered(shown, by)


def _jittered(images: Tensor, by: Tensor) -> Tensor:
    """Changes brightness, contrast, colour and hue, in the order of the paper's listing; greys.

    images: [N, H, W, C] float32; by: [5, N], three factors, the turn of the hue as a share of the
    circle, and 1 for grey. Only three channels have colours: of any other number, brightness and
    contrast change alone.
    """
    bright, contrast, colour, hue, no_colour = by[..., None, None, None]
    shown = (images * bright).clamp(0, 255)
    mean = grey(shown).mean((1, 2, 3), keepdim=True)
    shown = torch.lerp(mean, shown, contrast).clamp(0, 255)
    if shown.shape[3] != 3:
        return shown
    shown = torch.lerp(grey(shown), shown, colour).clamp(0, 255)
    shown = turned(shown, hue[..., 0])
    return torch.lerp(shown, grey(shown), no_colour)


def _boxes(count: int, draws: np.random.Generator) -> np.ndarray:
    """Draws boxes: width, height, and their corner, [4, N] as shares of the sides.

    Area is uniform from a fifth to all, and the logarithm of width by height is uniform from 3/4 to
    4/3. A side longer than the image's is cut to it; published code draws again in its place.
    """
    area = draws.uniform(_LEAST_AREA, 1, count)
    ratio = np.exp(draws.uniform(-math.log(_MOST_RATIO), math.log(_MOST_RATIO), count))
    sides = np.minimum(np.sqrt([area * ratio, area / ratio]), 1)  # [2, N]
    corner = draws.random((2, count)) * (1 - sides)
    return np.concatenate([sides, corner])


def _resized(images: Tensor, boxes: np.ndarray, mirrored: np.ndarray) -> Tensor:
    """Enlarges a box of each image to the size of the image, bilinearly; mirrors it if asked."""
    wide, tall, left, top = boxes
    matrix = np.zeros((len(images), 2, 3))  # to places from -1 to 1, as `F.affine_grid` counts
    matrix[:, 0, 0] = np.where(mirrored, -wide, wide)
    matrix[:, 1, 1] = tall
    matrix[:, 0, 2] = 2 * left + wide - 1
    matrix[:, 1, 2] = 2 * top + tall - 1
    theta = torch.from_numpy(matrix.astype(np.float32)).to(images.device)
    planes = images.permute(0, 3, 1, 2).float()
    grid = F.affine_grid(theta, list(planes.shape), align_corners=False)
    found = F.grid_sample(planes, grid, padding_mode="border", align_corners=False)
    return found.permute(0, 2, 3, 1)


def turned(images: Tensor, by: Tensor) -> Tensor:
    """Turns the hue of colours by a share of the circle, at the same saturation and value (HSV).

    images: [N, H, W, 3] float in [0, 255]; by: [N, 1, 1] in [-1, 1].
    """
    red, green, blue = images.unbind(3)
    value, least = images.amax(3), images.amin(3)
    chroma = value - least
    part = chroma.clamp(min=1e-6)
    hue = torch.where(
        value == red,
        (green - blue) / part,
        torch.where(value == green, (blue - red) / part + 2, (red - green) / part + 4),
    )
    hue = hue + 6 * by  # in sixths of the circle
    channels = []
    for start in (5, 3, 1):  # red, green, blue lie on the circle at these sixths
        along = (hue + start).remainder(6)
        channels.append(value - chroma * torch.minimum(along, 4 - along).clamp(0, 1))
    return torch.stack(channels, 3)
