"""Sizes shared by generator and discriminator: resolutions, channels, architectures."""

from __future__ import annotations

from typing import Literal

import torch

__all__ = [
    "Architecture",
    "block_resolutions",
    "channels_at",
    "check_conditioning",
    "default_clamp",
]

Architecture = Literal["orig", "skip", "resnet"]

HALF_PRECISION_CLAMP = 256.0


def block_resolutions(resolution: int) -> list[int]:
    """Lists 4, 8, ... up to `resolution`, which must be 8, 16, 32, ...: else ValueError."""
    if resolution < 8 or resolution & (resolution - 1):
        raise ValueError(f"resolution must be a power of 2 from 8 on, got {resolution}")
    return [2**power for power in range(2, resolution.bit_length())]


def check_conditioning(
    *, resolution: int, classes: int, utlo_resolution: int, transitional: bool
) -> None:
    """Raises ValueError unless networks of this size can be conditioned so; both off always can.

    The two options exclude each other. With UTLO the label reaches the high resolutions alone and
    R1 differentiates the conditional logit. With transitional conditioning the label slowly enters
    the first dense layer and R1 differentiates the unconditional logit. No paper defines both.
    """
    if utlo_resolution and transitional:
        raise ValueError(
            f"utlo_resolution {utlo_resolution} and transitional conditioning are two answers to "
            "where the label enters: choose one"
        )
    if (utlo_resolution or transitional) and not classes:
        option = "transitional conditioning" if transitional else "utlo_resolution"
        raise ValueError(f"{option} needs classes: without them every image is unconditional")
    if utlo_resolution and utlo_resolution not in block_resolutions(resolution)[:-1]:
        raise ValueError(
            f"utlo_resolution must be 0 or a power of 2 from 4 to {resolution // 2}, "
            f"got {utlo_resolution}"
        )


def channels_at(resolution: int, channel_base: int, channel_max: int) -> int:
    """Computes the number of channels at a resolution (Karras et al. 2020)."""
    return min(channel_base // resolution, channel_max)


def default_clamp(conv_clamp: float | None, dtype: torch.dtype) -> float | None:
    """Returns `conv_clamp`, or the published clamp in float16, which overflows without one."""
    if conv_clamp is None and dtype == torch.float16:
        return HALF_PRECISION_CLAMP
    return conv_clamp
