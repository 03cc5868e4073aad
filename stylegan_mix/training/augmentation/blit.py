"""Pixel blitting: flips, quarter turns and whole shifts of images, as one gather.

N batch, C channels, H W pixels. Nothing is resampled: every pixel of the result is a pixel of the
image. Beyond its border the image continues mirrored at its border pixels, endlessly.
"""

from __future__ import annotations

import torch
from torch import Tensor

from stylegan_mix.rng import Draws
from stylegan_mix.training.augmentation.coin import sometimes

__all__ = ["blit", "moved"]

# The largest shift, as a share of the side.
_MOST_SHIFT = 0.125


def blit(images: Tensor, p: Tensor, draws: Draws) -> Tensor:
    """Flips, turns by quarters and shifts, each with probability p (Karras et al. 2020, ADA).

    The flip is drawn from {no, yes} and the number of turns from 0 to 3, so an image is really
    flipped with probability p / 2. The shift is uniform up to an eighth of either side.
    """
    (count, _, height, width), device = images.shape, images.device
    flips = sometimes(draws.integers(0, 2, count, device=device), p, draws)
    turns = sometimes(draws.integers(0, 4, count, device=device), p, draws)
    share = (draws.uniform(count, 2, device=device) * 2 - 1) * _MOST_SHIFT
    share = sometimes(share, p, draws)
    shift_x, shift_y = (share[:, 0] * width).round().long(), (share[:, 1] * height).round().long()
    return moved(images, flips, turns, shift_x, shift_y)


def moved(images: Tensor, flips: Tensor, turns: Tensor, shift_x: Tensor, shift_y: Tensor) -> Tensor:
    """Mirrors left-right where `flips`, turns counter-clockwise, then shifts right and down.

    All int64 [N]; images [N,C,H,W]. Turns are about the centre. A quarter turn of an image that is
    not square shows its middle with mirrored pixels beside it. If one side is even and the other
    odd, it is rounded by half a pixel.
    """
    count, channels, height, width = images.shape
    flips, turns, shift_x, shift_y = (
        each.view(-1, 1, 1) for each in (flips, turns, shift_x, shift_y)
    )
    cosine = (turns == 0).long() - (turns == 2).long()
    sine = (turns == 1).long() - (turns == 3).long()
    # Twice the distance from the centre, to stay in whole numbers for even sizes.
    x = 2 * (torch.arange(width, device=images.device) - shift_x) - (width - 1)
    y = 2 * (torch.arange(height, device=images.device)[:, None] - shift_y) - (height - 1)
    from_x = (cosine * x - sine * y) * (1 - 2 * flips)
    from_y = sine * x + cosine * y
    column = _mirrored((from_x + width - 1) >> 1, width)
    row = _mirrored((from_y + height - 1) >> 1, height)
    index = (row * width + column).view(count, 1, -1).expand(-1, channels, -1)
    return images.flatten(2).gather(2, index).view_as(images)


def _mirrored(index: Tensor, size: int) -> Tensor:
    """Maps any whole index into 0..size-1 by mirroring at the border pixels."""
    period = max(2 * (size - 1), 1)
    index = index.remainder(period)
    return torch.minimum(index, period - index)
