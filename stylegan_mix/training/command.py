"""A training as a command runs it: the plan, its place in the store, the finished generator.

A training is a path and budgets are stops on it: its key names data, preset and seed, but not
kimg, so a longer budget goes on from a shorter one, with the same weights as one long run.
"""

from __future__ import annotations

import dataclasses
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from stylegan_mix import generators, store
from stylegan_mix.console import MissingEnvironment, Stopped, StopSignals, UsageFailure, say
from stylegan_mix.datasets import Dataset
from stylegan_mix.generators import Published
from stylegan_mix.presets import Preset, default_preset, preset_named

if TYPE_CHECKING:
    from torch import Tensor

    from stylegan_mix.networks import Generator
    from stylegan_mix.training.game import Game
    from stylegan_mix.training.state import TrainState
    from stylegan_mix.training.world import World

__all__ = ["TrainPlan", "ensure_generator", "finished", "plan_training", "run_training"]


@dataclass(frozen=True)
class Trained:
    """A training that has reached its budget."""

    state: TrainState
    game: Game
    numerics: list[dict[str, str | int]]


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
    chosen_device = resolve_device(device)
    size = dataset.resolution
    chosen = preset_named(preset, size) if preset else default_preset(size, chosen_device)
    chosen = dataclasses.replace(chosen, **(changes or {}))
    chosen = dataclasses.replace(chosen, precision=resolve_precision(chosen, chosen_device))
    _check(chosen)
    _check_effect(chosen, changes or {})
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


def resolve_precision(preset: Preset, device: str) -> str:
    """The dtype of the preset's convolutions on that device, where it says `mixed`."""
    import torch

    if preset.precision != "mixed":
        return preset.precision
    if device != "cuda":
        return "float32"
    native = torch.cuda.is_bf16_supported(including_emulation=False)
    return "bfloat16" if native else "float16"


def _check(preset: Preset) -> None:
    """`UsageFailure` (exit code 2) where settings of a preset cannot go together."""
    from stylegan_mix.networks.shape import check_conditioning
    from stylegan_mix.training.augment import augmentation_named
    from stylegan_mix.training.strength import groups_by

    if preset.transition_start > preset.transition_end:
        raise UsageFailure(
            f"--transition-start {preset.transition_start:g} lies behind --transition-end "
            f"{preset.transition_end:g}"
        )
    try:
        check_conditioning(
            resolution=preset.resolution,
            classes=1,
            utlo_resolution=preset.utlo_resolution,
            transitional=preset.transition_end > 0,
        )
    except ValueError as error:
        raise UsageFailure(str(error)) from error
    augmentation = augmentation_named(preset.augment)
    warps = augmentation.uses_strength and "geometry" in augmentation.names
    if warps and preset.utlo_resolution == 4:
        raise UsageFailure(
            "the geometry of ada cannot move images of 4 pixels, those of --utlo-resolution 4",
            remedy="--utlo-resolution 8, or --augment ada:blit,color",
        )
    groups_by(preset.ada_groups, [1])
    _check_strength(preset.strength)
    if preset.adapts_strength() and not preset.ada_kimg:
        raise UsageFailure(
            "--ada-kimg 0 leaves an adaptive strength no images to rise over",
            remedy="--ada-kimg 500, as published, or a fixed --strength",
        )
    preset.half_lives()
    if preset.path_weight and not preset.path_interval:
        raise UsageFailure("--path-weight needs a --path-interval, such as 4")
    if preset.twins and preset.batch % 2:
        raise UsageFailure(f"--twins needs an even batch, got {preset.batch}")
    if preset.twins and not preset.label_noise:
        raise UsageFailure(
            "--twins compares two draws of the label noise, and --label-noise is 0",
            remedy="--label-noise 0.75, as published for CIFAR-10-LT",
        )


# What each of these settings belongs to: alone it would change nothing but the training's name.
_BELONGS_TO = {
    "strength": ("augment", "ada"),
    "ada_target": ("augment", "ada"),
    "ada_kimg": ("augment", "ada"),
    "ada_groups": ("augment", "ada"),
    "noise_beta": ("label_noise", "0.75"),
    "twins_gamma": ("twins", "0.01"),
    "twins_kimg": ("twins", "0.01"),
    "gsr_beta": ("gsr", "0.5"),
    "lecam_kimg": ("lecam", "0.3"),
    "utlo_weight": ("utlo_resolution", "8"),
}


def _check_effect(preset: Preset, changes: dict[str, Any]) -> None:
    """`UsageFailure` where a changed setting has no effect for want of another one."""
    from stylegan_mix.training.augment import augmentation_named

    is_on = {
        "augment": augmentation_named(preset.augment).uses_strength,
        "label_noise": bool(preset.label_noise or preset.critic_label_noise),
    }
    for name in changes:
        owner, such_as = _BELONGS_TO.get(name, ("", ""))
        if owner and changes[name] and not is_on.get(owner, getattr(preset, owner)):
            option, needed = (one.replace("_", "-") for one in (name, owner))
            raise UsageFailure(
                f"--{option} {changes[name]} changes nothing without --{needed}",
                remedy=f"add --{needed} {such_as}, or leave it out",
            )


def _check_strength(text: str) -> None:
    try:
        sound = text == "adaptive" or 0 <= float(text) <= 1
    except ValueError:
        sound = False
    if not sound:
        raise UsageFailure(f"--strength must be adaptive or a number from 0 to 1, got '{text}'")


def finished(plan: TrainPlan) -> list[Published]:
    """The published generators of exactly this plan, the main one first; empty before it ends.

    Averages that a ramp kept equal are one generator. One that is damaged is `InvalidInput`.
    """
    found: dict[float, Published] = {}
    for published in generators.find(split_id=plan.dataset.split_id):
        card = published.card
        if (card.get("training"), card.get("kimg")) == (plan.key, plan.kimg):
            found.setdefault(card.get("half_life", 0.0), generators.check(published))
    wanted = [0.0, *plan.preset.half_lives()]
    return [found[kimg] for kimg in wanted if kimg in found] if 0.0 in found else []


def run_training(
    plan: TrainPlan, stop: StopSignals, *, save_minutes: float = 1.0, graphs: bool = True
) -> list[Published]:
    """Trains, going on from what is there, and publishes; what is finished is given at once.

    A checkpoint is written every `save_minutes`, and when `stop` asks for one. With `graphs` a
    single GPU replays steps as CUDA graphs, which changes nothing but the time. Gives one
    generator for each half-life, the main one first. Under torchrun every process calls this with
    the same plan: the first writes, and the others give an empty list.
    """
    from stylegan_mix.training.world import joined

    with joined(plan.device, stop) as world:
        if not world.leads:
            with suppress(Stopped):  # the leader answers for all
                train_on_plan(plan, stop, save_minutes, graphs, world)
            return []
        with store.locked(store.home() / "training" / f"{plan.key}.lock", stop=stop):
            there = finished(plan)
            if there and world.size == 1:
                return there
            return _publish(plan, train_on_plan(plan, stop, save_minutes, graphs, world))


def train_on_plan(
    plan: TrainPlan, stop: StopSignals, save_minutes: float, graphs: bool, world: World
) -> Trained:
    """Trains this process's share of the plan up to its budget."""
    import torch

    from stylegan_mix.training.game import begin
    from stylegan_mix.training.loop import Rhythm, total_steps, train

    dataset, preset, device = plan.dataset, plan.preset, torch.device(plan.device)
    state, game = begin(preset, dataset, seed=plan.seed, device=device, world=world)
    if world.leads:
        store.write_json(plan.folder / "plan.json", plan.shown())
    world.barrier()
    began = time.monotonic()
    numerics = train(
        state,
        game,
        dataset,
        kimg=plan.kimg,
        folder=plan.folder,
        stop=stop,
        rhythm=Rhythm(save_seconds=60 * save_minutes),
        graphs=graphs,
    )
    if state.step > total_steps(plan.kimg, preset.batch):
        raise UsageFailure(
            f"this training stands at {state.step * preset.batch / 1000:g} kimg, past the "
            f"{plan.kimg:g} that were asked for, and no generator was published there",
            remedy="ask for a longer budget, or another --seed",
        )
    if world.leads:
        say(f"trained in {time.monotonic() - began:,.0f} s")
    return Trained(state, game, numerics)


def _publish(plan: TrainPlan, trained: Trained) -> list[Published]:
    """Publishes every average; the main one last, so that it is the newest."""
    from stylegan_mix import checkpoint
    from stylegan_mix.training.alarms import dead
    from stylegan_mix.training.diversity import diversity_ratios
    from stylegan_mix.training.loop import class_samples_of
    from stylegan_mix.training.picture import class_grid, watched_classes

    dataset, preset, state = plan.dataset, plan.preset, trained.state
    published = []
    main = checkpoint.weights_sha256(_weights(state.average))
    for average, half_life in reversed(state.averages(preset)):
        weights = _weights(average)
        if average is not state.average and checkpoint.weights_sha256(weights) == main:
            continue  # kept equal by the ramp: one generator, whose card is that of the main one
        samples = class_samples_of(average, trained.game, 200, watched_classes(dataset.counts))
        ratios = diversity_ratios(samples, dataset.train)
        card: dict[str, Any] = {
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
            "operators": trained.numerics[-1]["operators"],
            "diversity": [ratios.get(label) for label in range(dataset.num_classes)],
            "command": plan.command,
        }
        if average is not state.average:
            card["half_life"] = half_life
        if len(trained.numerics) > 1:
            card["numerics"] = trained.numerics
        if state.attempt:
            card["attempts"] = state.attempt + 1
        grid = class_grid({label: few[:10] for label, few in samples.items()}, dataset)
        published.append(generators.publish(weights, card, grid))
    if flat := [dataset.classes[label] for label in dead(ratios)]:
        say(f"warning: little but one picture is drawn of {', '.join(flat)}")
    return published[::-1]


def _weights(network: Generator) -> dict[str, Tensor]:
    return {name: value.cpu() for name, value in network.state_dict().items()}


def ensure_generator(plan: TrainPlan, stop: StopSignals) -> Published:
    """The newest finished generator of the plan's split, or the one that the plan trains."""
    existing = generators.find(split_id=plan.dataset.split_id)
    return existing[0] if existing else run_training(plan, stop)[0]
