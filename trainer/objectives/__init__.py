"""What is minimised: frozen values with declared needs (`base`)."""

from __future__ import annotations

from trainer.objectives.base import Answer, Loss, Objective, Sum, Task, TeacherAnswer
from trainer.objectives.classify import CrossEntropy, LogitAdjusted
from trainer.objectives.distill import Distill, OneHotDistill, VoteDistill

__all__ = [
    "Answer",
    "CrossEntropy",
    "Distill",
    "LogitAdjusted",
    "Loss",
    "Objective",
    "OneHotDistill",
    "Sum",
    "Task",
    "TeacherAnswer",
    "VoteDistill",
]
