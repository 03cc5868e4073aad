"""Objectives that need labels only."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from trainer.models.heads import Head
from trainer.objectives.base import Loss, Needs, Objective, Outputs, Rows, Task

if TYPE_CHECKING:
    from torch import Tensor, nn

__all__ = ["CrossEntropy", "LogitAdjusted"]


@dataclass(frozen=True)
class CrossEntropy(Objective):
    """Cross-entropy, -log softmax(z)_y, on any head or on `head`."""

    head: Head | None = None

    reads_shares = True

    @property
    def needs(self) -> Needs:
        return Needs(head=self.head)

    def bind(self, task: Task, state: nn.Module | None = None) -> Loss:
        from trainer.losses.labels import cross_entropy

        def loss(student: Outputs, rows: Rows) -> Tensor:
            return cross_entropy(student.logits, rows.label)

        return loss


@dataclass(frozen=True)
class LogitAdjusted(Objective):
    """Logit adjustment, -log softmax(z + tau log pi)_y (Menon et al. 2021, eq. 10).

    pi are the shares of the classes in training, and argmax z predicts. tau = 1 is the balanced
    softmax (Ren et al. 2020, eq. 4).
    """

    tau: float = 1.0

    reads_shares = True
    corrects_prior = True

    def bind(self, task: Task, state: nn.Module | None = None) -> Loss:
        import torch

        from trainer.losses.labels import logit_adjusted

        counts = torch.tensor(task.counts, dtype=torch.float64)
        shift = self.tau * (counts / counts.sum()).log()  # [K]

        def loss(student: Outputs, rows: Rows) -> Tensor:
            return logit_adjusted(student.logits, rows.label, shift)

        return loss
