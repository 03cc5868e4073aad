"""The plan of a training: preset, budget, data and device, decided before it starts."""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from stylegan_mix import store
from stylegan_mix.datasets import Dataset
from stylegan_mix.datasets.records import draw_name
from stylegan_mix.errors import UsageFailure
from stylegan_mix.generators import store as generator_store
from stylegan_mix.generators.budget import in_thousands
from stylegan_mix.generators.store import Published
from stylegan_mix.presets import Preset, default_preset, preset_named
from stylegan_mix.process import resolve_device, slow_precision

if TYPE_CHECKING:
    from stylegan_mix.training.warm_start import Start

__all__ = [
    "TrainPlan",
    "check_ahead",
    "finished",
    "plan_text",
    "plan_training",
    "start_of",
    "total_steps",
]


@dataclass(frozen=True)
class TrainPlan:
    """A training and its budget, resolved; `warnings` are printed with it before it starts.

    `init` is the published generator that it begins with, if any.
    """

    dataset: Dataset
    preset: Preset
    kimg: float
    seed: int
    device: str
    command: str
    warnings: tuple[str, ...] = ()
    init: Start | None = None

    def spec(self) -> dict[str, Any]:
        """Names the training by data, preset, seed and start, not by budget, device or folder."""
        return {
            "algorithm": 1,
            "split_id": self.dataset.split_id,
            "preset": self.preset.plain(),
            "seed": self.seed,
            **({"init": self.init.spec()} if self.init else {}),
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
        """Counts the steps that show `kimg` thousand images."""
        return total_steps(kimg, self.preset.batch)

    @property
    def folder(self) -> Path:
        """The folder of the training's checkpoints, log and grids."""
        return store.home() / "training" / self.key

    def shown(self) -> dict[str, Any]:
        """Describes the plan in plain data, for people and for `--json`."""
        return {
            "dataset": self.dataset.name,
            "split_id": self.dataset.split_id,
            "training": self.key[:12],
            "kimg": self.kimg,
            "seed": self.seed,
            "device": self.device,
            **{f"init.{name}": value for name, value in self._begins_with().items()},
            **{f"preset.{name}": value for name, value in self.preset.plain().items()},
            "folder": str(self.folder),
        }

    def _begins_with(self) -> dict[str, Any]:
        return {} if self.init is None else self.init.card(self.dataset.split_id)


def total_steps(kimg: float, batch: int) -> int:
    """Counts the steps that show at least `kimg` thousand images; at least one."""
    return max(-(-int(kimg * 1000) // batch), 1)


def plan_training(
    dataset: Dataset,
    *,
    preset: str | None,
    kimg: float | None,
    seed: int,
    device: str,
    command: str,
    changes: dict[str, Any] | None = None,
    init: Published | None = None,
    fresh_critic: bool = False,
) -> TrainPlan:
    """Resolves a training: the preset (the default is that of the resolution) and its budget.

    It begins with the weights of the generator `init` and, unless `fresh_critic`, of its
    discriminator. Raises the errors of the checks of a preset and of `start_from`.
    """
    from stylegan_mix.training.batch_sizes import largest_within
    from stylegan_mix.training.preset_checks import beyond, check, check_effect
    from stylegan_mix.training.warm_start import WARMUP_KIMG, start_from

    chosen_device = resolve_device(device)
    size = dataset.resolution
    chosen = (
        preset_named(preset, size)
        if preset
        else default_preset(size, chosen_device, dataset=dataset.name)
    )
    changes = dict(changes or {})
    if init is not None:
        changes.setdefault("lr_warmup", WARMUP_KIMG)
    chosen = replace(chosen, **changes)
    chosen = replace(chosen, precision=resolve_precision(chosen, chosen_device))
    check(chosen)
    check_effect(chosen, changes)
    start = None
    if init is not None:
        start = start_from(init, chosen, dataset, fresh_critic=fresh_critic)
    images = len(dataset.train)
    asked, chosen = chosen.batch, replace(chosen, batch=largest_within(chosen, images))
    budget = kimg or chosen.kimg
    warnings = [f"warning: {text}" for text in beyond(chosen, budget)]
    if min(dataset.counts) == 1:
        warnings.insert(0, "warning: a class with one image; its generated images will repeat it")
    if slow := slow_precision(chosen.precision, chosen_device):
        warnings.insert(0, slow)
    if chosen.batch < asked:
        warnings.insert(0, smaller_batch(chosen.batch, asked, images))
    if start:
        warnings += start.lines(dataset.split_id)
    return TrainPlan(dataset, chosen, budget, seed, chosen_device, command, tuple(warnings), start)


def smaller_batch(batch: int, asked: int, images: int) -> str:
    """Tells that a training set is smaller than the batch of `asked` images."""
    return f"batch {batch}, not {asked}: the training part has {images:,} images"


def resolve_precision(preset: Preset, device: str) -> str:
    """Chooses the dtype of the preset's convolutions on that device, if the preset says `mixed`."""
    import torch

    if preset.precision != "mixed":
        return preset.precision
    if not device.startswith("cuda"):
        return "float32"
    native = torch.cuda.is_bf16_supported(including_emulation=False)
    return "bfloat16" if native else "float16"


def finished(plan: TrainPlan) -> list[Published]:
    """Finds the published generators of this plan's last step; none before it ends.

    The main one comes first. EMAs that a ramp kept equal are one generator. A damaged generator is
    `InvalidInput`.
    """
    found: dict[float, Published] = {}
    for published in generator_store.of_training(plan.key):
        card = published.card
        if plan.steps_for(card["kimg"]) == plan.steps:
            found.setdefault(card.get("half_life", 0.0), generator_store.check(published))
    wanted = [0.0, *plan.preset.half_lives()]
    return [found[kimg] for kimg in wanted if kimg in found] if 0.0 in found else []


def start_of(plan: TrainPlan) -> float:
    """Reads the thousands of images from which the plan's training will go on; 0 if it is new.

    `UsageFailure` (exit code 2) if they are more than its budget.
    """
    from stylegan_mix.training.saves import Saves

    step = Saves(plan.folder).newest_step
    check_ahead(plan, step)
    return step * plan.preset.batch / 1000


def check_ahead(plan: TrainPlan, step: int) -> None:
    """Raises `UsageFailure` if a training has taken more steps than the plan's budget."""
    if step <= plan.steps:
        return
    there = {
        one.card["kimg"]: one.hash[:12]
        for one in generator_store.of_training(plan.key)
        if "half_life" not in one.card
    }
    known = ", ".join(
        f"{kimg:g} thousand images (generator {there[kimg]})" for kimg in sorted(there)
    )
    take = f"take one that is there, such as --kimg {max(there):g}, or " if there else ""
    raise UsageFailure(
        f"this training stands at {step * plan.preset.batch / 1000:g} thousand images, past the "
        f"{plan.kimg:g} that were asked for, and no generator was published there; published: "
        f"{known or 'none'}",
        remedy=f"{take}train on with a longer --kimg, or anew with another --seed",
    )


def plan_text(plan: TrainPlan, *, done: bool = False, start: float = 0.0) -> str:
    """Describes a plan, its cost in steps, and its progress, `start` in thousands of images."""
    preset = plan.preset
    going_on = f"to go on with from {start:g} thousand images" if start else "to train"
    state = "finished already" if done else going_on
    return (
        f"{plan.dataset.name} ({draw_name(plan.dataset.imbalance)}, "
        f"{len(plan.dataset.train.labels):,} images, split {plan.dataset.split_id[:12]})\n"
        f"preset {preset.name}{_changed(preset)}: {in_thousands(plan.kimg)} = {plan.steps:,} steps "
        f"of {preset.batch}, {preset.precision} on {plan.device}, seed {plan.seed}: {state}\n"
        f"training {plan.key[:12]} in {plan.folder}"
    )


def _changed(preset: Preset) -> str:
    """Lists in words the differences from the preset of that name."""
    own, named = asdict(preset), asdict(preset_named(preset.name, preset.resolution))
    changed = [f"{name} {own[name]}" for name in own if own[name] != named[name]]
    return f" with {', '.join(changed)}" if changed else ""
