"""Logits adjusted in Gaussian form: clouds around the logits of rare classes (GCL).

Li et al. 2022 (cosines) and Li et al. 2024, "Adjusting Logit in Gaussian Form" (cosines and
angles). `N` rows, `K` classes. The logits are scale times the cosines of features and class
weights; the raw ones predict. The sizes of the clouds and the order of operations are those of the
published code, as the text was not at hand.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from stylegan_mix.rng import Draws
from trainer.losses.counts import Counts, counts_for, rarity
from trainer.losses.labels import cross_entropy, missed

__all__ = ["clouds", "gcl", "gcl_angular"]

# Cosines nearer to 1 than this have no angle whose gradient is of any use.
_NEAREST = 1e-6


def clouds(draws: Draws, like: Tensor) -> Tensor:
    """Draws min(|x|, 1), x ~ N(0, 1/9), for each row and class; no gradient, shaped as `like`.

    The cloud pulls every class away from the row, so only the size of x counts.
    """
    rows, classes = like.shape
    return (draws.normal(rows, classes, device=like.device).abs() / 3).clamp(max=1).to(like)


def gcl(
    logits: Tensor,
    label: Tensor,
    counts: Counts,
    *,
    size: float = 0.5,
    margin: float = 0.0,
    scale: float = 30.0,
    gamma: float = 0.0,
    draws: Draws = Draws(),
) -> Tensor:
    """Computes -(1 - p_y) ** gamma log p_y, p = softmax(scale (cos - size d u - margin e_y)), [N].

    d: the `rarity` of each class; u: fresh `clouds`. Every class is perturbed, not only y. The
    factor of `gamma` has no gradient. logits: scale cos, [N, K]; label: y, [N] int64; counts: [K];
    draws: the source of the clouds. Equal counts without margin and gamma are cross-entropy.
    """
    cosines = logits / scale
    rare = rarity(counts_for(logits, counts)).to(cosines)  # [K]
    moved = cosines - size * rare * clouds(draws, cosines)
    return _focused(scale * _raised(moved, label, -margin), label, gamma)


def gcl_angular(
    logits: Tensor,
    label: Tensor,
    counts: Counts,
    *,
    size: float = 0.1,
    margin: float = 0.0,
    scale: float = 30.0,
    gamma: float = 0.0,
    draws: Draws = Draws(),
) -> Tensor:
    """Computes -(1 - p_y) ** gamma log p_y, p = softmax(scale cos(t + a)), t the angles, [N].

    a_c = pi / 2 size d_c u_c, and a_y has `margin` (radians) more; d, u, gamma and the arguments
    are those of `gcl`. Where t + a would exceed pi, cos - sin(a) takes its place, which goes on
    falling with a.

    The published class has a margin of 0.5 as its default. So has the one of `gcl`, whose training
    command sets 0; no published command trains with angles. Here 0 is the default of both: on a
    mixed row, a margin of 0.5 asks each of its two classes to be far ahead of the other.
    """
    cosines = (logits / scale).clamp(-1 + _NEAREST, 1 - _NEAREST)
    rare = rarity(counts_for(logits, counts)).to(cosines)  # [K]
    added = _raised(math.pi / 2 * size * rare * clouds(draws, cosines), label, margin)
    turned = cosines * added.cos() - (1 - cosines**2).sqrt() * added.sin()
    beyond = cosines <= -added.cos()
    return _focused(scale * torch.where(beyond, cosines - added.sin(), turned), label, gamma)


def _raised(values: Tensor, label: Tensor, amount: float) -> Tensor:
    """Adds `amount` to the value of each row's own class, [N, K]."""
    own = torch.full((len(label), 1), amount, dtype=values.dtype, device=values.device)
    return values.scatter_add(1, label[:, None], own)


def _focused(logits: Tensor, label: Tensor, gamma: float) -> Tensor:
    """Computes cross-entropy times (1 - p_y) ** gamma, which has no gradient, [N]."""
    plain = cross_entropy(logits, label)
    return missed(plain).detach() ** gamma * plain
