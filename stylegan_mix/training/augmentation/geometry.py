"""General geometry: scales, rotations and fractional shifts, resampled through a wavelet.

An image is up-sampled by two with sym6, sampled bilinearly at the inverse map of every output
sample, and down-sampled with the same filter flipped. The filter pair is orthogonal, so no change
gives the image back to rounding. N batch, C channels, H W pixels.

Outside, the image continues mirrored at its border pixels, endlessly. That extension repeats after
2 (W - 1) pixels, so one period of it, up-sampled, holds every sample that any map can ask for. No
margin depends on the draws, nothing is read back from the device, and shapes are fixed. The
published pipe reads the largest overshoot of the batch back, pads by that much, at most by W - 1,
and finds zeros beyond. For 32 pixels a period is 128 x 128 samples. The largest published margin,
always taken, would be 188 x 188: 2.2 times as much to filter.
"""

from __future__ import annotations

import functools
import math
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from kernels import setup_filter, upfirdn2d
from stylegan_mix.rng import Draws
from stylegan_mix.training.augmentation.coin import sometimes

__all__ = ["geometry", "inverse_map", "warped"]

# Standard deviations: of log2 of both scales, and of the shift as a share of the side.
_SCALE_STD, _SHIFT_STD = 0.2, 0.125

# Low-pass filter of the symlet with six vanishing moments (Daubechies 1992).
_SYM6 = (
    0.015404109327027373,
    0.0034907120842174702,
    -0.11799011114819057,
    -0.048311742585633,
    0.4910559419267466,
    0.787641141030194,
    0.3379294217276218,
    -0.07263748278646252,
    -0.021060292512300564,
    0.04472490177066578,
    0.0017677118642428036,
    -0.007800708325034148,
)

# Up-sampled samples that down-sampling needs before the first output pixel and after the last:
# 5 and 6 of the 12 taps lie to either side.
_BEFORE, _AFTER = 5, 4
_LEAST_SIZE = 5


def geometry(images: Tensor, p: Tensor, draws: Draws) -> Tensor:
    """Scales, turns, stretches, turns, shifts, each by its own chance (Karras et al. 2020, ADA).

    Each of the two turns has the chance 1 - sqrt(1 - p), so that p is the chance of any.
    """
    (count, _, height, width), device = images.shape, images.device
    either = 1 - (1 - p).clamp(min=0).sqrt()
    scale = sometimes(draws.normal(count, device=device) * _SCALE_STD, p, draws)
    before = sometimes((draws.uniform(count, device=device) * 2 - 1) * math.pi, either, draws)
    stretch = sometimes(draws.normal(count, device=device) * _SCALE_STD, p, draws)
    after = sometimes((draws.uniform(count, device=device) * 2 - 1) * math.pi, either, draws)
    shift = sometimes(draws.normal(count, 2, device=device) * _SHIFT_STD, p, draws)
    matrix = inverse_map(scale, before, stretch, after)
    return warped(images, matrix, torch.stack([shift[:, 0] * width, shift[:, 1] * height], dim=1))


def inverse_map(scale: Tensor, before: Tensor, stretch: Tensor, after: Tensor) -> Tensor:
    """Computes S^-1 R(before)^-1 A^-1 R(after)^-1 of the ADA pipe: four [N] -> [N,2,2] on (x, y).

    An image is scaled by 2**scale, turned by `before` radians, stretched by 2**stretch along x and
    by the inverse of that along y, and turned by `after`. The result maps output positions back to
    input positions.
    """
    cos_1, sin_1, cos_2, sin_2 = before.cos(), before.sin(), after.cos(), after.sin()
    along_x, along_y = (-scale - stretch).exp2(), (-scale + stretch).exp2()
    rows = (
        cos_1 * along_x * cos_2 - sin_1 * along_y * sin_2,
        cos_1 * along_x * sin_2 + sin_1 * along_y * cos_2,
        -sin_1 * along_x * cos_2 - cos_1 * along_y * sin_2,
        -sin_1 * along_x * sin_2 + cos_1 * along_y * cos_2,
    )
    return torch.stack(rows, dim=1).view(-1, 2, 2)


def warped(images: Tensor, matrix: Tensor, shift: Tensor) -> Tensor:
    """Warps images: each output pixel x (from the centre) is taken from matrix @ (x - shift).

    images [N,C,H,W], at least 5 pixels a side; matrix [N,2,2] and shift [N,2] in pixels, both on
    (x, y) and without gradient. An identity gives the images back to 1e-6 if both sizes are powers
    of two, and to 1e-5 otherwise: grid_sample takes positions as fractions of the size, which are
    rounded then.
    """
    height, width = images.shape[2:]
    if min(height, width) < _LEAST_SIZE:
        raise ValueError(f"warped: images must have 5 pixels a side, got {height} x {width}")
    taps = _sym6(images.device)
    planes = upfirdn2d(_period(images), taps, up=2, padding=(0, -1, 0, -1), gain=4)
    grid = _grid(matrix.to(images.dtype), shift.to(images.dtype), height, width)
    return upfirdn2d(_Bilinear.apply(planes, grid, None), taps, down=2, flip_filter=True)


def _period(images: Tensor) -> Tensor:
    """Extends the image to pixels -3 to 2 size + 2, mirrored, along both axes: [N,C,2H+6,2W+6].

    These give the up-sampled samples 0 to 4 size - 1: a period, and the start of the next one.
    """
    for axis in (2, 3):
        size = images.shape[axis]
        pieces = (
            images.narrow(axis, 1, 3).flip(axis),
            images,
            images.narrow(axis, 1, size - 2).flip(axis),
            images.narrow(axis, 0, _LEAST_SIZE),
        )
        images = torch.cat(pieces, dim=axis)
    return images


def _grid(matrix: Tensor, shift: Tensor, height: int, width: int) -> Tensor:
    """Computes the source of every up-sampled output sample, for grid_sample: [N,H',W',2]."""
    # In up-sampled samples from the centre: sample j lies at pixel j / 2 - 1 / 4.
    x, y = (
        torch.arange(-_BEFORE, 2 * size + 1 + _AFTER, device=matrix.device, dtype=matrix.dtype)
        - (size - 0.5)
        for size in (width, height)
    )
    x, y = x - 2 * shift[:, :1], y - 2 * shift[:, 1:]
    sources = []
    for row, size in enumerate((width, height)):
        along_x, along_y = matrix[:, row, :1] * x, matrix[:, row, 1:] * y
        sample = along_x[:, None, :] + (along_y + (size - 0.5))[:, :, None]
        period, plane = 4 * (size - 1), 4 * size
        sample = sample - period * (sample * (1 / period)).floor()
        sources.append(sample * (2 / plane) + (1 / plane - 1))
    # x and y each contiguous: grid_sample reads them faster than as pairs.
    return torch.stack(sources, dim=1).permute(0, 2, 3, 1)


@functools.cache
def _sym6(device: torch.device) -> Tensor:
    """Returns the filter on `device`. Cached, because copying it would wait for the device."""
    return setup_filter(_SYM6).to(device)


class _Bilinear(torch.autograd.Function):
    """Bilinear samples of planes, or its transpose; PyTorch 2.11's own differentiates only once.

    Both are linear, and each is the derivative of the other. On CUDA the transpose adds up in any
    order, so its last bits are not repeatable.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, grid: Tensor, spread_to: tuple[int, int] | None) -> Tensor:
        """Samples planes [N,C,H,W] at the grid; or spreads samples to planes of `spread_to`."""
        ctx.save_for_backward(grid)
        ctx.spread_to = tuple(x.shape[2:]) if spread_to is None else None
        if spread_to is None:
            return functional.grid_sample(x, grid, align_corners=False)
        # The operator asks for the planes, but only their shape matters to this derivative.
        planes = x.new_zeros(()).expand(*x.shape[:2], *spread_to)
        bilinear, zeros, corners = 0, 0, False
        return torch.ops.aten.grid_sampler_2d_backward(
            x.contiguous(), planes, grid, bilinear, zeros, corners, [True, False]
        )[0]

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        (grid,) = ctx.saved_tensors
        return _Bilinear.apply(gradient, grid, ctx.spread_to), None, None
