"""A lower bound on the memory of a training, so that one that cannot fit is refused early.

A system that overcommits memory kills a process that asks for too much, without a message.
"""

from __future__ import annotations

import torch

from stylegan_mix import process
from stylegan_mix.errors import MissingEnvironment
from stylegan_mix.networks.shape import block_resolutions, channels_at
from stylegan_mix.presets import Preset

__all__ = ["check_memory", "least_bytes"]

_FLOAT32 = 4
# Numbers kept for every weight: itself, its gradient and the two moments of Adam.
_COPIES = 4
# At the full resolution the discriminator's backward pass needs its features before the first
# convolution, after it, and filtered.
_KEPT_FEATURES = 3


def least_bytes(preset: Preset, rows: int) -> int:
    """Computes a lower bound on the bytes of a training that holds `rows` images of a batch.

    Counts the weights of 3x3 convolutions with their gradients and moments, and the discriminator's
    features at the full resolution. Everything else comes on top.
    """
    generator = _weights(preset.resolution, preset.channel_base, preset.channel_max)
    critic = _weights(preset.resolution, *preset.critic_widths())
    width = 2 if preset.precision in ("bfloat16", "float16") else _FLOAT32
    channels = channels_at(preset.resolution, *preset.critic_widths())
    features = rows * preset.resolution**2 * channels * width
    averages = 1 + len(preset.half_lives())
    held = (_COPIES + averages) * generator + _COPIES * critic
    return _FLOAT32 * held + _KEPT_FEATURES * features


def _weights(resolution: int, base: int, most: int) -> int:
    """Counts the weights of the 3x3 convolutions of a network."""
    channels = [channels_at(size, base, most) for size in block_resolutions(resolution)]
    pairs = zip([0, *channels], channels, strict=False)
    return sum(9 * (before + own) * own for before, own in pairs)


def check_memory(preset: Preset, device: torch.device, processes: int = 1) -> None:
    """Raises `MissingEnvironment` (exit code 4) if a training cannot fit on the device."""
    needed = least_bytes(preset, preset.batch // processes)
    there = _memory_of(device)
    if needed > there:
        raise MissingEnvironment(
            f"batches of {preset.batch:,} images of {preset.resolution} pixels and up to "
            f"{preset.channel_max:,} channels need more than {needed / 1e9:,.0f} GB in each of "
            f"{processes} process(es); this {device.type} has {there / 1e9:,.0f} GB",
            remedy="a smaller --batch, --channel-base or --channel-max, or more processes",
        )


def _memory_of(device: torch.device) -> int:
    if device.type == "cuda":
        return int(torch.cuda.get_device_properties(device).total_memory)
    return process.memory_bytes()
