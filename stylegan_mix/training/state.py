"""Everything that changes while a generator trains, in one record that a checkpoint saves whole."""

from __future__ import annotations

import copy
from dataclasses import dataclass
from typing import Any, cast

import torch

from stylegan_mix import rng
from stylegan_mix.networks import Discriminator, Generator
from stylegan_mix.networks.shape import Architecture
from stylegan_mix.presets import Preset

__all__ = ["PRECISIONS", "TrainState", "build_generator"]

PRECISIONS = {
    "float32": torch.float32,
    "bfloat16": torch.bfloat16,
    "float16": torch.float16,
}


def build_generator(
    preset: Preset, *, resolution: int, channels: int, classes: int, precision: str | None = None
) -> Generator:
    """The preset's generator, with fresh weights from torch's default generator."""
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
        compute_dtype=PRECISIONS[precision or preset.precision],
    )


@dataclass
class TrainState:
    """The two players, their optimisers, the averaged generator, and the steps taken."""

    generator: Generator
    discriminator: Discriminator
    average: Generator
    generator_optimizer: torch.optim.Optimizer
    discriminator_optimizer: torch.optim.Optimizer
    step: int = 0

    @classmethod
    def fresh(
        cls,
        preset: Preset,
        *,
        resolution: int,
        channels: int,
        classes: int,
        seed: int,
        device: torch.device,
    ) -> TrainState:
        """Networks with weights drawn from (seed, "gan.weights"), on `device`."""
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(rng.torch_generator(seed, "gan.weights").initial_seed())
            generator = build_generator(
                preset, resolution=resolution, channels=channels, classes=classes
            )
            discriminator = Discriminator(
                resolution=resolution,
                image_channels=channels,
                classes=classes,
                channel_base=preset.channel_base,
                channel_max=preset.channel_max,
                architecture=cast(Architecture, preset.discriminator),
                minibatch_std_group=preset.minibatch_std_group,
                compute_dtype=PRECISIONS[preset.precision],
            )
        generator, discriminator = generator.to(device), discriminator.to(device)
        average = copy.deepcopy(generator).eval().requires_grad_(False)
        return cls(
            generator=generator,
            discriminator=discriminator,
            average=average,
            generator_optimizer=_adam(generator, preset.lr, interval=None),
            discriminator_optimizer=_adam(discriminator, preset.lr, interval=preset.r1_interval),
        )

    def state_dict(self) -> dict[str, Any]:
        """All of it as nested dictionaries of tensors and numbers."""
        return {
            "step": self.step,
            **{name: getattr(self, name).state_dict() for name in self._PARTS},
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Takes over what `state_dict` gave."""
        for name in self._PARTS:
            getattr(self, name).load_state_dict(state[name])
        self.step = int(state["step"])

    _PARTS = (
        "generator",
        "discriminator",
        "average",
        "generator_optimizer",
        "discriminator_optimizer",
    )


def _adam(network: torch.nn.Module, lr: float, *, interval: int | None) -> torch.optim.Adam:
    """Adam with betas (0, 0.99), corrected for a regulariser every `interval` steps.

    A lazy regulariser adds one step in `interval`: learning rate and betas are brought to the
    power k / (k + 1) (Karras et al. 2020, StyleGAN2, appendix B).
    """
    share = 1.0 if interval is None else interval / (interval + 1)
    betas = (0.0, 0.99**share)
    return torch.optim.Adam(network.parameters(), lr=lr * share, betas=betas, eps=1e-8, fused=True)
