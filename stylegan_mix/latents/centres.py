"""Truncation towards the centre of a class: the mean w of each class, and pulling w to it.

A generator stores one average of w, which lies between its classes. Truncation towards it makes the
samples of all classes alike; at psi 0 they are one image. Here each class has its own centre.
`N` samples, `K` classes, `Z` and `D` latent widths, `L` number of w an image takes.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from stylegan_mix import rng

if TYPE_CHECKING:
    from stylegan_mix.networks import Generator

__all__ = [
    "HALF_WAY",
    "MAPPED",
    "class_centres",
    "class_mean",
    "class_means",
    "shrunk",
    "truncate",
]

MAPPED = 10_000
"""Number of z mapped for the mean of a class: its error is then 1 % of the spread of w."""

HALF_WAY = 20.0
"""k: the number of training images that puts a class's centre half way to its own mean.

A class with few images has an embedding learned from few images, and its mean is as uncertain as
that. 20 is where the field begins to call a class few-shot.
"""

_BLOCK = 1000


@torch.no_grad()
def class_mean(network: Generator, label: int, *, seed: int = 0, n: int = MAPPED) -> Tensor:
    """Averages w over n mapped z of a class -> [L,D]; the z are the same for every class."""
    device = next(network.parameters()).device
    total = torch.zeros((), dtype=torch.float64, device=device)
    for start in range(0, n, _BLOCK):
        count = min(_BLOCK, n - start)
        draw = rng.stream(seed, "centres.z", start // _BLOCK)
        z = torch.from_numpy(draw.standard_normal((count, network.z_dim), np.float32)).to(device)
        labels = torch.full((count,), label, dtype=torch.int64, device=device)
        total = total + network.ws(z, labels).double().sum(dim=0)
    return (total / n).float()


def class_means(network: Generator, *, seed: int = 0, n: int = 1000) -> Tensor:
    """Averages w over n mapped z for each class -> [K,L,D]; the error is 3 % of the spread of w."""
    means = [class_mean(network, label, seed=seed, n=n) for label in range(network.classes)]
    return torch.stack(means)


def shrunk(mean: Tensor, towards: Tensor, count: int, k: float = HALF_WAY) -> Tensor:
    """Computes towards + s (mean - towards), s = count / (count + k), for a class of `count`."""
    return torch.lerp(towards, mean, count / (count + k))


def class_centres(
    network: Generator,
    counts: Sequence[int] | np.ndarray,
    *,
    seed: int = 0,
    n: int = MAPPED,
    k: float = HALF_WAY,
) -> Tensor:
    """Computes a centre for each class: its mean, shrunk to the global centre -> [K,L,D].

    `counts` [K] are the training images of the classes; k = 0 does not shrink. The result depends
    on the network and the arguments alone.
    """
    towards = network.centre()
    means = (class_mean(network, label, seed=seed, n=n) for label in range(len(counts)))
    centres = [
        shrunk(mean, towards, int(count), k) for mean, count in zip(means, counts, strict=True)
    ]
    return torch.stack(centres)


def truncate(ws: Tensor, psi: float, centres: Tensor) -> Tensor:
    """Computes centre + psi (w - centre): ws [N,L,D], one centre [L,D] or one a sample [N,L,D].

    psi = 1 leaves ws unchanged; psi = 0 gives the centres.
    """
    return ws if psi == 1 else torch.lerp(centres.expand_as(ws), ws, psi)
