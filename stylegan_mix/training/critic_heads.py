"""The discriminator's judgement of a batch: the logits of every head, each with its weight.

Both players play the same sum of games, `Verdict.loss`, for every kind of network: plain ones, UTLO
(Khorram et al. 2024), transitional conditioning (Shahbazi et al. 2022), a head on frozen features.
N is the batch, R the resolution, r the low resolution of UTLO.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor

from stylegan_mix.networks import Discriminator
from stylegan_mix.rng import Draws

__all__ = ["Verdict", "judge", "judged_logits"]


@dataclass(frozen=True, eq=False)
class Verdict:
    """Weighted heads: `terms` are weight and logits [N] of each; `judged` [N] are one head's.

    R1, LeCam and the sign of overfitting use the judged logits.
    """

    terms: tuple[tuple[float | Tensor, Tensor], ...]
    judged: Tensor

    def loss(self, of: Callable[[Tensor], Tensor]) -> Tensor:
        """Computes the weighted sum over heads of a loss [N] of logits [N] -> [N]."""
        (weight, logits), *more = self.terms
        total = weight * of(logits)
        for weight, logits in more:
            total = total + weight * of(logits)
        return total


def judge(
    discriminator: Discriminator,
    images: Tensor,
    label: Tensor | None,
    *,
    low: Tensor | None = None,
    utlo_weight: float = 1.0,
    probe_weight: float = 0.0,
    transition: float | Tensor = 1.0,
    draws: Draws = Draws(),
) -> Verdict:
    """Judges images [N,C,R,R], and `low` [N,C,r,r] if the discriminator has UTLO.

    With a = `utlo_weight`, b = `probe_weight` and lambda = `transition` the terms are

    * plain: the logit, with weight 1;
    * UTLO: 1 / (1 + a) conditional + a / (1 + a) low, the conditional one judged;
    * transitional: unconditional + lambda conditional, the unconditional one judged;
    * with a feature head: 1 / (1 + b) the logit + b / (1 + b) that of the features, the former
      judged.

    `draws` gives the discriminator's label noise.
    """
    if (low is not None) != bool(discriminator.utlo_resolution):
        has = f"with utlo_resolution {discriminator.utlo_resolution}"
        came = "none" if low is None else f"{list(low.shape)}"
        raise ValueError(f"a discriminator {has} was given low-resolution images {came}")
    if discriminator.transitional:
        free, conditional = discriminator.both(images, label, draws=draws)
        return Verdict(((1.0, free), (transition, conditional)), free)
    logits = discriminator(images, label, draws=draws)
    if low is not None:
        return _two(utlo_weight, logits, discriminator.low(low))
    if discriminator.feature_head is not None:
        return _two(probe_weight, logits, discriminator.feature_head(images, label))
    return Verdict(((1.0, logits),), logits)


def _two(weight: float, logits: Tensor, more: Tensor) -> Verdict:
    """Weighs two heads by 1 and `weight`, over their sum; the first is judged."""
    return Verdict(((1 / (1 + weight), logits), (weight / (1 + weight), more)), logits)


def judged_logits(
    discriminator: Discriminator, images: Tensor, label: Tensor | None, *, draws: Draws = Draws()
) -> Tensor:
    """Computes the `judged` logits alone, for R1 -> [N]; they need no low-resolution images."""
    if discriminator.transitional:
        return discriminator.both(images, label, draws=draws)[0]
    return discriminator(images, label, draws=draws)
