"""Truncation towards the centre of the class: where the w of a class lie, and pulling to it.

The one average that a generator carries lies between its classes: truncation towards it makes the
samples of every class alike (at psi 0 they are one image). Here each class has a centre of its own.
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
    "shrunk",
    "truncate",
]

MAPPED = 10_000
"""z that are mapped for the mean of a class: its error is then 1 % of the spread of w."""

HALF_WAY = 20.0
"""k: training images with which a class's centre lies half way between the global one and its own.

Of a class with few images the network has learned an embedding from few images, and its own mean
is as uncertain as that; 20 is where the field begins to call a class few-shot.
"""

_BLOCK = 1000


@torch.no_grad()
def class_mean(network: Generator, label: int, *, seed: int = 0, n: int = MAPPED) -> Tensor:
    """The mean of w over n mapped z of a class -> [L,D]; the z are the same for every class."""
    device = next(network.parameters()).device
    total = torch.zeros((), dtype=torch.float64, device=device)
    for start in range(0, n, _BLOCK):
        count = min(_BLOCK, n - start)
        draw = rng.stream(seed, "centres.z", start // _BLOCK)
        z = torch.from_numpy(draw.standard_normal((count, network.z_dim), np.float32)).to(device)
        labels = torch.full((count,), label, dtype=torch.int64, device=device)
        total = total + network.ws(z, labels).double().sum(dim=0)
    return (total / n).float()


def shrunk(mean: Tensor, towards: Tensor, count: int, k: float = HALF_WAY) -> Tensor:
    """towards + s (mean - towards) with s = count / (count + k), for a class of `count` images."""
    return torch.lerp(towards, mean, count / (count + k))


def class_centres(
    network: Generator,
    counts: Sequence[int] | np.ndarray,
    *,
    seed: int = 0,
    n: int = MAPPED,
    k: float = HALF_WAY,
) -> Tensor:
    """A centre for each class: its mean, shrunk towards the global centre -> [K,L,D].

    `counts` [K] are the training images of the classes; k = 0 does not shrink. A function of the
    network and the arguments alone.
    """
    towards = network.centre()
    means = (class_mean(network, label, seed=seed, n=n) for label in range(len(counts)))
    centres = [
        shrunk(mean, towards, int(count), k) for mean, count in zip(means, counts, strict=True)
    ]
    return torch.stack(centres)


def truncate(ws: Tensor, psi: float, centres: Tensor) -> Tensor:
    """centre + psi (w - centre): ws [N,L,D], a centre for all [L,D] or one a sample [N,L,D].

    psi = 1 leaves ws as they are; psi = 0 gives the centres.
    """
    return ws if psi == 1 else torch.lerp(centres.expand_as(ws), ws, psi)
