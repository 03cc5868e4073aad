"""The subject of the pictures: one generator and its classes, and images of chosen latents.

Images are decoded one by one, so none depends on its neighbours; and ten images of 1,024 pixels at
once take gigabytes. `n` images of `H W C`, `L D` the w of an image.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from stylegan_mix import rng
from stylegan_mix.generators.store import Published
from stylegan_mix.latents.decoding import decode_rows, decode_ws
from stylegan_mix.latents.plan import Rows
from stylegan_mix.latents.spaces import SPACES
from stylegan_mix.networks import Generator

__all__ = ["Subject"]


@dataclass(frozen=True, eq=False)
class Subject:
    """A published generator with its network, the seed of every picture, psi of plain samples."""

    published: Published
    network: Generator
    seed: int
    truncation: float = 1.0

    @property
    def names(self) -> Sequence[str]:
        """The names of the classes; none for an unconditional generator."""
        return list(self.published.card["classes"])

    @property
    def counts(self) -> Sequence[int]:
        """Training images of each class."""
        return list(self.published.card["counts"]) if self.names else []

    @property
    def origin(self) -> str:
        """The origin printed on every picture: generator and seed."""
        return f"generator {self.published.hash[:12]}, seed {self.seed}"

    @property
    def device(self) -> torch.device:
        """The device of the network."""
        return next(self.network.parameters()).device

    def z(self, name: str, *index: int) -> Tensor:
        """Draws the latent [1,Z] of (seed, name, index)."""
        draw = rng.stream(self.seed, f"pictures.{name}", *index)
        return torch.from_numpy(draw.standard_normal((1, self.network.z_dim), dtype=np.float32)).to(
            self.device
        )

    def decoded(self, ws: Tensor) -> np.ndarray:
        """Decodes ws [n,L,D] with the stored noise, the same for every image -> uint8 [n,H,W,C]."""
        return np.concatenate([decode_ws(self.network, one).fetch() for one in ws.split(1)])

    def mixed(
        self, rows: Rows, *, space: str = "w", noise: str = "const", stream: str = "noise"
    ) -> np.ndarray:
        """Decodes rows of a plan like those of a bank, at the psi of plain samples: [n,H,W,C]."""
        draws = rng.Draws(rng.torch_generator(self.seed, f"pictures.{stream}", device=self.device))
        prepared = SPACES[space].prepared(self.network)
        images = []
        for index in range(len(rows)):
            decoded = decode_rows(
                self.network,
                rows.cut(slice(index, index + 1)),
                space=prepared,
                truncation=self.truncation,
                noise=noise,
                draws=draws,
            )
            images.append(decoded.fetch())
        return np.concatenate(images)
