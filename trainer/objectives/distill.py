"""Objectives that learn from a teacher: from its logits, its class, or its votes over patches.

`OneHotDistill` and `VoteDistill` see only a class. They are our reconstruction of unpublished text,
and trainer/README.md says so.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from trainer.objectives.base import Loss, Needs, Objective, Outputs, Rows, Task

if TYPE_CHECKING:
    from torch import Tensor, nn

__all__ = ["Distill", "OneHotDistill", "VoteDistill"]


@dataclass(frozen=True)
class Distill(Objective):
    """Distillation, T^2 KL(softmax(z_t / T) || softmax(z_s / T)) (Hinton et al. 2015).

    Summed over classes. The gradient by a student's logit is T (p_s - p_t), for any number of
    classes.
    """

    temperature: float = 4.0

    reads_shares = True

    @property
    def needs(self) -> Needs:
        return Needs(answers=frozenset({"logits"}))

    def bind(self, task: Task, state: nn.Module | None = None) -> Loss:
        from trainer.losses.teachers import distillation

        def loss(student: Outputs, rows: Rows) -> Tensor:
            teacher = rows.teacher.logits
            assert teacher is not None
            return distillation(student.logits, teacher, self.temperature)

        return loss


@dataclass(frozen=True)
class OneHotDistill(Objective):
    """One-hot distillation, -log softmax(z)_h (Touvron et al. 2021, eq. 3).

    h is the teacher's class for the same view that the student sees.
    """

    reads_shares = True

    @property
    def needs(self) -> Needs:
        return Needs(answers=frozenset({"label"}))

    def bind(self, task: Task, state: nn.Module | None = None) -> Loss:
        from trainer.losses.labels import cross_entropy

        def loss(student: Outputs, rows: Rows) -> Tensor:
            said = rows.teacher.label
            assert said is not None
            return cross_entropy(student.logits, said)

        return loss


@dataclass(frozen=True)
class VoteDistill(Objective):
    """Distillation of votes, -sum_c p_c log softmax(z)_c, from a label-only teacher over patches.

    p shrinks the votes toward those of the image's class with `pseudo_votes` a0. It is anchored to
    the label with strength `eta` < 1, so that the label stays the most probable class (our
    reconstruction). Rows without votes, those of a bank, take the teacher's class for the current
    view instead.
    """

    pseudo_votes: float = 8.0
    eta: float = 0.9

    reads_shares = True  # rows of a bank have no votes, so no label enters their loss

    @property
    def needs(self) -> Needs:
        return Needs(answers=frozenset({"votes"}))

    def bind(self, task: Task, state: nn.Module | None = None) -> Loss:
        from trainer.losses.labels import cross_entropy
        from trainer.losses.teachers import revised, shrunk

        def loss(student: Outputs, rows: Rows) -> Tensor:
            teacher, logits = rows.teacher, student.logits
            if teacher.votes is None:
                assert teacher.label is not None
                return cross_entropy(logits, teacher.label)
            assert task.class_votes is not None
            class_row = task.class_votes.to(logits)[rows.label]  # [N, K]
            shares = shrunk(teacher.votes.to(logits), class_row, self.pseudo_votes)
            return cross_entropy(logits, revised(shares, rows.label, self.eta))

        return loss
