"""Objectives that need labels and logits only."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from trainer.models.heads import Head
from trainer.objectives.base import Loss, Needs, Objective, Outputs, Rows, Task

if TYPE_CHECKING:
    from torch import Tensor, nn

__all__ = ["CrossEntropy", "Focal", "LabelAwareSmoothing", "SigmoidFocal"]


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
class Focal(Objective):
    """The focal loss of K classes, -(1 - p_y) ** gamma log p_y (Lin et al. 2017, eq. 4)."""

    gamma: float = 1.0

    def __post_init__(self) -> None:
        if self.gamma < 0:
            raise ValueError(f"gamma must be at least 0, got {self.gamma}")

    def bind(self, task: Task, state: nn.Module | None = None) -> Loss:
        from trainer.losses.labels import focal

        def loss(student: Outputs, rows: Rows) -> Tensor:
            return focal(student.logits, rows.label, self.gamma)

        return loss


@dataclass(frozen=True)
class SigmoidFocal(Objective):
    """The focal loss of each class against the rest, of z - log(K - 1) (Cui et al. 2019).

    The constant is the one that the paper's biases begin with (`losses.weights.cb_focal`).
    """

    gamma: float = 1.0

    def __post_init__(self) -> None:
        if self.gamma < 0:
            raise ValueError(f"gamma must be at least 0, got {self.gamma}")

    def bind(self, task: Task, state: nn.Module | None = None) -> Loss:
        from trainer.losses.labels import sigmoid_focal
        from trainer.losses.weights import rare_positives

        start = rare_positives(len(task.counts))

        def loss(student: Outputs, rows: Rows) -> Tensor:
            return sigmoid_focal(student.logits + start, rows.label, self.gamma)

        return loss


@dataclass(frozen=True)
class LabelAwareSmoothing(Objective):
    """Label-aware smoothing, on any head or on `head` (Zhong et al. 2021).

    The share `first` of a label of the largest class is spread over all classes, and `last` of
    those of the smallest, between them by `losses.labels.smoothing_shares`. Rows of a bank, whose
    classes are equal, have `last`.
    """

    first: float = 0.3
    last: float = 0.0
    head: Head | None = None

    def __post_init__(self) -> None:
        if not 0 <= self.last <= self.first < 1:
            raise ValueError(f"0 <= last <= first < 1, got {self.last} and {self.first}")

    @property
    def needs(self) -> Needs:
        return Needs(head=self.head)

    def bind(self, task: Task, state: nn.Module | None = None) -> Loss:
        from trainer.losses.counts import as_counts
        from trainer.losses.labels import label_aware_smoothing

        counts = as_counts(task.counts)

        def loss(student: Outputs, rows: Rows) -> Tensor:
            return label_aware_smoothing(
                student.logits, rows.label, counts, first=self.first, last=self.last
            )

        return loss
