"""The cost of a training, before it starts: exact steps and images, a range of time from few steps.

A step of the whole batch may take minutes. So the time is first guessed from the arithmetic of a
step and the speed of one convolution. Then a step is timed on as many images as there is time for
(`stylegan_mix.estimates`).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np
import torch

from stylegan_mix.datasets import Dataset, Part
from stylegan_mix.estimates import ALLOWANCE, Form, Span, measured
from stylegan_mix.networks.build import PRECISIONS
from stylegan_mix.networks.shape import block_resolutions, channels_at
from stylegan_mix.presets import Preset
from stylegan_mix.process import one_thread_if_busy
from stylegan_mix.training.batch_sizes import batches_up_to
from stylegan_mix.training.captured_steps import player_of
from stylegan_mix.training.disk_room import disk_bytes
from stylegan_mix.training.pace import Pace, pace_of
from stylegan_mix.training.plan import TrainPlan
from stylegan_mix.training.probe_features import multiplications
from stylegan_mix.training.schedules import is_half
from stylegan_mix.training.step import train_step
from stylegan_mix.training.step_inputs import begin, require_room

__all__ = ["Cost", "estimate", "forms", "step_seconds"]

# A GPU needs a few steps before it replays one as a graph. On a CPU a replay saves too little time
# to be worth more steps here.
_TIMED_STEPS = {"cpu": 8, "cuda": 15}
# Factors for regularisers, logs, grids and checkpoints, which a plain step lacks.
_LEAST, _MOST = 1.05, 1.4
# A step is faster than the one convolution if its operators are better, and slower because of all
# that is not a convolution.
_LEAST_GUESS, _MOST_GUESS = 0.6, 4.0
# Passes through a network in a plain step: forward once, backward once for the images and once for
# the weights. The generator has all three in its own phase, and one in that of the discriminator,
# which has two in the former, and three each on real and generated images.
_PASSES_OF_GENERATOR, _PASSES_OF_DISCRIMINATOR = 4, 8
# Through frozen features: in the generator's phase forward and back, else forward on both batches.
_PASSES_OF_FEATURES = 4
# Threads make a step faster by their number to this power.
_GAIN_OF_THREADS = 0.75
# Side, channels and rows of the convolution that is tried; how often, and for how many seconds.
_TRIED_SIZE, _TRIED_WIDE, _TRIED_ROWS = 32, 64, {"cpu": 2, "cuda": 64}
_TRIED_TIMES, _TRIED_SECONDS = 200, 1.0


@dataclass(frozen=True)
class Cost:
    """The cost of a plan on this machine: `left` is the time from where the training stands.

    `bytes` are those that it takes on the disk while it runs, at most.
    """

    steps: int
    images: int
    whole: Span
    left: Span
    bytes: int

    def plain(self) -> dict[str, Any]:
        """Lists the cost for JSON; times are [low, high] in seconds, None if they say nothing."""
        return {
            "steps": self.steps,
            "images": self.images,
            "seconds": self.whole.plain(),
            "seconds_left": self.left.plain(),
            "bytes": self.bytes,
        }

    def in_words(self, start: float) -> str:
        """Puts the cost into words; `start` is the kimg to go on from."""
        room = f"{self.bytes / 1e6:,.1f} MB on the disk while it runs"
        if not self.whole.says_something:
            return (
                "no estimate of the time: this machine is too slow for the steps that would tell; "
                f"{room}"
            )
        whole = f"{self.whole.in_words()} from the beginning on this machine"
        rest = f", {self.left.in_words()} from {start:g} thousand images on" if start else ""
        return f"{whole}{rest}, {room}"


def estimate(plan: TrainPlan, *, start: float = 0.0, pace: Pace | None = None) -> Cost:
    """Estimates the cost of a plan that goes on from `start` thousand images, in a few seconds.

    `pace` is that of the training if it was measured before. Raises the errors of a training that
    cannot begin: see `require_room`.
    """
    pace = pace or pace_of(plan, step_seconds)
    return Cost(
        steps=plan.steps,
        images=plan.steps * plan.preset.batch,
        whole=pace.between(0, plan.steps),
        left=pace.between(round(start * 1000 / plan.preset.batch), plan.steps),
        bytes=disk_bytes(plan),
    )


def step_seconds(plan: TrainPlan, *, allowance: float = ALLOWANCE) -> Span:
    """Estimates the seconds of the first step with its share of other work, in `allowance` s."""
    device = torch.device(plan.device)
    require_room(plan.preset, device)
    with one_thread_if_busy() as threads:
        guess = _guess(plan.preset, device)
        step = measured(forms(plan), guess=guess, allowance=allowance)
    return step.in_threads(threads).stretched(_LEAST, _MOST)


def forms(plan: TrainPlan) -> list[Form]:
    """Lists first steps of the plan on batches of growing size, at last its own."""
    few = replace(plan, dataset=_one_image_a_class(plan.dataset))
    return [
        Form(
            work=batch,
            prepare=partial(_steps, replace(few, preset=replace(plan.preset, batch=batch))),
            runs=_TIMED_STEPS[torch.device(plan.device).type] if batch == plan.preset.batch else 2,
        )
        for batch in batches_up_to(plan.preset)
    ]


def _guess(preset: Preset, device: torch.device) -> Span:
    """Guesses the seconds of a plain step by its arithmetic and the speed of one convolution."""
    seconds = preset.batch * _operations(preset) / _operations_a_second(preset, device)
    return Span(seconds, seconds).stretched(_LEAST_GUESS, _MOST_GUESS)


def _operations(preset: Preset) -> int:
    """Counts the multiplications of the 3x3 convolutions of a plain step, for each image."""
    sizes = block_resolutions(preset.resolution)[: -1 if is_half(preset, 0) else None]
    generator = _of_blocks(sizes, preset.channel_base, preset.channel_max)
    critic = _of_blocks(sizes, *preset.critic_widths())
    features = multiplications(preset.resolution) if preset.probe_weight else 0
    return (
        _PASSES_OF_GENERATOR * generator
        + _PASSES_OF_DISCRIMINATOR * critic
        + _PASSES_OF_FEATURES * features
    )


def _of_blocks(sizes: list[int], base: int, most: int) -> int:
    """Counts the multiplications of the 3x3 convolutions of blocks of these sizes."""
    channels = [channels_at(size, base, most) for size in sizes]
    before = [0, *channels]
    return sum(
        9 * size**2 * own * (one + own)
        for size, own, one in zip(sizes, channels, before, strict=False)
    )


def _operations_a_second(preset: Preset, device: torch.device) -> float:
    """Measures the speed of a 3x3 convolution that is like those of the preset, but small.

    On a CPU it runs in one thread, since several that share a busy core wait for each other.
    """
    size = min(preset.resolution, _TRIED_SIZE)
    channels = min(max(channels_at(size, preset.channel_base, preset.channel_max), 16), _TRIED_WIDE)
    rows = _TRIED_ROWS[device.type]
    dtype = PRECISIONS[preset.precision]
    images = torch.ones(rows, channels, size, size, dtype=dtype, device=device)
    weight = torch.ones(channels, channels, 3, 3, dtype=dtype, device=device)

    def convolve() -> None:
        torch.nn.functional.conv2d(images, weight, padding=1)
        _wait_for(device)

    work = 9 * rows * channels**2 * size**2
    threads = torch.get_num_threads()
    try:
        torch.set_num_threads(1)
        with torch.no_grad():
            tried = Form(work, lambda: convolve, runs=_TRIED_TIMES)
            seconds = measured([tried], allowance=_TRIED_SECONDS).low
    finally:
        torch.set_num_threads(threads)
    return work / seconds * (threads if device.type == "cpu" else 1) ** _GAIN_OF_THREADS


def _steps(plan: TrainPlan) -> Callable[[], None]:
    """Prepares a training of its own, and returns the function that takes a step of it."""
    device = torch.device(plan.device)
    state, game = begin(plan.preset, plan.dataset, seed=plan.seed, device=device)
    player = player_of(game, graphs=device.type == "cuda")

    def step() -> None:
        train_step(state, game, player)
        _wait_for(device)

    return step


def _wait_for(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def _one_image_a_class(dataset: Dataset) -> Dataset:
    """Takes the first image of each class: a step needs no more, and a whole set takes a while."""
    labels, rows = np.unique(dataset.train.labels, return_index=True)
    return replace(dataset, train=Part(dataset.train.images[rows], labels.astype(np.int64)))
