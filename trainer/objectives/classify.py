"""Objectives that need labels only."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from trainer.objectives.base import Loss, Objective, Outputs, Task, TeacherAnswer

__all__ = ["CrossEntropy", "LogitAdjusted"]


@dataclass(frozen=True)
class CrossEntropy(Objective):
    """-log softmax(z)_y."""

    def bind(self, task: Task) -> Loss:
        def loss(student: Outputs, label: Tensor, teacher: TeacherAnswer | None) -> Tensor:
            return F.cross_entropy(student.logits, label, reduction="none")

        return loss


@dataclass(frozen=True)
class LogitAdjusted(Objective):
    """-log softmax(z + tau log pi)_y (Menon et al. 2021, eq. 10), predicting by argmax z.

    pi are the shares of the classes in training; tau = 1 is the balanced softmax
    (Ren et al. 2020, eq. 4).
    """

    tau: float = 1.0

    def bind(self, task: Task) -> Loss:
        counts = torch.tensor(task.counts, dtype=torch.float64)
        shift = self.tau * (counts / counts.sum()).log()  # [K]

        def loss(student: Outputs, label: Tensor, teacher: TeacherAnswer | None) -> Tensor:
            shifted = student.logits + shift.to(student.logits)
            return F.cross_entropy(shifted, label, reduction="none")

        return loss
