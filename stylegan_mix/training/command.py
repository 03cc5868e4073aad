"""A training as a command runs it: the plan, its place in the store, the finished generator.

A training is a path and budgets are stops on it: its key names data, preset and seed, but not
kimg, so a longer budget goes on from a shorter one, with the same weights as one long run.
"""

from __future__ import annotations

import dataclasses
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from stylegan_mix import generators, store
from stylegan_mix.console import MissingEnvironment, StopSignals, UsageFailure, say
from stylegan_mix.datasets import Dataset
from stylegan_mix.generators import Published
from stylegan_mix.networks.operators import operators_on
from stylegan_mix.presets import Preset, default_preset, preset_named

__all__ = ["TrainPlan", "ensure_generator", "finished", "plan_training", "run_training"]


@dataclass(frozen=True)
class TrainPlan:
    """A training and its budget, resolved: what is printed before it starts."""

    dataset: Dataset
    preset: Preset
    kimg: float
    seed: int
    device: str
    command: str

    def spec(self) -> dict[str, Any]:
        """What names the training: data, preset, seed; not the budget, device or place."""
        return {
            "algorithm": 1,
            "split_id": self.dataset.split_id,
            "preset": self.preset.plain(),
            "seed": self.seed,
        }

    @property
    def key(self) -> str:
        """The digest of `spec`."""
        return store.digest(self.spec())

    @property
    def folder(self) -> Path:
        """Where the training's checkpoints, log and grids lie."""
        return store.home() / "training" / self.key

    def shown(self) -> dict[str, Any]:
        """The plan as plain data for people and for `--json`."""
        return {
            "dataset": self.dataset.name,
            "split_id": self.dataset.split_id,
            "training": self.key[:12],
            "kimg": self.kimg,
            "seed": self.seed,
            "device": self.device,
            **{f"preset.{name}": value for name, value in self.preset.plain().items()},
            "folder": str(self.folder),
        }


def plan_training(
    dataset: Dataset,
    *,
    preset: str | None,
    kimg: float | None,
    seed: int,
    device: str,
    command: str,
    changes: dict[str, Any] | None = None,
) -> TrainPlan:
    """Resolves a training: the preset (by default that of the resolution) and its budget."""
    from stylegan_mix.training.augment import checked_policy

    chosen_device = resolve_device(device)
    chosen = preset_named(preset) if preset else default_preset(dataset.resolution)
    chosen = dataclasses.replace(chosen, **(changes or {}))
    if chosen.resolution != dataset.resolution:
        raise UsageFailure(
            f"preset '{chosen.name}' is for {chosen.resolution} pixels, {dataset.name} has "
            f"{dataset.resolution}"
        )
    checked_policy(chosen.augment)
    if min(dataset.counts) == 1:
        say("warning: a class with one image; its generated images will repeat it")
    return TrainPlan(dataset, chosen, kimg or chosen.kimg, seed, chosen_device, command)


def resolve_device(device: str) -> str:
    """ "cpu" or "cuda" for the option's value; asking for CUDA where there is none is error 4."""
    import torch

    if device not in ("auto", "cpu", "cuda"):
        raise UsageFailure(f"--device must be auto, cpu or cuda, got '{device}'")
    if device == "cuda" and not torch.cuda.is_available():
        raise MissingEnvironment(
            "--device cuda, but torch finds no CUDA device", remedy="use --device cpu or auto"
        )
    return "cuda" if device != "cpu" and torch.cuda.is_available() else "cpu"


def finished(plan: TrainPlan) -> Published | None:
    """The published generator of exactly this plan, if there is one."""
    for published in generators.find(split_id=plan.dataset.split_id):
        card = published.card
        if card["training"] == plan.key and card["kimg"] == plan.kimg:
            return published
    return None


def run_training(plan: TrainPlan, stop: StopSignals, *, save_minutes: float = 1.0) -> Published:
    """Trains, going on from what is there, and publishes; a finished one is given at once.

    A checkpoint is written every `save_minutes`, and when `stop` asks for one.
    """
    with store.locked(store.home() / "training" / f"{plan.key}.lock"):
        return finished(plan) or _train_and_publish(plan, stop, save_minutes)


def _train_and_publish(plan: TrainPlan, stop: StopSignals, save_minutes: float) -> Published:
    import torch

    from stylegan_mix.training.batches import RealImages
    from stylegan_mix.training.diversity import diversity_ratios
    from stylegan_mix.training.loop import Rhythm, class_samples_of, total_steps, train
    from stylegan_mix.training.picture import class_grid
    from stylegan_mix.training.state import TrainState
    from stylegan_mix.training.step import Game

    dataset, preset, device = plan.dataset, plan.preset, torch.device(plan.device)
    operators = operators_on(plan.device)
    state = TrainState.fresh(
        preset,
        resolution=dataset.resolution,
        channels=dataset.channels,
        classes=dataset.num_classes,
        seed=plan.seed,
        device=device,
    )
    reals = RealImages(
        dataset.train, classes=dataset.num_classes, power=preset.real_power, device=device
    )
    game = Game(preset, reals, plan.seed, device)
    plan.folder.mkdir(parents=True, exist_ok=True)
    store.write_json(plan.folder / "plan.json", plan.shown())
    began = time.monotonic()
    rhythm = Rhythm(save_seconds=60 * save_minutes)
    train(state, game, dataset, kimg=plan.kimg, folder=plan.folder, stop=stop, rhythm=rhythm)
    if state.step > total_steps(plan.kimg, preset.batch):
        raise UsageFailure(
            f"this training stands at {state.step * preset.batch / 1000:g} kimg, past the "
            f"{plan.kimg:g} that were asked for, and no generator was published there",
            remedy="ask for a longer budget, or another --seed",
        )
    samples = class_samples_of(state.average, game, 200)
    card = {
        "dataset": dataset.name,
        "split_id": dataset.split_id,
        "test_id": dataset.test_id,
        "profile": dataset.profile,
        "imbalance": dataset.imbalance,
        "split_seed": dataset.split_seed,
        "classes": list(dataset.classes),
        "counts": [int(count) for count in dataset.counts],
        "resolution": dataset.resolution,
        "channels": dataset.channels,
        "training": plan.key,
        "preset": {**preset.plain(), "kimg": preset.kimg},
        "kimg": plan.kimg,
        "seed": plan.seed,
        "operators": operators,
        "diversity": diversity_ratios(samples, dataset.train),
        "command": plan.command,
    }
    grid = class_grid([few[:10] for few in samples], dataset)
    published = generators.publish(state.average.cpu().state_dict(), card, grid)
    say(f"trained in {time.monotonic() - began:,.0f} s")
    return published


def ensure_generator(plan: TrainPlan, stop: StopSignals) -> Published:
    """The newest finished generator of the plan's split, or the one that the plan trains."""
    existing = generators.find(split_id=plan.dataset.split_id)
    return existing[0] if existing else run_training(plan, stop)
