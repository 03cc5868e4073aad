"""Decoding: rows of a plan, or their w, to uint8 images; NaN and infinity raise an error.

`N` rows, `L` w of an image, `D` latent width, `H W C` pixels.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from stylegan_mix.errors import InvalidInput
from stylegan_mix.latents import spaces
from stylegan_mix.latents.plan import Rows
from stylegan_mix.networks import to_uint8
from stylegan_mix.rng import Draws

if TYPE_CHECKING:
    from stylegan_mix.networks import Generator

__all__ = ["Decoded", "decode_rows", "decode_ws"]


@dataclass(frozen=True)
class Decoded:
    """Images on their way: `images` [N, H, W, C] uint8 and `finite`, both still on the device."""

    images: Tensor
    finite: Tensor

    def fetch(self, where: str = "") -> np.ndarray:
        """Copies the images to memory; `where`, such as " in block 3", goes into the error.

        `InvalidInput` (exit code 3) if the network gave NaN or infinity, which would silently
        become a black or white image.
        """
        if not self.finite:
            raise InvalidInput(
                f"the generator's images are not finite{where}",
                remedy="train another generator; of one that is sound in float32, decode a bank "
                "with --precision float32",
            )
        return self.images.cpu().numpy()


def decode_rows(
    network: Generator,
    rows: Rows,
    *,
    space: str,
    truncation: float,
    noise: str = "random",
    draws: Draws = Draws(),
) -> Decoded:
    """Starts decoding rows of a plan on the network's device; see `spaces.decode`."""
    with torch.inference_mode():
        latents = spaces.latents(rows, next(network.parameters()).device)
        return _quantised(
            spaces.decode(
                network, latents, space=space, truncation=truncation, noise=noise, draws=draws
            )
        )


def decode_ws(network: Generator, ws: Tensor, *, noise: str = "const") -> Decoded:
    """Starts decoding ws [N, L, D]."""
    with torch.inference_mode():
        return _quantised(network.synthesis(ws, noise=noise, draws=Draws()))


def _quantised(images: Tensor) -> Decoded:
    return Decoded(to_uint8(images), torch.isfinite(images).all())
