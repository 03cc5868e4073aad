"""The spaces in which two samples can be mixed, each one equation.

`N` rows, `K` classes, `Z` and `D` latent widths, `L` number of w an image takes, `C H W` pixels;
`lam` [N, 1] is the share of class a. The ends of the path (lam 0 and 1) are exactly the unmixed w.
w is mixed layer by layer, since a network may have several codes of a sample: with UTLO, not every
layer sees the label. Equations are written with the methods of tensors, so that names are read
without torch.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor

    from stylegan_mix.networks import Generator

__all__ = ["SPACES", "Latents", "Space"]


@dataclass(frozen=True)
class Latents:
    """Rows of a plan on a device: `z_a`, `z_b` [N, Z], `a`, `b` [N] int64, `lam` [N, 1]."""

    z_a: Tensor
    z_b: Tensor
    a: Tensor
    b: Tensor
    lam: Tensor


@dataclass(frozen=True)
class Space:
    """A space in which rows are mixed; this base class mixes nothing.

    `about` is its equation in words. `control` names a space that exists to be compared with, and
    marks the arms of its runs; "" for a method. `mixes` is False if a row is a sample of class a
    alone: its b is a and its lam is 1.
    """

    name: str
    about: str
    control: str = ""
    mixes: bool = True

    def ws(self, network: Generator, rows: Latents, truncation: float) -> Tensor:
        """Computes the w of the rows, mixed before decoding: here w_a alone -> [N, L, D]."""
        return _w(network, rows.z_a, rows.a, truncation)

    def images(
        self,
        network: Generator,
        rows: Latents,
        truncation: float,
        synthesis: Callable[[Tensor], Tensor],
    ) -> Tensor:
        """Decodes the rows to images [N, C, H, W]; `synthesis` decodes ws [N, L, D]."""
        return synthesis(self.ws(network, rows, truncation))


class LerpW(Space):
    """w = lam w_a + (1 - lam) w_b, with the same lam in every layer."""

    def ws(self, network: Generator, rows: Latents, truncation: float) -> Tensor:
        first = _w(network, rows.z_a, rows.a, truncation)
        second = _w(network, rows.z_b, rows.b, truncation)
        return _between(first, second, rows.lam[:, :, None])


class LerpZ(Space):
    """z = lam z_a + (1 - lam) z_b of unit z, back to unit length by the mapping."""

    def ws(self, network: Generator, rows: Latents, truncation: float) -> Tensor:
        z = _between(_unit(rows.z_a), _unit(rows.z_b), rows.lam)
        return _w(network, z, _soft(network, rows), truncation)


class LerpLabel(Space):
    """One z under the label lam e_a + (1 - lam) e_b (GeMix, Carlesso et al. 2025)."""

    def ws(self, network: Generator, rows: Latents, truncation: float) -> Tensor:
        return _w(network, rows.z_a, _soft(network, rows), truncation)


class LerpPixels(Space):
    """lam x_a + (1 - lam) x_b of two finished images, each limited to its range first."""

    def images(
        self,
        network: Generator,
        rows: Latents,
        truncation: float,
        synthesis: Callable[[Tensor], Tensor],
    ) -> Tensor:
        first = synthesis(_w(network, rows.z_a, rows.a, truncation)).clamp(-1, 1)
        second = synthesis(_w(network, rows.z_b, rows.b, truncation)).clamp(-1, 1)
        return _between(first, second, rows.lam[:, :, None, None])


SPACES: dict[str, Space] = {
    space.name: space
    for space in (
        LerpW("w", "lam * w_a + (1 - lam) * w_b, decoded once"),
        LerpZ("z", "normalised lam * z_a + (1 - lam) * z_b under the soft label, decoded once"),
        LerpLabel("label", "one z under the soft label, decoded once"),
        Space("none", "unmixed class a (control)", control="unmixed", mixes=False),
        LerpPixels("pixel", "both classes decoded, their pixels mixed (control)", control="pixel"),
    )
}
"""All spaces by name; a new one is a class above and a line here."""


def _w(network: Generator, z: Tensor, label: Tensor, truncation: float) -> Tensor:
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
