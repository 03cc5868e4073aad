"""Shears, translations and rotations of a batch, with a value for each row.

`N` rows, `H W` pixels, `C` channels. Each is an affine map from the pixels of the result to those
of the image, of which the nearest is taken. Pixels from outside have the colour `fill`.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from trainer.engine.augmentation.operations import NAMES, Slot

__all__ = ["inverse", "moves", "taken", "warped"]

_MOVES = ("shear-x", "shear-y", "translate-x", "translate-y", "rotate")
_NUMBERS = np.array([NAMES.index(name) for name in _MOVES])


def moves(operation: np.ndarray) -> np.ndarray:
    """Tells which rows have an operation of this module, [N] bool."""
    return np.isin(operation, _NUMBERS)


def inverse(slot: Slot, height: int, width: int) -> np.ndarray:
    """Makes the map from places of the result to those of the image, [N, 2, 3] float32.

    A place is (across, down, 1), in pixels from the upper left corner of the image; pixel 0 has its
    centre at 0.5. A shear keeps the first row or column. A rotation is counter-clockwise about the
    centre. The identity for rows of other operations.
    """
    count = len(slot.operation)
    matrix = np.tile(np.eye(2, 3), (count, 1, 1))
    of = {name: slot.operation == NAMES.index(name) for name in _MOVES}
    value = slot.value.astype(np.float64)
    matrix[:, 0, 1] += np.where(of["shear-x"], value, 0)
    matrix[:, 1, 0] += np.where(of["shear-y"], value, 0)
    matrix[:, 0, 2] += np.where(of["translate-x"], value * width, 0)
    matrix[:, 1, 2] += np.where(of["translate-y"], value * height, 0)
    turn = of["rotate"]
    angle = np.radians(value[turn])
    matrix[turn, 0, 0] = matrix[turn, 1, 1] = np.cos(angle)
    matrix[turn, 1, 0] = np.sin(angle)
    matrix[turn, 0, 1] = -np.sin(angle)
    centre = np.array([width / 2, height / 2])
    matrix[turn, :, 2] = centre - matrix[turn, :, :2] @ centre
    return matrix.astype(np.float32)


def warped(images: Tensor, matrix: Tensor, fill: Tensor) -> Tensor:
    """Takes each pixel from where its matrix points.

    images: [N, H, W, C] uint8; matrix: [N, 2, 3] float32, see `inverse`; fill: [C] uint8.
    """
    _, height, width, _ = images.shape
    device = images.device
    across = torch.arange(width, device=device) + 0.5
    down = torch.arange(height, device=device)[:, None] + 0.5
    to_x, to_y = (part[:, :, None, None] for part in matrix.unbind(1))  # [N, 3, 1, 1]
    column = (to_x[:, 0] * across + to_x[:, 1] * down + to_x[:, 2]).floor().long()  # [N, H, W]
    row = (to_y[:, 0] * across + to_y[:, 1] * down + to_y[:, 2]).floor().long()
    inside = (column >= 0) & (column < width) & (row >= 0) & (row < height)
    pixels = taken(images, row.clamp(0, height - 1), column.clamp(0, width - 1))
    return torch.where(inside[..., None], pixels, fill)


def taken(images: Tensor, row: Tensor, column: Tensor) -> Tensor:
    """Takes pixels [N, h, w, C] of each image [N, H, W, C]; row, column: [N, h, w], or as wide.

    One index for each pixel takes its channels together, which is faster than one for each value.
    """
    count, height, width, channels = images.shape
    first = torch.arange(count, device=images.device)[:, None, None] * (height * width)
    place = first + row * width + column
    pixels = images.reshape(-1, channels).index_select(0, place.flatten())
    return pixels.view(*place.shape, channels)
