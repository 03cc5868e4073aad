"""Objectives as frozen values with declared needs (`base`); no torch until one is bound."""

from __future__ import annotations

from trainer.objectives.base import Answer, Loss, Needs, Objective, Rows, Task, TeacherAnswer
from trainer.objectives.classify import CrossEntropy, LogitAdjusted
from trainer.objectives.combine import Deferred, Sum
from trainer.objectives.distill import Distill, OneHotDistill, VoteDistill

__all__ = [
    "Answer",
    "CrossEntropy",
    "Deferred",
    "Distill",
    "LogitAdjusted",
    "Loss",
    "Needs",
    "Objective",
    "OneHotDistill",
    "Rows",
    "Sum",
    "Task",
    "TeacherAnswer",
    "VoteDistill",
]
