"""Balanced softmax on rows that a learned sampler draws."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from trainer.objectives.base import Loss, Objective, Outputs, Rows, Task

if TYPE_CHECKING:
    from torch import Tensor, nn

__all__ = ["MetaSoftmax"]


@dataclass(frozen=True)
class MetaSoftmax(Objective):
    """Balanced meta-softmax (Ren et al. 2020, section 3.2): a head and the rates of its draws.

    Two losses for each row: balanced softmax of a drawn row, which trains the head, and the
    cross-entropy on a row of evenly drawn classes of the head after a step of look-ahead, which
    trains the rates alone. The forward `MetaSampled` draws, looks ahead, and gives both.

    The paper moves the rates first and draws anew for the head. Here both move in one step of the
    optimiser, from the same draw. Rates are kept by class, and the gradient through the draw is
    straight-through, as known by the paper's code.
    """

    corrects_prior = True

    @property
    def reads_state(self) -> bool:
        return True

    def state(self, task: Task) -> nn.Module:
        from trainer.models.class_rates import ClassRates

        return ClassRates(task.counts)

    def bind(self, task: Task, state: nn.Module | None = None) -> Loss:
        from trainer.losses.counts import as_counts
        from trainer.losses.labels import cross_entropy
        from trainer.losses.priors import balanced_softmax

        counts = as_counts(task.counts)

        def loss(student: Outputs, rows: Rows) -> Tensor:
            meta = cross_entropy(student.others["meta"], student.others["label"])
            return balanced_softmax(student.logits, rows.label, counts) + meta

        return loss
