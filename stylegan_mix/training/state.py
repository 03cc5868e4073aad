"""The state of a training, in one record that a checkpoint saves whole."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, ClassVar, cast

import numpy as np
import torch

from stylegan_mix import rng
from stylegan_mix.datasets import Dataset
from stylegan_mix.datasets.class_weights import inverse_effective_number
from stylegan_mix.networks import Discriminator, Generator
from stylegan_mix.networks.build import PRECISIONS, build_generator
from stylegan_mix.networks.shape import Architecture
from stylegan_mix.presets import Preset
from stylegan_mix.training.augmentation.strength import fresh_signs, fresh_strength, groups_by
from stylegan_mix.training.probe_features import blank_head
from stylegan_mix.training.saved_structure import ANYTHING
from stylegan_mix.training.schedules import half_steps

__all__ = ["TrainState"]


@dataclass
class TrainState:
    """The two players, their optimisers, the EMAs of the generator, and the steps taken.

    `running` holds the moving statistics of regularisers and augmentation by name, `more` the EMAs
    of the further half-lives. `attempt` counts how often the training was taken back. The last
    block, which draws and judges full-size images, is trained after `half_steps` steps.
    """

    generator: Generator
    discriminator: Discriminator
    average: Generator
    generator_optimizer: torch.optim.Optimizer
    discriminator_optimizer: torch.optim.Optimizer
    running: dict[str, torch.Tensor] = field(default_factory=dict)
    more: list[Generator] = field(default_factory=list)
    step: int = 0
    attempt: int = 0
    half_steps: int = 0

    NETWORKS: ClassVar = ("generator", "discriminator", "average")
    # By the network that they optimise.
    _OPTIMIZERS: ClassVar = {
        "generator_optimizer": "generator",
        "discriminator_optimizer": "discriminator",
    }

    @classmethod
    def fresh(
        cls,
        preset: Preset,
        *,
        resolution: int,
        channels: int,
        counts: np.ndarray,
        seed: int,
        device: torch.device,
    ) -> TrainState:
        """Makes networks with weights drawn from (seed, "gan.weights"), on `device`.

        `counts` [K] are the training images of every class.
        """
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(rng.torch_generator(seed, "gan.weights").initial_seed())
            generator = build_generator(
                preset, resolution=resolution, channels=channels, classes=len(counts)
            )
            base, most = preset.critic_widths()
            discriminator = Discriminator(
                resolution=resolution,
                image_channels=channels,
                classes=len(counts),
                channel_base=base,
                channel_max=most,
                architecture=cast(Architecture, preset.discriminator),
                minibatch_std_group=preset.minibatch_std_group,
                utlo_resolution=preset.utlo_resolution,
                transitional=preset.transition_end > 0,
                compute_dtype=PRECISIONS[preset.precision],
            )
            if preset.grow_end:
                discriminator.begin_at_half()
            if preset.probe_weight:
                discriminator.feature_head = blank_head(
                    resolution=resolution, channels=channels, classes=len(counts)
                )
        if discriminator.mapping is not None:
            discriminator.mapping.label_noise = preset.critic_label_noise
        if preset.noise_beta:
            scale = torch.from_numpy(inverse_effective_number(counts, preset.noise_beta)).float()
            for mapping in (generator.mapping, discriminator.mapping):
                if mapping is not None:
                    mapping.label_noise_scale = scale
        generator, discriminator = generator.to(device), discriminator.to(device)
        average = copy.deepcopy(generator).eval().requires_grad_(False)
        return cls(
            generator=generator,
            discriminator=discriminator,
            average=average,
            generator_optimizer=_adam(generator, preset.lr, interval=preset.path_interval),
            discriminator_optimizer=_adam(
                discriminator,
                preset.lr,
                interval=0 if preset.merged_r1 else preset.r1_interval,
            ),
            running=_fresh_running(preset, counts, device),
            more=[copy.deepcopy(average) for _ in preset.half_lives()],
            half_steps=half_steps(preset),
        )

    @classmethod
    def without_memory(cls, preset: Preset, dataset: Dataset) -> TrainState:
        """Makes the networks and optimisers of a training as names, shapes and dtypes alone."""
        with torch.device("meta"):
            return cls.fresh(
                preset,
                resolution=dataset.resolution,
                channels=dataset.channels,
                counts=dataset.counts,
                seed=0,
                device=torch.device("meta"),
            )

    def averages(self, preset: Preset) -> list[tuple[Generator, float]]:
        """Lists every EMA with its half-life in kimg, the main one first."""
        pairs = zip(self.more, preset.half_lives(), strict=True)
        return [(self.average, preset.ema_kimg), *pairs]

    def set_rates(self, share: float) -> None:
        """Sets the learning rate of both optimisers to a share of their own."""
        for optimizer in (self.generator_optimizer, self.discriminator_optimizer):
            for group in optimizer.param_groups:
                group["lr"] = share * group.setdefault("initial_lr", group["lr"])

    def is_finite(self) -> bool:
        """Tells if all weights of both players and of the EMA are finite."""
        networks = (self.generator, self.discriminator, self.average)
        weights = [weight for network in networks for weight in network.parameters()]
        return bool(torch.stack([weight.isfinite().all() for weight in weights]).all())

    def named_tensors(self) -> Iterator[tuple[str, torch.Tensor]]:
        """Lists by name the tensors that must be alike in every process of a training."""
        for part in self.NETWORKS:
            for name, weight in getattr(self, part).named_parameters():
                yield f"{part}.{name}", weight
        if self.discriminator.feature_head is not None:
            for name, constant in self.discriminator.feature_head.named_buffers():
                yield f"discriminator.feature_head.{name}", constant
        yield from self.running.items()

    def state_dict(self) -> dict[str, Any]:
        """Returns the whole state as nested dictionaries of tensors and numbers."""
        return {
            "step": self.step,
            "attempt": self.attempt,
            **{name: getattr(self, name).state_dict() for name in self.NETWORKS},
            "more": [average.state_dict() for average in self.more],
            **{name: getattr(self, name).state_dict() for name in self._OPTIMIZERS},
            "running": dict(self.running),
        }

    def structure(self, step: int) -> dict[str, Any]:
        """Describes the structure of `state_dict` after `step` steps, independent of the values.

        The optimisers' settings are those of the plan, not those of a saved state.
        """
        expected = self.state_dict()
        for name, network in self._OPTIMIZERS.items():
            moments = {
                number: _moments(weight)
                for number, (label, weight) in enumerate(getattr(self, network).named_parameters())
                if step > (self.half_steps if self._is_last(network, label) else 0)
            }
            expected[name] = {"state": moments, "param_groups": ANYTHING}
        return expected

    def _is_last(self, network: str, weight: str) -> bool:
        """Tells if a weight belongs to the block that full-size images alone pass."""
        return weight.startswith(getattr(self, network).last_block)

    def moment_names(self, root: str) -> dict[str, str]:
        """Names the moments below `root`, which optimisers number, by their weights."""
        return {
            f"{root}/{name}/state/{number}": f"{root}/{name}/state/{weight}"
            for name, network in self._OPTIMIZERS.items()
            for number, (weight, _) in enumerate(getattr(self, network).named_parameters())
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Loads the output of `state_dict`, which has the structure of `structure`."""
        for name in self.NETWORKS:
            getattr(self, name).load_state_dict(state[name])
        for name in self._OPTIMIZERS:
            optimizer: torch.optim.Optimizer = getattr(self, name)
            settings = optimizer.state_dict()["param_groups"]
            moments = state[name]["state"]
            optimizer.load_state_dict({"state": moments, "param_groups": settings})
        for average, saved in zip(self.more, state["more"], strict=True):
            average.load_state_dict(saved)
        for name, value in self.running.items():
            value.copy_(state["running"][name])
        self.step, self.attempt = state["step"], state["attempt"]


def _moments(weight: torch.Tensor) -> dict[str, torch.Tensor]:
    """Describes Adam's memory of a weight, independent of the values."""
    return {"step": torch.zeros([]), "exp_avg": weight, "exp_avg_sq": weight}


def _fresh_running(
    preset: Preset, counts: np.ndarray, device: torch.device
) -> dict[str, torch.Tensor]:
    """Makes the moving statistics that the preset's parts need, before the first step."""
    names = []
    if preset.path_weight:
        names += ["path.mean"]
    if preset.lecam:
        names += ["lecam.real", "lecam.fake"]
    running = {name: torch.zeros([], device=device) for name in names}
    running |= fresh_signs(len(counts), device, of="class")
    if preset.adapts_strength():
        running |= fresh_strength(len(groups_by(preset.ada_groups, counts).names), device)
    return running


def _adam(network: torch.nn.Module, lr: float, *, interval: int) -> torch.optim.Adam:
    """Makes an Adam with betas (0, 0.99), corrected for a regulariser every `interval` steps.

    A lazy regulariser adds one step in `interval` (0: no regulariser). With c = k / (k + 1) for
    k = `interval`, the learning rate is multiplied by c and the betas are raised to the power c
    (Karras et al. 2020, StyleGAN2, appendix B).
    """
    share = interval / (interval + 1) if interval else 1.0
    betas = (0.0, 0.99**share)
    parameters = list(network.parameters())
    return torch.optim.Adam(
        parameters,
        lr=lr * share,
        betas=betas,
        eps=1e-8,
        fused=True,
        capturable=parameters[0].is_cuda,
    )
