"""Samples of each class from fixed latents: for logs, alarms and grids of a training.

`L` w of an image, `D` latent width, `H W C` pixels.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from stylegan_mix import rng
from stylegan_mix.networks import Generator, to_uint8

if TYPE_CHECKING:
    from stylegan_mix.training.step_inputs import Game

__all__ = ["class_latents", "class_samples_of", "samples_each"]

# Samples for a log, of a class and of all classes: few, since a log comes every 10 kimg.
_MOST_SAMPLES, _FEWEST_SAMPLES, _ALL_SAMPLES = 64, 16, 1600


def samples_each(classes: int) -> int:
    """Returns the number of samples that a log draws of each class."""
    return max(_FEWEST_SAMPLES, min(_MOST_SAMPLES, _ALL_SAMPLES // classes))


def class_samples_of(
    network: Generator, game: Game, each: int, labels: Iterable[int]
) -> dict[int, Tensor]:
    """Draws `each` samples [each,H,W,C] uint8 of every class in `labels`, from fixed latents."""
    return {label: _samples(network, game, label, each) for label in labels}


@torch.no_grad()
def _samples(network: Generator, game: Game, label: int, count: int) -> Tensor:
    ws, draws = class_latents(network, game, label, count)
    return to_uint8(network.synthesis(ws, noise="random", draws=draws)).cpu()


@torch.no_grad()
def class_latents(
    network: Generator, game: Game, label: int, count: int
) -> tuple[Tensor, rng.Draws]:
    """Maps fixed latents of a class to ws [count,L,D]; also returns the draws for the noise."""
    generator = rng.torch_generator(game.seed, f"gan.shown.{label}", device=game.device)
    draws = rng.Draws(generator)
    z = draws.normal(count, game.preset.z_dim, device=game.device)
    return network.ws(z, torch.full((count,), label, device=game.device)), draws
