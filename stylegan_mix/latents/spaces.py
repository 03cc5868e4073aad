"""From rows of a plan to images: the spaces in which two samples can be mixed.

`N` rows, `K` classes, `Z` and `D` latent widths, `L` number of w an image takes, `C H W` pixels;
`lam` [N, 1] is the share of class a. Every space is one equation. The ends of the path (lam 0 and
1) are exactly the unmixed w. w is mixed layer by layer, since a network may have several codes of a
sample: with UTLO, not every layer sees the label.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from stylegan_mix.latents.plan import Rows
from stylegan_mix.rng import Draws

if TYPE_CHECKING:
    from stylegan_mix.networks import Generator

__all__ = ["MIXERS", "Latents", "decode", "latents"]


@dataclass(frozen=True)
class Latents:
    """Rows of a plan on a device: `z_a`, `z_b` [N, Z], `a`, `b` [N] int64, `lam` [N, 1]."""

    z_a: Tensor
    z_b: Tensor
    a: Tensor
    b: Tensor
    lam: Tensor


def latents(rows: Rows, device: torch.device | str) -> Latents:
    """Copies rows of a plan to a device."""
    z = torch.from_numpy(rows.z).to(device)
    pair = torch.from_numpy(rows.pair).to(device, torch.int64)
    lam = torch.from_numpy(rows.lam).to(device)
    return Latents(z[0], z[1], pair[:, 0], pair[:, 1], lam[:, None])


def decode(
    network: Generator,
    rows: Latents,
    *,
    space: str,
    truncation: float = 1.0,
    noise: str = "random",
    draws: Draws = Draws(),
) -> Tensor:
    """Decodes rows mixed in `space` to images [N, C, H, W] float32, in about [-1, 1].

    `truncation` is psi: w is pulled to the mean of w over all classes before it is mixed.
    `noise` ("random", "const" or "none") and its `draws` go to the synthesis network.
    """

    def images(ws: Tensor) -> Tensor:
        return network.synthesis(ws, noise=noise, draws=draws)

    if space != "pixel":
        return images(MIXERS[space](network, rows, truncation))
    # Here two finished images are mixed, so each is limited to its range first.
    first = images(_ws(network, rows.z_a, rows.a, truncation)).clamp(-1, 1)
    second = images(_ws(network, rows.z_b, rows.b, truncation)).clamp(-1, 1)
    return _between(first, second, rows.lam[:, :, None, None])


def _lerp_w(network: Generator, rows: Latents, truncation: float) -> Tensor:
    """Computes w = lam w_a + (1 - lam) w_b, with the same lam in every layer -> [N, L, D]."""
    first = _ws(network, rows.z_a, rows.a, truncation)
    second = _ws(network, rows.z_b, rows.b, truncation)
    return _between(first, second, rows.lam[:, :, None])


def _lerp_z(network: Generator, rows: Latents, truncation: float) -> Tensor:
    """Maps z = lam z_a + (1 - lam) z_b of unit z, which the mapping normalises -> [N, L, D]."""
    z = _between(_unit(rows.z_a), _unit(rows.z_b), rows.lam)
    return _ws(network, z, _soft(network, rows), truncation)


def _lerp_label(network: Generator, rows: Latents, truncation: float) -> Tensor:
    """Maps one z under the label lam e_a + (1 - lam) e_b (GeMix, Carlesso et al. 2025)."""
    return _ws(network, rows.z_a, _soft(network, rows), truncation)


def _unmixed(network: Generator, rows: Latents, truncation: float) -> Tensor:
    """Maps w_a alone -> [N, L, D]."""
    return _ws(network, rows.z_a, rows.a, truncation)


MIXERS: dict[str, Callable[[Generator, Latents, float], Tensor]] = {
    "w": _lerp_w,
    "z": _lerp_z,
    "label": _lerp_label,
    "none": _unmixed,
}
"""The spaces that mix before decoding: (network, rows, truncation) -> ws [N, L, D]."""


def _ws(network: Generator, z: Tensor, label: Tensor, truncation: float) -> Tensor:
    return network.truncate(network.ws(z, label), truncation)


def _between(first: Tensor, second: Tensor, lam: Tensor) -> Tensor:
    return lam * first + (1 - lam) * second


def _unit(z: Tensor) -> Tensor:
    return z * z.square().mean(dim=1, keepdim=True).rsqrt()


def _soft(network: Generator, rows: Latents) -> Tensor:
    """Makes the label lam e_a + (1 - lam) e_b -> [N, K]."""
    label = rows.lam.new_zeros(len(rows.lam), network.classes)
    label.scatter_add_(1, rows.a[:, None], rows.lam)
    return label.scatter_add_(1, rows.b[:, None], 1 - rows.lam)
