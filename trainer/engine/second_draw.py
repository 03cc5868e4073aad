"""Mixers of each row of a batch with one of a second draw, in which classes are even.

Such a partner is no row of the batch, and has no loss of its own. `N` rows. No torch is needed to
read a mixer.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple, Protocol

import numpy as np

from trainer.engine.mixing import Streams, beside, blend, boxes, kept_share, overlay, shares

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["BalancedMixup", "ContextMix", "Joined", "Joiner"]


class Joined(NamedTuple):
    """Mixed images: planes [N, C, H, W]; lam [N] float32, the share of each row's own label."""

    planes: Tensor
    lam: np.ndarray


class Joiner(Protocol):
    """A frozen value that mixes normalised images with those of a second draw.

    planes: [N, C, H, W] float32, not to be changed; others: the same, the partner of each row;
    draws: its random streams.
    """

    def __call__(self, planes: Tensor, others: Tensor, draws: Streams) -> Joined: ...


@dataclass(frozen=True)
class ContextMix:
    """CMO: images of rare classes pasted onto others, as by CutMix (Park et al. 2022).

    The share `often` of the rows gets a box of its partner, a row of the second draw. The label has
    the share of area outside the box. Published code mixes every second batch on average, with one
    box a batch; here every row is decided alone and has its own box. It also leaves the first and
    the last three epochs unmixed; here only the end is, by `--final-real-fraction`.
    """

    alpha: float
    often: float = 0.5

    def __call__(self, planes: Tensor, others: Tensor, draws: Streams) -> Joined:
        height, width = planes.shape[2:]
        drawn = shares(self.alpha, len(planes), draws("mix.lam"))
        mixed = draws("mix.often").random(len(planes)) < self.often
        lam = np.where(mixed, drawn, np.float32(1))
        cut = boxes(lam, height, width, draws("mix.box"))
        shown = overlay(planes, others, beside(planes, cut))
        return Joined(shown, kept_share(cut, height, width))


@dataclass(frozen=True)
class BalancedMixup:
    """Mixup of two independent draws with even classes (Zhang et al. 2022, LOB-mixup).

    Label-occurrence-balanced mixup: every class has the same share of all labels. The arm draws the
    first row of a pair evenly, too.
    """

    alpha: float

    def __call__(self, planes: Tensor, others: Tensor, draws: Streams) -> Joined:
        lam = shares(self.alpha, len(planes), draws("mix.lam"))
        return Joined(blend(planes, others, beside(planes, lam)), lam)
