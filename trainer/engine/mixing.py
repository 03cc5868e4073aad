"""Mixers of rows within a batch, and the arms of `--aug` that use them.

A mixer decides who is mixed with whom, the images that come of it, and the share of each label;
labels themselves are mixed in the loop, by losses. `N` rows, `K` classes. A mixer is one class
here, and a new name of `--aug` one line of `ARMS`. No torch is needed to read either.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple, Protocol

import numpy as np

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["ARMS", "Arm", "Mixed", "Mixer", "Mixup", "Streams", "beside", "mix", "shares"]

Streams = Callable[[str], np.random.Generator]
"""A random stream by name, keyed by seed, stage and step."""


class Mixed(NamedTuple):
    """planes: [N, C, H, W]; partner: [N] int64, the row that each row is mixed with; lam: [N]
    float32, the share of a row's own *label*, which need not be that of its image."""

    planes: Tensor
    partner: np.ndarray
    lam: np.ndarray


class Mixer(Protocol):
    """A frozen value that mixes normalised images.

    planes: [N, C, H, W] float32, not to be changed; labels: [N] int64; counts: [K] int64, training
    images per class; draws: its random streams.
    """

    def __call__(
        self, planes: Tensor, labels: np.ndarray, counts: np.ndarray, draws: Streams
    ) -> Mixed: ...


@dataclass(frozen=True)
class Mixup:
    """lam x_i + (1 - lam) x_j with lam ~ Beta(alpha, alpha) for each row (Zhang et al. 2018)."""

    alpha: float

    def __call__(
        self, planes: Tensor, labels: np.ndarray, counts: np.ndarray, draws: Streams
    ) -> Mixed:
        partner = draws("mix.perm").permutation(len(labels))
        lam = shares(self.alpha, len(labels), draws("mix.lam"))
        mixed = mix(planes, beside(planes, partner), beside(planes, lam))
        return Mixed(mixed, partner, lam)


def shares(alpha: float, count: int, draws: np.random.Generator) -> np.ndarray:
    """Draws lam ~ Beta(alpha, alpha), one for each row: the share of the row itself, [count]."""
    return draws.beta(alpha, alpha, count).astype(np.float32)


def beside(planes: Tensor, array: np.ndarray) -> Tensor:
    """The array as a tensor on the device of `planes`."""
    import torch

    return torch.from_numpy(array).to(planes.device)


def mix(images: Tensor, partner: Tensor, lam: Tensor) -> Tensor:
    """lam x_i + (1 - lam) x_partner(i) for each row i.

    images: [N, C, H, W] float; partner: [N] int64, rows of the same batch; lam: [N] in [0, 1].
    """
    share = lam[:, None, None, None]
    return share * images + (1 - share) * images[partner]


@dataclass(frozen=True)
class Arm:
    """A way to make batches, by its name in `--aug`.

    mixer: makes the mixer of real rows from `--alpha`, None where they stay unmixed; bank: whether
    a part of each batch comes from a bank.
    """

    mixer: Callable[[float], Mixer] | None = None
    bank: bool = False


ARMS: dict[str, Arm] = {
    "none": Arm(),
    "mixup": Arm(mixer=Mixup),
    "bank": Arm(bank=True),
    "hybrid": Arm(mixer=Mixup, bank=True),
}
"""The arms in the order of a table."""
