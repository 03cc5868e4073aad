"""What an objective is: a value that is bound to a task and then gives one loss per row.

`N` rows, `K` classes, `D` features. Mixing is not seen here: the loop calls a loss once with the
labels `a` and once with the labels `b` and mixes the two (DESIGN section 4).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Literal, NamedTuple

import torch
from torch import Tensor

from stylegan_mix.errors import InvalidInput
from trainer.models import Outputs

__all__ = ["Answer", "Loss", "Objective", "Outputs", "Sum", "Task", "TeacherAnswer"]

Answer = Literal["logits", "label", "votes"]


class TeacherAnswer(NamedTuple):
    """What a teacher says about N rows; what its kind cannot know is None.

    logits: [N, K]; label: [N] int64, the class it answers; votes: [N, K], how many of its views
    it gave to each class.
    """

    logits: Tensor | None = None
    label: Tensor | None = None
    votes: Tensor | None = None


Loss = Callable[[Outputs, Tensor, TeacherAnswer | None], Tensor]
"""(student, label [N] int64, teacher) -> loss of each row [N]."""


@dataclass(frozen=True)
class Task:
    """The numbers that an objective may need from the data.

    counts: training images per class; class_votes: [K, K], row y is the mean share of a label-only
    teacher's votes on images of class y, or None where there are no votes.
    """

    counts: tuple[int, ...]
    class_votes: Tensor | None = None

    def __post_init__(self) -> None:
        empty = [index for index, count in enumerate(self.counts) if count < 1]
        if empty:
            raise InvalidInput(f"classes {empty} have no training image")

    def balanced(self) -> Task:
        """The same task with equal counts and no votes: what rows of a bank are drawn from."""
        return replace(self, counts=(1,) * len(self.counts), class_votes=None)


class Objective:
    """Base of the objectives: frozen dataclasses of hyper-parameters."""

    @property
    def needs_teacher(self) -> Answer | None:
        """What a teacher must be able to say, or None if there is no need of one."""
        return None

    def bind(self, task: Task) -> Loss:
        """The loss for a task; tensors follow the device and dtype of the student's logits."""
        raise NotImplementedError


@dataclass(frozen=True)
class Sum(Objective):
    """A weighted sum of objectives: ``Sum(((0.1, CrossEntropy()), (0.9, Distill(4.0))))``."""

    terms: tuple[tuple[float, Objective], ...]

    @property
    def needs_teacher(self) -> Answer | None:
        needs = {part.needs_teacher for _, part in self.terms} - {None}
        if len(needs) > 1:
            raise ValueError(f"{self!r} asks one teacher for {sorted(map(str, needs))}")
        return needs.pop() if needs else None

    def bind(self, task: Task) -> Loss:
        parts = [(weight, part.bind(task)) for weight, part in self.terms]

        def loss(student: Outputs, label: Tensor, teacher: TeacherAnswer | None) -> Tensor:
            values = [weight * part(student, label, teacher) for weight, part in parts]
            return torch.stack(values).sum(0)

        return loss
