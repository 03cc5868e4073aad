"""The spaces in which two samples can be mixed, each one equation.

`N` rows, `K` classes, `Z` and `D` latent widths, `L` number of w an image takes, `C H W` pixels;
`lam` [N, 1] is the share of class a. The ends of the path (lam 0 and 1) are exactly the unmixed w.
w is mixed layer by layer, since a network may have several codes of a sample: with UTLO, not every
layer sees the label. Equations are written with the methods of tensors, so that names are read
without torch.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor

    from stylegan_mix.networks import Generator

__all__ = ["SPACES", "Latents", "Space"]


@dataclass(frozen=True)
class Latents:
    """Rows of a plan on a device: `z_a`, `z_b` [N, Z], `a`, `b` [N] int64, `lam` [N, 1].

    `mask` [N, D] in [0, 1) is there for a space that masks channels.
    """

    z_a: Tensor
    z_b: Tensor
    a: Tensor
    b: Tensor
    lam: Tensor
    mask: Tensor | None = None


@dataclass(frozen=True)
class Space:
    """A space in which rows are mixed; this base class mixes nothing.

    `about` is its equation in words. `control` names a space that exists to be compared with, and
    marks the arms of its runs; "" for a method. `mixes` is False if a row is a sample of class a
    alone: its b is a and its lam is 1. `masks` is True if the space reads the mask of a row.
    """

    name: str
    about: str
    control: str = ""
    mixes: bool = True
    masks: bool = False

    def prepared(self, network: Generator) -> Space:
        """Makes the space ready to mix with a network: here nothing is to be done."""
        return self

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


@dataclass(frozen=True)
class SpreadW(Space):
    """mu + (w - mu) / s of the lerp w, mu = lam wbar_a + (1 - lam) wbar_b.

    wbar_c is the mean w of class c, and s = sqrt(lam^2 + (1 - lam)^2) is the factor by which the
    lerp of two independent codes shrinks their deviation from it. So rows vary as much as unmixed
    ones do.
    """

    means: Tensor | None = None

    def prepared(self, network: Generator) -> Space:
        """Computes the mean w of each class, [K, L, D]."""
        from stylegan_mix.latents.centres import class_means

        return replace(self, means=class_means(network))

    def ws(self, network: Generator, rows: Latents, truncation: float) -> Tensor:
        if self.means is None:
            return self.prepared(network).ws(network, rows, truncation)
        first = _w(network, rows.z_a, rows.a, truncation)
        second = _w(network, rows.z_b, rows.b, truncation)
        lam = rows.lam[:, :, None]
        means = network.truncate(self.means, truncation)
        mean = _between(means[rows.a], means[rows.b], lam)
        spread = (lam.square() + (1 - lam).square()).sqrt()
        return mean + (_between(first, second, lam) - mean) / spread


class Crossover(Space):
    """w_a in the first lam L layers, rounded to whole layers, and w_b in the others."""

    def ws(self, network: Generator, rows: Latents, truncation: float) -> Tensor:
        first = _w(network, rows.z_a, rows.a, truncation)
        second = _w(network, rows.z_b, rows.b, truncation)
        layers = first.shape[1]
        coarse = rows.lam.new_tensor(range(layers))[None] < (rows.lam * layers).round()
        return first.where(coarse[:, :, None], second)


class MaskedChannels(Space):
    """w_a in a share lam of the channels, drawn per row, and w_b in the others; in every layer."""

    def ws(self, network: Generator, rows: Latents, truncation: float) -> Tensor:
        if rows.mask is None:
            raise ValueError("rows of this space need a mask [N, D]; the plan needs w_dim")
        first = _w(network, rows.z_a, rows.a, truncation)
        second = _w(network, rows.z_b, rows.b, truncation)
        return first.where((rows.mask < rows.lam)[:, None], second)


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
        SpreadW("w-spread", "the lerp of w_a and w_b with the spread of unmixed w, decoded once"),
        Crossover("w+", "w_a in the coarse layers, w_b in the fine ones, decoded once"),
        MaskedChannels(
            "channels", "w_a in a share lam of the channels, w_b in the others", masks=True
        ),
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
