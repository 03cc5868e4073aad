"""A training small enough for tests, stopped where a test wants it and damaged where it lies."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import torch

from stylegan_mix import datasets
from stylegan_mix.presets import PRESETS, Preset
from stylegan_mix.stopping import StopEvent
from stylegan_mix.training import step_inputs
from stylegan_mix.training.plan import TrainPlan, plan_training
from stylegan_mix.training.state import TrainState
from stylegan_mix.training.step_inputs import Game

__all__ = [
    "SCHEDULED",
    "SWITCHES",
    "TINY",
    "StopAfter",
    "damage",
    "small_game",
    "small_preset",
    "tiny_plan",
]

TINY = {"batch": 16, "channel_base": 64, "channel_max": 8, "z_dim": 8, "w_dim": 8}


def tiny_plan(kimg: float = 0.32, **changes: Any) -> TrainPlan:
    """A training of the digits on the CPU with seed 0: by default 20 steps of 16 images."""
    return plan_training(
        datasets.load("digits_lt"),
        preset="tiny8",
        kimg=kimg,
        seed=0,
        device="cpu",
        command="stylegan-mix train",
        changes={**TINY, **changes},
    )


class StopAfter(StopEvent):
    """Asks for a stop when it has been looked at so many times: once a step."""

    def __init__(self, steps: int) -> None:
        super().__init__()
        self.left = steps

    @property
    def requested(self) -> str | None:
        self.left -= 1
        return "minutes" if self.left < 0 else None


def damage(folder: Path) -> None:
    """Flips a bit in the arrays of a container."""
    path = folder / "data.h5"
    path.chmod(0o644)
    data = bytearray(path.read_bytes())
    data[-5] ^= 4
    path.write_bytes(data)


def small_preset(**changes: Any) -> Preset:
    """`tiny8` with the networks and the batch of `tiny_plan`."""
    return dataclasses.replace(PRESETS["tiny8"], **{**TINY, **changes})


def small_game(preset: Preset) -> tuple[TrainState, Game]:
    """A training of the digits before its first step."""
    return step_inputs.begin(preset, datasets.load("digits_lt"), seed=0, device=torch.device("cpu"))


SWITCHES: dict[str, dict[str, Any]] = {
    "path length": {"path_weight": 2.0, "path_interval": 2},
    "style mixing": {"style_mixing": 0.9},
    "merged R1": {"merged_r1": True},
    "diffaugment": {"augment": "color,translation,cutout"},
    "ada": {"augment": "ada", "strength": "0.5"},
    "ada, adaptive": {"augment": "ada:blit,color", "ada_kimg": 0.1, "ada_target": -1.0},
    "noise": {"noise_beta": 0.99},
    "noise in the discriminator": {"critic_label_noise": 0.5},
    "twins": {"twins": 0.01},
    "gsr": {"gsr": 0.5},
    "lecam": {"lecam": 0.3},
    "utlo": {"utlo_resolution": 4},
    "transition": {"transition_end": 1.0},
    "small critic": {"critic_channels": 0.5},
    "growing": {"grow_start": 0.08, "grow_end": 1.0},
    "probe": {"probe_weight": 0.5},
    "warm-up": {"lr_warmup": 0.1},
}

# Everything that begins, ends or is ramped does so within the steps of the test.
SCHEDULED: dict[str, dict[str, Any]] = {
    "ada": {"ada_kimg": 0.5},
    "twins": {"twins_kimg": 0.12},
    "lecam": {"lecam_kimg": 0.12},
    "transition": {"transition_start": 0.1, "transition_end": 0.4},
    "growing": {"grow_start": 0.1, "grow_end": 0.3},
}
