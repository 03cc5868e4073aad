"""Distillation of features."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from trainer.objectives.base import Loss, Needs, Objective, Outputs, Rows, Task, TeacherAnswer

if TYPE_CHECKING:
    from torch import Tensor, nn

__all__ = ["FeatureDistill"]


@dataclass(frozen=True)
class FeatureDistill(Objective):
    """Distillation of features, 1 - cos(g(f), f_t) (Iscen et al. 2021, section 3).

    f_t is the unit feature of the teacher for the same view that the student sees, or those of
    several teachers side by side. If it is as wide as f, g is the identity; else
    g(f) = ReLU(V f + c), learned beside the student. In that case the published code puts the
    classifier on g(f); here it stays on f.
    """

    reads_shares = True

    @property
    def needs(self) -> Needs:
        return Needs(answers=frozenset({"features"}), ensemble=True)

    @property
    def reads_state(self) -> bool:
        return True

    def state(self, task: Task) -> nn.Module | None:
        from torch import nn

        if task.features == task.teacher_features:
            return None
        return nn.Sequential(nn.Linear(task.features, task.teacher_features), nn.ReLU())

    def bind(self, task: Task, state: nn.Module | None = None) -> Loss:
        from trainer.losses.features import cosine_distance, side_by_side

        def loss(student: Outputs, rows: Rows) -> Tensor:
            own = student.features if state is None else state(student.features)
            return cosine_distance(own, side_by_side([_said(one) for one in rows.teachers]))

        return loss


def _said(teacher: TeacherAnswer) -> Tensor:
    """Reads the features of an answer, [N, D]."""
    assert teacher.features is not None
    return teacher.features
