"""The EMA (exponential moving average) of the generator's weights, which draws all images."""

from __future__ import annotations

import torch
from torch import nn

__all__ = ["ema_decay", "update_ema"]


def ema_decay(batch: int, images_seen: int, halflife_images: float, ramp: float) -> float:
    """Computes the decay of one step, 0.5 ** (batch / half-life) (Karras et al. 2020, ADA).

    The half-life is `halflife_images`, and at most `ramp` times the images seen so far, so that the
    EMA forgets the first steps quickly; 0 is no ramp.
    """
    halflife = min(halflife_images, images_seen * ramp) if ramp else halflife_images
    return 0.5 ** (batch / max(halflife, 1e-8))


@torch.no_grad()
def update_ema(average: nn.Module, network: nn.Module, decay: float) -> None:
    """Moves the parameters of the EMA towards the network's; buffers are copied."""
    torch._foreach_lerp_(list(average.parameters()), list(network.parameters()), 1.0 - decay)
    for target, source in zip(average.buffers(), network.buffers(), strict=True):
        target.copy_(source)
