"""One step of the game: the generator's phase, the discriminator's, and, lazily, R1.

The phases and their order are those of StyleGAN2 (Karras et al. 2020): fresh latents in every
phase, one Adam per network. N is the batch.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from stylegan_mix import rng
from stylegan_mix.presets import Preset
from stylegan_mix.training import losses
from stylegan_mix.training.augment import augment
from stylegan_mix.training.batches import RealImages, draw_labels
from stylegan_mix.training.ema import ema_decay, update_ema
from stylegan_mix.training.state import TrainState

__all__ = ["Game", "train_step"]


@dataclass(frozen=True)
class Game:
    """What stays the same over all steps of a training."""

    preset: Preset
    reals: RealImages
    seed: int
    device: torch.device

    def draws(self, name: str, step: int) -> rng.Draws:
        """What is drawn under `name` at `step`."""
        return rng.Draws(rng.torch_generator(self.seed, name, step, device=self.device))

    def labels(self, name: str, step: int) -> Tensor:
        """The labels that a phase generates images for, int64 [N]."""
        preset, counts = self.preset, self.reals.counts
        labels: np.ndarray = draw_labels(
            counts, preset.label_power, preset.batch, seed=self.seed, name=name, step=step
        )
        return torch.from_numpy(labels).to(self.device)


def train_step(state: TrainState, game: Game) -> dict[str, Tensor]:
    """Takes one step in place; returns scalar tensors to log, on the device."""
    preset, step = game.preset, state.step
    facts = {"loss_g": _generator_phase(state, game)}
    reals, labels = game.reals.batch(preset.batch, seed=game.seed, step=step)
    facts |= _discriminator_phase(state, game, reals, labels)
    if step % preset.r1_interval == 0:
        facts["r1"] = _r1_phase(state, game, reals, labels)
    state.step = step + 1
    decay = ema_decay(
        preset.batch, state.step * preset.batch, preset.ema_kimg * 1000, preset.ema_ramp
    )
    update_ema(state.average, state.generator, decay)
    return facts


def _fakes(state: TrainState, game: Game, phase: str, labels: Tensor) -> tuple[Tensor, Tensor]:
    """Generated images of a phase and the w they came from: [N,C,H,W], [N,D]."""
    generator, preset = state.generator, game.preset
    draws = game.draws(f"gan.z.{phase}", state.step)
    z = draws.normal(preset.batch, preset.z_dim, device=game.device)
    w = generator.mapping(z, labels, draws=draws)
    images = generator.synthesis(generator.broadcast(w), noise="random", draws=draws)
    return images, w


def _generator_phase(state: TrainState, game: Game) -> Tensor:
    labels = game.labels("gan.label.g", state.step)
    state.discriminator.requires_grad_(False)
    images, w = _fakes(state, game, "g", labels)
    state.generator.mapping.update_w_avg(w.detach())
    images = augment(images, game.preset.augment, game.draws("gan.augment.g", state.step))
    loss = losses.fool_loss(state.discriminator(images, labels)).mean()
    loss.backward()
    state.discriminator.requires_grad_(True)
    _step(state.generator_optimizer)
    return loss.detach()


def _discriminator_phase(
    state: TrainState, game: Game, reals: Tensor, labels: Tensor
) -> dict[str, Tensor]:
    policy, step = game.preset.augment, state.step
    fake_labels = game.labels("gan.label.d", step)
    with torch.no_grad():
        fakes, _ = _fakes(state, game, "d", fake_labels)
    fakes = augment(fakes, policy, game.draws("gan.augment.d", step))
    on_fake = state.discriminator(fakes, fake_labels)
    losses.spot_fake_loss(on_fake).mean().backward()
    reals = augment(reals, policy, game.draws("gan.augment.real", step))
    on_real = state.discriminator(reals, labels)
    losses.spot_real_loss(on_real).mean().backward()
    _step(state.discriminator_optimizer)
    real, fake = on_real.detach(), on_fake.detach()
    loss = losses.spot_real_loss(real).mean() + losses.spot_fake_loss(fake).mean()
    return {"loss_d": loss, "sign_real": real.sign().mean(), "sign_fake": fake.sign().mean()}


def _r1_phase(state: TrainState, game: Game, reals: Tensor, labels: Tensor) -> Tensor:
    """R1 every `r1_interval` steps, weighed by the interval so that gamma keeps its meaning."""
    preset = game.preset
    reals = reals.detach().requires_grad_(True)
    shown = augment(reals, preset.augment, game.draws("gan.augment.r1", state.step))
    penalty = losses.r1_penalty(state.discriminator(shown, labels), reals)
    (penalty.mean() * (preset.r1_gamma / 2 * preset.r1_interval)).backward()
    _step(state.discriminator_optimizer)
    return penalty.detach().mean()


def _step(optimizer: torch.optim.Optimizer) -> None:
    optimizer.step()
    optimizer.zero_grad(set_to_none=True)
