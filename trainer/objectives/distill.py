"""Objectives that learn from a teacher: from its logits, its class, or its votes over patches.

`methods/hybrid_mixup_and_kd.md` sections 1.5 and 1.6 define the two that see only a class; they
are our reconstruction of unpublished text and say so in the README.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch.nn.functional as F
from torch import Tensor

from trainer.objectives.base import Answer, Loss, Objective, Outputs, Task, TeacherAnswer

__all__ = ["Distill", "OneHotDistill", "VoteDistill", "revised", "shrunk"]


@dataclass(frozen=True)
class Distill(Objective):
    """T^2 KL(softmax(z_t / T) || softmax(z_s / T)), summed over classes (Hinton et al. 2015).

    The gradient by a student's logit is T (p_s - p_t), whatever the number of classes.
    """

    temperature: float = 4.0

    @property
    def needs_teacher(self) -> Answer | None:
        return "logits"

    def bind(self, task: Task) -> Loss:
        T = self.temperature

        def loss(student: Outputs, label: Tensor, teacher: TeacherAnswer | None) -> Tensor:
            assert teacher is not None and teacher.logits is not None
            log_student = F.log_softmax(student.logits / T, dim=1)  # [N, K]
            log_teacher = F.log_softmax(teacher.logits / T, dim=1)
            each = F.kl_div(log_student, log_teacher, reduction="none", log_target=True)
            return T**2 * each.sum(1)

        return loss


@dataclass(frozen=True)
class OneHotDistill(Objective):
    """-log softmax(z)_h, h the teacher's class for this very view (Touvron et al. 2021, eq. 3)."""

    @property
    def needs_teacher(self) -> Answer | None:
        return "label"

    def bind(self, task: Task) -> Loss:
        def loss(student: Outputs, label: Tensor, teacher: TeacherAnswer | None) -> Tensor:
            assert teacher is not None and teacher.label is not None
            return F.cross_entropy(student.logits, teacher.label, reduction="none")

        return loss


@dataclass(frozen=True)
class VoteDistill(Objective):
    """-sum_c p_c log softmax(z)_c with p from a label-only teacher's votes over patches.

    p shrinks the votes toward those of the image's class with `pseudo_votes` a0, and is anchored
    to the label with strength `eta` < 1 so that the label stays the most probable class (dossier
    section 1.6.2; reconstruction). Rows that nobody voted on, those of a bank, take the teacher's
    class for the view at hand instead.
    """

    pseudo_votes: float = 8.0
    eta: float = 0.9

    @property
    def needs_teacher(self) -> Answer | None:
        return "votes"

    def bind(self, task: Task) -> Loss:
        def loss(student: Outputs, label: Tensor, teacher: TeacherAnswer | None) -> Tensor:
            assert teacher is not None
            if teacher.votes is None:
                assert teacher.label is not None
                return F.cross_entropy(student.logits, teacher.label, reduction="none")
            assert task.class_votes is not None
            votes = teacher.votes.to(student.logits)  # [N, K]
            class_row = task.class_votes.to(student.logits)[label]  # [N, K]
            target = revised(shrunk(votes, class_row, self.pseudo_votes), label, self.eta)
            return F.cross_entropy(student.logits, target, reduction="none")

        return loss


def shrunk(votes: Tensor, class_row: Tensor, pseudo_votes: float) -> Tensor:
    """q = (n + a0 m) / (K + a0): posterior mean of the shares of votes, [N, K] (dossier 1.6.2).

    votes: n, [N, K] counts that sum to K views; class_row: m, [N, K], shares within the class.
    """
    return (votes + pseudo_votes * class_row) / (votes.sum(1, keepdim=True) + pseudo_votes)


def revised(shares: Tensor, label: Tensor, eta: float) -> Tensor:
    """p = b q + (1 - b) e_y, b = eta / (max q - q_y + 1) (Lan et al. 2024, label revision).

    For every eta < 1 the label has the largest share of the result, [N, K].
    """
    own = shares.gather(1, label[:, None])  # [N, 1]
    pull = eta / (shares.amax(1, keepdim=True) - own + 1)
    return (pull * shares).scatter_add(1, label[:, None], 1 - pull)
