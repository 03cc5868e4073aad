"""The constants of a training, and the source of each step's inputs: draws, labels, reals."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from stylegan_mix import rng
from stylegan_mix.datasets import Dataset
from stylegan_mix.datasets.class_weights import inverse_effective_number
from stylegan_mix.presets import Preset
from stylegan_mix.training.augmentation.policies import Augmentation, augmentation_named
from stylegan_mix.training.augmentation.strength import Feedback, groups_by
from stylegan_mix.training.batches import RealImages, draw_labels, sent
from stylegan_mix.training.memory import check_memory
from stylegan_mix.training.state import TrainState
from stylegan_mix.training.step_values import Tape
from stylegan_mix.world import World

__all__ = ["Game", "begin", "require_room"]


@dataclass(frozen=True)
class Game:
    """The constants of a training, and the inputs of its steps.

    `groups` [K] is the augmentation group of every class; each group has its own strength.
    `gsr_weights` [K] are the class weights of group spectral regularisation. `attempt` counts how
    often the training was taken back to an earlier step: it then goes on with other draws. With a
    `tape`, all values that change from step to step go through it. `seen_before` counts the images
    that the generator had been shown before this training.
    """

    preset: Preset
    reals: RealImages
    seed: int
    device: torch.device
    augmentation: Augmentation
    groups: Tensor
    feedback: Feedback | None = None
    gsr_weights: Tensor | None = None
    world: World = World()
    attempt: int = 0
    tape: Tape | None = None
    seen_before: int = 0

    @classmethod
    def of(
        cls,
        preset: Preset,
        dataset: Dataset,
        *,
        seed: int,
        device: torch.device,
        world: World = World(),
    ) -> Game:
        """Makes the game of a preset on the training part of a data set."""
        reals = RealImages(
            dataset.train, classes=dataset.num_classes, power=preset.real_power, device=device
        )
        weights, feedback = None, None
        if preset.gsr:
            inverse = inverse_effective_number(dataset.counts, preset.gsr_beta)
            weights = torch.from_numpy(inverse).float().to(device)
        if preset.adapts_strength():
            feedback = Feedback(target=preset.ada_target, kimg=preset.ada_kimg)
        return cls(
            preset=preset,
            reals=reals,
            seed=seed,
            device=device,
            augmentation=augmentation_named(preset.augment),
            groups=torch.tensor(groups_by(preset.ada_groups, dataset.counts).of_class).to(device),
            feedback=feedback,
            gsr_weights=weights,
            world=world,
        )

    def index(self, step: int) -> tuple[int, ...]:
        """Returns the numbers that name the draws of a step, beside their stream."""
        return (step, self.attempt) if self.attempt else (step,)

    def draws(self, name: str, step: int) -> rng.Draws:
        """Returns the draws of the stream `name` at `step`."""
        if self.tape is not None and self.tape.rewound:  # a GPU that captures makes no generator
            return self.tape.answered(self.world.draws(None))
        generator = rng.torch_generator(self.seed, name, *self.index(step), device=self.device)
        draws = self.world.draws(generator)
        if self.tape is None:
            return draws
        return self.tape.draws(draws, lambda at: rng.torch_seed(self.seed, name, *self.index(at)))

    def labels(self, name: str, step: int, batch: int) -> Tensor:
        """Draws this process's rows of the labels to generate in a phase, int64 [N]."""

        def drawn(at: int) -> Tensor:
            labels = draw_labels(
                self.reals.counts,
                self.preset.label_power,
                batch,
                seed=self.seed,
                name=name,
                index=self.index(at),
            )
            return sent(self.world.own(torch.from_numpy(labels)), self.device)

        return self.fresh(step, drawn)

    def real_batch(self, step: int) -> tuple[Tensor, Tensor]:
        """Draws this process's rows of the reals: images [N,C,H,W] in [-1,1], labels [N]."""

        def rows(at: int) -> Tensor:
            batch, index = self.preset.batch, self.index(at)
            return self.reals.rows(batch, seed=self.seed, index=index, world=self.world)

        return self.reals.at(self.fresh(step, rows))

    def number(self, step: int, of: Callable[[int], float]) -> Tensor:
        """Computes a scheduled number, `of` the step, as float32 on the device."""
        return self.fresh(step, lambda at: torch.full((), of(at), device=self.device))

    def fresh(self, step: int, make: Callable[[int], Tensor]) -> Tensor:
        """Returns the value of `make` for the step."""
        return make(step) if self.tape is None else self.tape.value(make)


def require_room(preset: Preset, device: torch.device, world: World = World()) -> None:
    """Raises an error if a training cannot begin on the device, in these processes.

    `UsageFailure` (exit code 2) for a batch that cannot be divided. `MissingEnvironment` (4) for a
    batch, or for networks, that do not fit into memory here.
    """
    world.check_batch(preset.batch, preset.minibatch_std_group)
    check_memory(preset, device, world.size)


def begin(
    preset: Preset,
    dataset: Dataset,
    *,
    seed: int,
    device: torch.device,
    world: World = World(),
) -> tuple[TrainState, Game]:
    """Prepares a training of the preset on a data set: its state before the first step, its game.

    Raises the errors of `require_room`.
    """
    require_room(preset, device, world)
    state = TrainState.fresh(
        preset,
        resolution=dataset.resolution,
        channels=dataset.channels,
        counts=dataset.counts,
        seed=seed,
        device=device,
    )
    return state, Game.of(preset, dataset, seed=seed, device=device, world=world)
