"""The numbers of rows of each kind in the steps of a stage, and their weights; no torch.

An arm has a phase of its own, in which rows are mixed or come from a bank. The steps after it, and
all steps of a stage of real rows, are *plain*: real rows without mixing.
"""

from __future__ import annotations

from itertools import accumulate

from trainer.recipes.stage import Draw, Stage
from trainer.spec import EQUAL_REAL, RunSpec

__all__ = ["Portions", "steps_per_epoch"]


def steps_per_epoch(spec: RunSpec, images: int) -> int:
    """Counts the steps in which as many real rows as `images` fit into batches, for every arm."""
    return -(-images // spec.batch)


class Portions:
    """The rows of each step of a stage with `steps` steps, on a training part of `images` images.

    plain_from: the first plain step. Rows are given by their place in an endless order: where the
    rows of a step begin in it, and how many there are.
    """

    def __init__(self, spec: RunSpec, stage: Stage, *, images: int, steps: int) -> None:
        self._spec, self._stage, self._steps = spec, stage, steps
        self._per_epoch = steps_per_epoch(spec, images)
        last = round(steps * spec.final_real_fraction)
        self.plain_from = steps - last if stage.rows == "arm" and spec.aug != "none" else 0
        self._epochs = -(-self.plain_from // self._per_epoch)
        shares = [spec.schedule.rows(epoch, self._epochs) for epoch in range(self._epochs)]
        extra = [round(spec.extra_rows * share) for share in shares]
        added = spec.fairness == EQUAL_REAL
        real = [spec.batch - (0 if added else count) for count in extra]
        self._extra = _run(extra)
        self._real = {
            draw.share: _run([round(draw.share * count) for count in real]) for draw in stage.draws
        }

    def real(self, draw: Draw, step: int) -> tuple[int, int]:
        """Finds where the rows of a draw begin in its order at a step, and counts them."""
        plain = round(draw.share * self._spec.batch)
        return self._place(self._real[draw.share], plain, step)

    def extra(self, step: int) -> tuple[int, int]:
        """Finds where the rows of a bank, or those drawn evenly, begin at a step; counts them."""
        return self._place(self._extra, 0, step)

    def weight(self, step: int) -> float:
        """Computes the weight in the loss of the rows that `extra` counts, at a step."""
        epoch = step // self._per_epoch
        return self._spec.bank_weight * self._spec.schedule.weight(epoch, self._epochs)

    @property
    def images(self) -> int:
        """The number of rows of all steps."""
        real = sum(self.real(draw, self._steps)[0] for draw in self._stage.draws)
        return real + self.extra(self._steps)[0]

    def _place(self, run: tuple[list[int], list[int]], plain: int, step: int) -> tuple[int, int]:
        counts, before = run
        inside = min(step, self.plain_from)
        epoch, rest = divmod(inside, self._per_epoch)
        start = self._per_epoch * before[epoch] + rest * counts[epoch] + (step - inside) * plain
        return start, counts[epoch] if step < self.plain_from else plain


def _run(counts: list[int]) -> tuple[list[int], list[int]]:
    """Returns counts of rows by epoch, with an empty one after the last, and the rows before each.

    Rows are counted as if each epoch had one step.
    """
    return [*counts, 0], list(accumulate(counts, initial=0))
