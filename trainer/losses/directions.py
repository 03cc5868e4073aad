"""Contrast with classes of directions: each class is a von Mises-Fisher distribution.

A unit vector x of class c has the density C(kappa_c) exp(kappa_c m_c . x): the mean direction m_c,
and a concentration kappa_c that is 0 for uniform directions. `N` rows, `K` classes, `P` numbers of
a vector.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from stylegan_mix.errors import InvalidInput

__all__ = ["LEAST_NUMBERS", "concentration", "expected_scores", "log_series"]

LEAST_NUMBERS = 32
"""The least P that `log_series` is exact enough for."""

# Above it a class is as good as a point.
_MOST = 1e5
# Of 1, u_1(t), u_2(t), ... in Debye's expansion: factor, lowest power of t, integers, divisor.
_DEBYE = (
    (1, (3, -5), 24),
    (2, (81, -462, 385), 1152),
    (3, (30375, -369603, 765765, -425425), 414720),
    (4, (4465125, -94121676, 349922430, -446185740, 185910725), 39813120),
)


def log_series(k: Tensor, numbers: int) -> Tensor:
    """Computes log(I_v(k) / k ** v), v = P / 2 - 1, I the modified Bessel function, as float64.

    Debye's expansion for large v (Abramowitz and Stegun 1964, 9.7.7) up to v ** -4: an error below
    1e-8 from P = 32 on, below 1e-10 at P = 128. k: any shape, at least 0; numbers: P, `InvalidInput`
    below `LEAST_NUMBERS`.
    """
    if numbers < LEAST_NUMBERS:
        raise InvalidInput(f"directions need at least {LEAST_NUMBERS} numbers, got {numbers}")
    order = numbers / 2 - 1
    s = (1 + (k.double() / order).square()).sqrt()
    t = 1 / s
    series = torch.ones_like(s)
    for power, integers, divisor in _DEBYE:
        u = sum(integer * t ** (power + 2 * place) for place, integer in enumerate(integers))
        series = series + u / (divisor * order**power)
    leading = order * (s - torch.log1p(s) - math.log(order))
    return leading - 0.5 * (math.log(2 * math.pi * order) + s.log()) + series.log()


def concentration(length: Tensor, numbers: int) -> Tensor:
    """Computes P R / (1 - R ** 2), at most 1e5: kappa of unit vectors whose mean has length R.

    length: R, any shape, in [0, 1]; numbers: P.
    """
    spread = (1 - length.square()).clamp(min=numbers / _MOST)
    return numbers * length / spread


def expected_scores(vectors: Tensor, means: Tensor, temperature: float = 0.1) -> Tensor:
    """Computes log E exp(x . f / temperature), x of class c, for each row and class, [N, K].

    Du et al. 2024: a contrast with infinitely many samples of every class, log of C~(|kappa_c m_c +
    f / temperature|) / C~(kappa_c), C~(k) = I_v(k) / k ** v (`log_series`). vectors: f, [N, P], of
    any length; means: [K, P], of the unit vectors of each class, 0 for classes not seen so far,
    which count as uniform. The result has the dtype of `vectors`.
    """
    numbers = means.shape[1]
    length = means.double().norm(dim=1).clamp(max=1)  # [K]
    kappa = concentration(length, numbers)
    cosine = F.normalize(vectors.double(), dim=1) @ F.normalize(means.double(), dim=1).T
    inverse = 1 / temperature
    square = kappa**2 + inverse**2 + 2 * kappa * inverse * cosine
    joint = square.clamp(min=torch.finfo(torch.float64).eps).sqrt()
    return (log_series(joint, numbers) - log_series(kappa, numbers)).to(vectors)
