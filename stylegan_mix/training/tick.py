"""The scalars of the steps since the last log line, summed on the device."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar

import torch
from torch import Tensor

from stylegan_mix.training.saved_structure import Many

__all__ = ["Tick", "broken"]


def broken(values: Mapping[str, Tensor]) -> list[str]:
    """Lists the names of values that are not finite."""
    return [name for name, value in values.items() if not bool(torch.isfinite(value).all())]


@dataclass
class Tick:
    """Sums of the logged scalars since the last log line, on the device.

    They are part of a saved state, so a log does not depend on interruptions of the training.
    """

    sums: dict[str, Tensor] = field(default_factory=dict)
    counts: dict[str, int] = field(default_factory=dict)
    before: float = 0.0
    began: float = field(default_factory=time.monotonic)

    STRUCTURE: ClassVar[dict[str, Any]] = {
        "sums": Many({"loss": torch.zeros([])}),
        "counts": Many({"loss": 1}),
        "seconds": 0.0,
    }

    @classmethod
    def of(cls, saved: dict[str, Any], device: torch.device) -> Tick:
        """Restores the output of `state_dict`."""
        sums = {name: value.to(device) for name, value in saved["sums"].items()}
        return cls(sums, dict(saved["counts"]), saved["seconds"])

    def state_dict(self) -> dict[str, Any]:
        """Returns the whole tick, of the structure `STRUCTURE`."""
        return {"sums": self.sums, "counts": self.counts, "seconds": self.seconds}

    @property
    def seconds(self) -> float:
        """The time since the last log line, without interruptions, in seconds."""
        return self.before + time.monotonic() - self.began

    def add(self, facts: Mapping[str, Tensor]) -> None:
        """Adds the scalars of a step."""
        for name, value in facts.items():
            self.sums[name] = self.sums[name] + value if name in self.sums else value
            self.counts[name] = self.counts.get(name, 0) + 1

    def means(self) -> dict[str, float]:
        """Averages every scalar over the steps that had it."""
        return {name: float(total) / self.counts[name] for name, total in self.sums.items()}
