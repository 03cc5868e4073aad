"""Image filtering: the four octave bands of an image made weaker or stronger.

The bands come from the half-band filters of sym2. With h its low-pass filter, H0 = h(z) h(1/z) / 2
and H1 = H0(-z) sum to one, so a tree of them does as well: H1(z), H0(z) H1(z^2),
H0(z) H0(z^2) H1(z^4) and H0(z) H0(z^2) H0(z^4), symmetric and 43 taps long. N batch, C channels,
H W pixels, B bands, T taps.
"""

from __future__ import annotations

import functools

import numpy as np
import torch
from torch import Tensor

from stylegan_mix.rng import Draws
from stylegan_mix.training.augmentation.coin import sometimes

__all__ = ["band_gains", "band_taps", "octave_filter"]

# Low-pass filter of the symlet with two vanishing moments (Daubechies 1992).
_SYM2 = (-0.12940952255092145, 0.22414386804185735, 0.836516303737469, 0.48296291314469025)

# Expected power of natural images in each band, the lowest first; sums to one.
_POWER = (10 / 13, 1 / 13, 1 / 13, 1 / 13)


def octave_filter(images: Tensor, p: Tensor, draws: Draws) -> Tensor:
    """Multiplies each band by 2**N(0, 1), with probability p (Karras et al. 2020, ADA).

    images [N,C,H,W]. Along an axis, a filter with mirrored borders is a matrix. The matrices of the
    bands, summed by their gains, filter an image by two small matrix products. These differentiate
    to any order and have no borders to cut. TensorFloat-32, if switched on, sets their precision.
    """
    exponents = [
        sometimes(draws.normal(len(images), device=images.device), p, draws) for _ in _POWER
    ]
    gains = band_gains(torch.stack(exponents, dim=1).to(images.dtype))
    height, width = images.shape[2:]
    rows = torch.einsum("nb,bij->nij", gains, _matrices(height, images.dtype, images.device))
    columns = torch.einsum("nb,bij->nij", gains, _matrices(width, images.dtype, images.device))
    return rows[:, None] @ images @ columns.mT[:, None]


def band_gains(exponents: Tensor) -> Tensor:
    """Turns log2 of one factor a band [N,B] into gains [N,B] that keep the expected power.

    The factors are applied one band after the other. After each, all gains are divided by the root
    of the power of a natural image.
    """
    gains = torch.ones_like(exponents)
    for band, power in enumerate(_POWER):
        factor = exponents[:, band, None].exp2()
        root = (1 + power * (factor.square() - 1)).sqrt()
        here = torch.arange(len(_POWER), device=gains.device) == band
        gains = gains * torch.where(here, factor, 1) / root
    return gains


def band_taps() -> np.ndarray:
    """Computes the filters of the four bands, the lowest first, centred: float64 [B,T]."""
    taps = np.array(_SYM2)
    low = np.convolve(taps, taps[::-1]) / 2
    high = low * (-1.0) ** np.arange(-3, 4)
    below = np.ones(1)
    bands: list[np.ndarray] = []
    for octave in range(len(_POWER) - 1):
        bands.insert(0, np.convolve(below, _spread(high, 2**octave)))
        below = np.convolve(below, _spread(low, 2**octave))
    bands.insert(0, below)
    widest = len(below)
    return np.stack([np.pad(band, (widest - len(band)) // 2) for band in bands])


def _spread(taps: np.ndarray, step: int) -> np.ndarray:
    """Replaces z by z**step in the filter: zeros between its taps."""
    spread = np.zeros((len(taps) - 1) * step + 1)
    spread[::step] = taps
    return spread


@functools.cache
def _matrices(size: int, dtype: torch.dtype, device: torch.device) -> Tensor:
    """Computes the bands along an axis of `size` mirrored pixels: [B,size,size], from the right.

    Cached, because copying them to the device would wait for it.
    """
    taps = band_taps()
    reach = taps.shape[1] // 2
    period = max(2 * (size - 1), 1)
    pixels = np.arange(size)
    matrices = np.zeros((len(taps), size, size))
    for tap in range(-reach, reach + 1):
        source = (pixels + tap) % period
        source = np.minimum(source, period - source)
        matrices[:, pixels, source] += taps[:, tap + reach, None]
    return torch.from_numpy(matrices).to(device=device, dtype=dtype)
