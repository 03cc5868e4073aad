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

from stylegan_mix import store
from stylegan_mix.datasets import Dataset
from stylegan_mix.errors import Diverged, Stopped, UsageFailure
from stylegan_mix.generators import store as generator_store
from stylegan_mix.generators.store import Published
from stylegan_mix.presets import Preset, default_preset, preset_named
from stylegan_mix.process import resolve_device
from stylegan_mix.progress import StopSignals, say

if TYPE_CHECKING:
    from stylegan_mix.training.game import Game
    from stylegan_mix.training.state import TrainState
    from stylegan_mix.training.world import World

__all__ = [
    "TrainPlan",
    "Trained",
    "ensure_generator",
    "finished",
    "plan_training",
    "run_training",
    "start_of",
]


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
    def steps(self) -> int:
        """The number of steps that its budget takes."""
        return self.steps_for(self.kimg)

    def steps_for(self, kimg: float) -> int:
        """The number of its steps that show so many thousand images."""
        from stylegan_mix.training.loop import total_steps

        return total_steps(kimg, self.preset.batch)

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
    from stylegan_mix.training.settings import beyond, check, check_effect

    chosen_device = resolve_device(device)
    size = dataset.resolution
    chosen = preset_named(preset, size) if preset else default_preset(size, chosen_device)
    chosen = dataclasses.replace(chosen, **(changes or {}))
    chosen = dataclasses.replace(chosen, precision=resolve_precision(chosen, chosen_device))
    check(chosen)
    check_effect(chosen, changes or {})
    plan = TrainPlan(dataset, chosen, kimg or chosen.kimg, seed, chosen_device, command)
    if min(dataset.counts) == 1:
        say("warning: a class with one image; its generated images will repeat it")
    for text in beyond(chosen, plan.kimg):
        say(f"warning: {text}")
    return plan


def resolve_precision(preset: Preset, device: str) -> str:
    """The dtype of the preset's convolutions on that device, where it says `mixed`."""
    import torch

    if preset.precision != "mixed":
        return preset.precision
    if not device.startswith("cuda"):
        return "float32"
    native = torch.cuda.is_bf16_supported(including_emulation=False)
    return "bfloat16" if native else "float16"


def finished(plan: TrainPlan) -> list[Published]:
    """The published generators of this plan's last step, the main one first; empty before it ends.

    Averages that a ramp kept equal are one generator. One that is damaged is `InvalidInput`.
    """
    found: dict[float, Published] = {}
    for published in generator_store.find(split_id=plan.dataset.split_id):
        card = published.card
        if card.get("training") == plan.key and plan.steps_for(card["kimg"]) == plan.steps:
            found.setdefault(card.get("half_life", 0.0), generator_store.check(published))
    wanted = [0.0, *plan.preset.half_lives()]
    return [found[kimg] for kimg in wanted if kimg in found] if 0.0 in found else []


def start_of(plan: TrainPlan) -> float:
    """The thousands of images that the plan's training has seen and goes on from; 0: none yet.

    `UsageFailure` (exit code 2) where they are more than its budget.
    """
    from stylegan_mix.training.loop import saved_states

    steps = [place.newest for place in saved_states(plan.folder)]
    step = next((step for step in steps if step is not None), 0)
    _check_ahead(plan, step)
    return step * plan.preset.batch / 1000


def _check_ahead(plan: TrainPlan, step: int) -> None:
    """`UsageFailure` where a training that has taken so many steps is past the plan's budget."""
    if step <= plan.steps:
        return
    there = {
        one.card["kimg"]: one.hash[:12]
        for one in generator_store.find(split_id=plan.dataset.split_id)
        if one.card.get("training") == plan.key and "half_life" not in one.card
    }
    known = ", ".join(f"{kimg:g} kimg (generator {there[kimg]})" for kimg in sorted(there))
    take = f"take one that is there, such as --kimg {max(there):g}, or " if there else ""
    raise UsageFailure(
        f"this training stands at {step * plan.preset.batch / 1000:g} kimg, past the "
        f"{plan.kimg:g} that were asked for, and no generator was published there; published: "
        f"{known or 'none'}",
        remedy=f"{take}train on with a longer --kimg, or anew with another --seed",
    )


def run_training(
    plan: TrainPlan, stop: StopSignals, *, save_minutes: float = 1.0, graphs: bool = True
) -> list[Published]:
    """Trains, going on from what is there, and publishes; what is finished is given at once.

    A checkpoint is written every `save_minutes`, and when `stop` asks for one. With `graphs` a
    single process replays its steps, which changes nothing but the time. Gives one
    generator for each half-life, the main one first. Under torchrun every process calls this with
    the same plan: the first writes, and the others give an empty list.
    """
    from stylegan_mix.training.publication import publish_all
    from stylegan_mix.training.world import joined

    with joined(plan.device, stop) as world:
        if not world.leads:
            with suppress(Stopped, Diverged):  # all end so: the leader answers for them
                train_on_plan(plan, stop, save_minutes, graphs, world)
            return []
        with store.locked(store.home() / "training" / f"{plan.key}.lock", stop=stop):
            there = finished(plan)
            if there and world.size == 1:
                return there
            return publish_all(plan, train_on_plan(plan, stop, save_minutes, graphs, world))


def train_on_plan(
    plan: TrainPlan, stop: StopSignals, save_minutes: float, graphs: bool, world: World
) -> Trained:
    """Trains this process's share of the plan up to its budget."""
    import torch

    from stylegan_mix.training.game import begin
    from stylegan_mix.training.loop import Rhythm, train

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
    _check_ahead(plan, state.step)
    if world.leads:
        say(f"trained in {time.monotonic() - began:,.0f} s")
    return Trained(state, game, numerics)


def ensure_generator(plan: TrainPlan, stop: StopSignals) -> Published:
    """The newest finished generator of the plan's split, or the one that the plan trains."""
    existing = generator_store.find(split_id=plan.dataset.split_id)
    return existing[0] if existing else run_training(plan, stop)[0]
