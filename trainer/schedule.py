"""The part of a bank in training over time, written as a word such as "falling" or "from:160"."""

from __future__ import annotations

import re
from dataclasses import dataclass

__all__ = ["CONSTANT", "FORMS", "Schedule"]

CONSTANT = "constant"
FORMS = (CONSTANT, "falling", "falling-weight", "from:EPOCH", "until:EPOCH")
"""The schedules as they are written, for messages."""


@dataclass(frozen=True)
class Schedule:
    """A schedule over the epochs of an arm's own phase, before the last steps on real rows.

    kind: "constant"; "falling", the number of rows falls from epoch to epoch by equal parts, and
    would reach nothing one epoch after the last; "falling-weight", the weight of a row in the loss
    does; "from", no rows in the first `epoch` epochs; "until", rows in these alone.
    """

    kind: str = CONSTANT
    epoch: int = 0

    @classmethod
    def parse(cls, text: str) -> Schedule | None:
        """Reads one of `FORMS`, EPOCH a whole number from 1; None for anything else."""
        if text in FORMS[:3]:
            return cls(text)
        found = re.fullmatch("(from|until):([1-9][0-9]{0,8})", str(text))
        return cls(found[1], int(found[2])) if found else None

    def rows(self, epoch: int, epochs: int) -> float:
        """Computes the share of the rows that are used in epoch 0 .. epochs - 1, in [0, 1]."""
        if self.kind == "falling":
            return 1 - epoch / epochs
        if self.kind == "from":
            return float(epoch >= self.epoch)
        return float(self.kind != "until" or epoch < self.epoch)

    def weight(self, epoch: int, epochs: int) -> float:
        """Computes the factor of the weight of a row in epoch 0 .. epochs - 1, in (0, 1]."""
        return 1 - epoch / epochs if self.kind == "falling-weight" else 1.0

    @property
    def name(self) -> str:
        """A word for tables, such as "from160"; "" for a constant one."""
        if self.kind == CONSTANT:
            return ""
        return f"{self.kind}{self.epoch}" if self.epoch else self.kind
