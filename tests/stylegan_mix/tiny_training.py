"""A training small enough for tests, stopped where a test wants it and damaged where it lies."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from stylegan_mix import datasets
from stylegan_mix.console import StopSignals
from stylegan_mix.training import command

__all__ = ["TINY", "StopAfter", "damage", "tiny_plan"]

TINY = {"batch": 16, "channel_base": 64, "channel_max": 8, "z_dim": 8, "w_dim": 8}


def tiny_plan(kimg: float = 0.32, **changes: Any) -> command.TrainPlan:
    """A training of the digits on the CPU with seed 0: by default 20 steps of 16 images."""
    return command.plan_training(
        datasets.load("digits_lt"),
        preset="tiny8",
        kimg=kimg,
        seed=0,
        device="cpu",
        command="stylegan-mix train",
        changes={**TINY, **changes},
    )


class StopAfter(StopSignals):
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
