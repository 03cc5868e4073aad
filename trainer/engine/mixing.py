"""Mixers of rows within a batch.

A mixer chooses partners, mixes images, and sets the share of each label. Labels themselves are
mixed in the loop, by losses. `N` rows, `K` classes. No torch is needed to read a mixer.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple, Protocol

import numpy as np

if TYPE_CHECKING:
    from torch import Tensor

__all__ = [
    "CutMix",
    "Mixed",
    "Mixer",
    "Mixup",
    "Remix",
    "Streams",
    "UniMix",
    "beside",
    "blend",
    "boxes",
    "by_rarity",
    "kept_share",
    "mix",
    "overlay",
    "paste",
    "remixed",
    "shares",
    "toward_the_rarer",
    "within",
]

Streams = Callable[[str], np.random.Generator]
"""A random stream by name, keyed by seed, stage and step."""


class Mixed(NamedTuple):
    """Mixed images: planes [N, C, H, W]; partner [N] int64, the row mixed with each row.

    lam: [N] float32, the share of a row's own *label*, which need not be that of its image.
    """

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
    """Mixup, lam x_i + (1 - lam) x_j, lam ~ Beta(alpha, alpha) for each row (Zhang et al. 2018)."""

    alpha: float

    def __call__(
        self, planes: Tensor, labels: np.ndarray, counts: np.ndarray, draws: Streams
    ) -> Mixed:
        partner = draws("mix.perm").permutation(len(labels))
        lam = shares(self.alpha, len(labels), draws("mix.lam"))
        mixed = mix(planes, beside(planes, partner), beside(planes, lam))
        return Mixed(mixed, partner, lam)


@dataclass(frozen=True)
class CutMix:
    """CutMix: a box shows the partner; the label has the share of area (Yun et al. 2019).

    The box has about the share 1 - lam, lam ~ Beta(alpha, alpha), for each row. Published code
    mixes every second batch of small images, with one box a batch; here every row has its own.
    """

    alpha: float

    def __call__(
        self, planes: Tensor, labels: np.ndarray, counts: np.ndarray, draws: Streams
    ) -> Mixed:
        partner = draws("mix.perm").permutation(len(labels))
        height, width = planes.shape[2:]
        lam = shares(self.alpha, len(labels), draws("mix.lam"))
        cut = boxes(lam, height, width, draws("mix.box"))
        mixed = paste(planes, beside(planes, partner), beside(planes, cut))
        return Mixed(mixed, partner, kept_share(cut, height, width))


@dataclass(frozen=True)
class Remix:
    """Mixup whose label goes to the much rarer class (Chou et al. 2020, section 3.3).

    Images are mixed as by `Mixup`, labels by `remixed`. Classes are unequal from `kappa` times the
    images on, and shares below `tau` are given away.
    """

    alpha: float
    kappa: float = 3.0
    tau: float = 0.5

    def __call__(
        self, planes: Tensor, labels: np.ndarray, counts: np.ndarray, draws: Streams
    ) -> Mixed:
        mixed = Mixup(self.alpha)(planes, labels, counts, draws)
        own, other = counts[labels], counts[labels[mixed.partner]]
        return mixed._replace(lam=remixed(mixed.lam, own, other, self.kappa, self.tau))


@dataclass(frozen=True)
class UniMix:
    """Mixup whose partners and shares favour rare classes (Xu et al. 2021, UniMix).

    Partners are drawn `by_rarity` at `tau`, and shares lean `toward_the_rarer` class of a pair.
    At alpha = 1 shares are uniform, and the lean changes nothing: the published value is 0.8.
    tau = -0.5 is that of the published code for CIFAR-10-LT at imbalance 100. Image and label have
    the same share. The loss of the paper (Bayias) is the balanced softmax up to a constant.
    """

    alpha: float
    tau: float = -0.5

    def __call__(
        self, planes: Tensor, labels: np.ndarray, counts: np.ndarray, draws: Streams
    ) -> Mixed:
        partner = by_rarity(counts[labels], self.tau, draws("mix.partner"))
        drawn = shares(self.alpha, len(labels), draws("mix.lam"))
        lam = toward_the_rarer(drawn, counts[labels], counts[labels[partner]])
        mixed = mix(planes, beside(planes, partner), beside(planes, lam))
        return Mixed(mixed, partner, lam)


def shares(alpha: float, count: int, draws: np.random.Generator) -> np.ndarray:
    """Draws lam ~ Beta(alpha, alpha), the share of each row itself, [count]."""
    return draws.beta(alpha, alpha, count).astype(np.float32)


def beside(planes: Tensor, array: np.ndarray) -> Tensor:
    """Copies the array to the device of `planes` as a tensor."""
    import torch

    return torch.from_numpy(array).to(planes.device)


def mix(images: Tensor, partner: Tensor, lam: Tensor) -> Tensor:
    """Computes lam x_i + (1 - lam) x_partner(i) for each row i.

    images: [N, C, H, W] float; partner: [N] int64, rows of the same batch; lam: [N] in [0, 1].
    """
    return blend(images, images[partner], lam)


def blend(images: Tensor, others: Tensor, lam: Tensor) -> Tensor:
    """Computes lam x + (1 - lam) x' for each x of `images` and x' of `others`, [N, C, H, W]."""
    share = lam[:, None, None, None]
    return share * images + (1 - share) * others


def boxes(lam: np.ndarray, height: int, width: int, draws: np.random.Generator) -> np.ndarray:
    """Draws boxes of about (1 - lam) of the image, centred anywhere and cut off at its edges.

    Sides are sqrt(1 - lam) times the image's (Yun et al. 2019, eq. 2), rounded down. lam: [N] in
    [0, 1]. Returns [N, 4] int64: top, bottom, left, right, ends excluded.
    """
    size = np.array([height, width])
    side = (size * np.sqrt(1 - lam.astype(np.float64))[:, None]).astype(np.int64)  # [N, 2]
    first = draws.integers(size, size=side.shape) - side // 2
    ends = np.stack([first, first + side], axis=2).clip(0, size[:, None])
    return ends.reshape(-1, 4)


def kept_share(boxes: np.ndarray, height: int, width: int) -> np.ndarray:
    """Computes the share of each image outside its box, [N] float32: lam of the label."""
    top, bottom, left, right = boxes.T
    return (1 - (bottom - top) * (right - left) / (height * width)).astype(np.float32)


def paste(images: Tensor, partner: Tensor, boxes: Tensor) -> Tensor:
    """Pastes the box of x_partner(i) into x_i (Yun et al. 2019, eq. 1).

    images: [N, C, H, W]; partner: [N] int64, rows of the same batch; boxes: [N, 4] int64.
    """
    return overlay(images, images[partner], boxes)


def overlay(images: Tensor, others: Tensor, boxes: Tensor) -> Tensor:
    """Shows each image of `others` within its box, and that of `images` around it, [N, C, H, W].

    boxes: [N, 4] int64, as of `boxes`.
    """
    import torch

    return torch.where(within(boxes, *images.shape[2:]), others, images)


def within(boxes: Tensor, height: int, width: int) -> Tensor:
    """Tells which pixels lie in the boxes [N, 4] int64, as [N, 1, H, W] bool."""
    import torch

    top, bottom, left, right = boxes[:, :, None].unbind(1)  # [N, 1]
    row = torch.arange(height, device=boxes.device)
    column = torch.arange(width, device=boxes.device)
    tall = (top <= row) & (row < bottom)  # [N, H]
    wide = (left <= column) & (column < right)  # [N, W]
    return (tall[:, :, None] & wide[:, None, :])[:, None]


def remixed(
    lam: np.ndarray, count: np.ndarray, partner_count: np.ndarray, kappa: float, tau: float
) -> np.ndarray:
    """Computes the share of a row's own label, all or none for a rare class (Chou et al. 2020).

    0 if the row's class has at least `kappa` times the partner's images and lam < tau; 1 if the
    partner's has as much more and 1 - lam < tau; else lam. lam: [N] float32; count,
    partner_count: [N], training images of the two classes. Returns [N] float32.
    """
    gives = (count >= kappa * partner_count) & (lam < tau)
    takes = (partner_count >= kappa * count) & (1 - lam < tau)
    return np.where(gives, 0, np.where(takes, 1, lam)).astype(np.float32)


def by_rarity(count: np.ndarray, tau: float, draws: np.random.Generator) -> np.ndarray:
    """Draws a partner for each row, in proportion to n ** tau of the partner's class, [N] int64.

    count: n, [N], training images of each row's class. tau < 0 favours rare classes; a row may be
    drawn often, and may be its own partner.
    """
    mass = np.cumsum(np.power(count, tau, dtype=np.float64))
    places = np.searchsorted(mass, mass[-1] * draws.random(len(mass)), side="right")
    return np.minimum(places, len(mass) - 1)  # as a product may be rounded up to the whole mass


def toward_the_rarer(lam: np.ndarray, count: np.ndarray, partner_count: np.ndarray) -> np.ndarray:
    """Computes lam + n_j / (n_i + n_j), less 1 if that is above 1 (Xu et al. 2021, UniMix factor).

    lam: [N] in [0, 1]; count, partner_count: n_i and n_j, [N]. Shares of Beta(alpha, alpha) with
    alpha < 1 lie most often near 0 and 1. Then a row's own share lies most often near n_j / (n_i +
    n_j), which is more for a rarer class. Returns [N] float32 in [0, 1].
    """
    lean = 1 / (1 + count / partner_count)
    turned = lam + lean
    turned[turned > 1] -= 1
    return turned.astype(np.float32)
