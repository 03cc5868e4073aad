"""The cost of a training, before it starts: exact steps and images, time from timed steps."""

from __future__ import annotations

import time
from typing import Any

import torch

from stylegan_mix.training.captured_steps import player_of
from stylegan_mix.training.plan import TrainPlan
from stylegan_mix.training.step import train_step
from stylegan_mix.training.step_inputs import begin

__all__ = ["estimate"]

# A GPU needs a few steps before it replays one as a graph. On a CPU a replay saves too little time
# to be worth more steps here.
_TIMED_STEPS = {"cpu": 3, "cuda": 15}
# A factor for regularisers, logs, grids and checkpoints, which a plain step lacks.
_OVERHEAD = 1.15
# Two checkpoints, and the state kept for a collapse.
_SAVED = 3


def estimate(plan: TrainPlan, *, start: float = 0.0) -> dict[str, Any]:
    """Estimates a plan's steps, images, seconds (on this machine) and bytes on disk.

    `seconds_left` counts from `start` on, in thousands of images.
    """
    preset, dataset = plan.preset, plan.dataset
    device = torch.device(plan.device)
    state, game = begin(preset, dataset, seed=plan.seed, device=device)
    player, times = player_of(game, graphs=True), []
    for _ in range(1 + _TIMED_STEPS[device.type]):
        began = time.perf_counter()
        train_step(state, game, player)
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        times.append(time.perf_counter() - began)
    steps = plan.steps
    left = steps - round(start * 1000 / preset.batch)
    step_seconds = _OVERHEAD * min(times[1:])
    return {
        "steps": steps,
        "images": steps * preset.batch,
        "seconds": round(step_seconds * steps, 1),
        "seconds_left": round(step_seconds * left, 1),
        "bytes": _SAVED * _bytes(state.state_dict()),
    }


def _bytes(part: Any) -> int:
    if isinstance(part, torch.Tensor):
        return part.numel() * part.element_size()
    if isinstance(part, dict):
        return sum(_bytes(one) for one in part.values())
    if isinstance(part, list):
        return sum(_bytes(one) for one in part)
    return 0
