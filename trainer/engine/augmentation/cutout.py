"""Cutout (DeVries & Taylor 2017): a square of each image is hidden."""

from __future__ import annotations

import numpy as np
from torch import Tensor

from trainer.engine.mixing import beside, boxes, within

__all__ = ["cutout"]

# Of a square of half the side, which is 16 pixels of 32 as in the paper's CIFAR-10.
_AREA = 0.25


def cutout(planes: Tensor, draws: np.random.Generator) -> Tensor:
    """Sets one square of each image to 0, the mean of normalised images, in place.

    planes: [N, C, H, W]. Its centre is any pixel, so a square may lie partly outside.
    """
    count, _, height, width = planes.shape
    square = boxes(np.full(count, 1 - _AREA), height, width, draws)
    return planes.masked_fill_(within(beside(planes, square), height, width), 0)
