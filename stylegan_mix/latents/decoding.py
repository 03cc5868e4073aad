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
from stylegan_mix.latents.plan import Rows
from stylegan_mix.latents.spaces import Latents, Space
from stylegan_mix.networks import to_uint8
from stylegan_mix.rng import Draws

if TYPE_CHECKING:
    from stylegan_mix.networks import Generator

__all__ = ["Decoded", "decode", "decode_rows", "decode_ws", "latents"]


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
    space: Space,
    truncation: float,
    noise: str = "random",
    draws: Draws = Draws(),
) -> Decoded:
    """Starts decoding rows of a plan on the network's device; see `decode`."""
    with torch.inference_mode():
        placed = latents(rows, next(network.parameters()).device)
        return _quantised(
            decode(network, placed, space=space, truncation=truncation, noise=noise, draws=draws)
        )


def decode_ws(network: Generator, ws: Tensor, *, noise: str = "const") -> Decoded:
    """Starts decoding ws [N, L, D]."""
    with torch.inference_mode():
        return _quantised(network.synthesis(ws, noise=noise, draws=Draws()))


def _quantised(images: Tensor) -> Decoded:
    return Decoded(to_uint8(images), torch.isfinite(images).all())


def latents(rows: Rows, device: torch.device | str) -> Latents:
    """Copies rows of a plan to a device."""
    z = torch.from_numpy(rows.z).to(device)
    pair = torch.from_numpy(rows.pair).to(device, torch.int64)
    lam = torch.from_numpy(rows.lam).to(device)
    mask = None if rows.mask is None else torch.from_numpy(rows.mask).to(device)
    return Latents(z[0], z[1], pair[:, 0], pair[:, 1], lam[:, None], mask)


def decode(
    network: Generator,
    rows: Latents,
    *,
    space: Space,
    truncation: float = 1.0,
    noise: str = "random",
    draws: Draws = Draws(),
) -> Tensor:
    """Images [N, C, H, W] float32 in about [-1, 1] of rows mixed in `space`.

    `truncation` is psi: w is drawn towards the mean of w over all classes before it is mixed.
    `noise` ("random", "const" or "none") and its `draws` go to the synthesis network.
    """

    def synthesis(ws: Tensor) -> Tensor:
        return network.synthesis(ws, noise=noise, draws=draws)

    return space.images(network, rows, truncation, synthesis)
