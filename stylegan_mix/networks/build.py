"""Networks from a preset."""

from __future__ import annotations

import torch

from stylegan_mix.networks import Generator
from stylegan_mix.networks.shape import default_clamp
from stylegan_mix.presets import Preset

__all__ = ["PRECISIONS", "build_generator"]


PRECISIONS = {
    "float32": torch.float32,
    "bfloat16": torch.bfloat16,
    "float16": torch.float16,
}


def build_generator(
    preset: Preset, *, resolution: int, channels: int, classes: int, precision: str | None = None
) -> Generator:
    """Builds the preset's generator, with fresh weights from torch's default generator."""
    return Generator(
        resolution=resolution,
        image_channels=channels,
        classes=classes,
        z_dim=preset.z_dim,
        w_dim=preset.w_dim,
        mapping_layers=preset.mapping_layers,
        channel_base=preset.channel_base,
        channel_max=preset.channel_max,
        label_weight=preset.label_weight,
        label_noise=preset.label_noise,
        utlo_resolution=preset.utlo_resolution,
        transitional=preset.transition_end > 0,
        grows=preset.grow_end > 0,
        # The clamp of its training, even if the network is loaded in another precision.
        conv_clamp=default_clamp(None, PRECISIONS[preset.precision]),
        compute_dtype=PRECISIONS[precision or preset.precision],
    )
