"""Objectives as frozen values with declared needs (`base`); no torch until one is bound."""

from __future__ import annotations

from trainer.objectives.base import Answer, Loss, Needs, Objective, Rows, Task, TeacherAnswer
from trainer.objectives.classify import CrossEntropy, LogitAdjusted
from trainer.objectives.combine import Deferred, Reweighted, Sum
from trainer.objectives.distill import Distill, OneHotDistill, VoteDistill
from trainer.objectives.features import FeatureDistill
from trainer.objectives.margin import Ldam
from trainer.objectives.memory import MemoryTransfer

__all__ = [
    "Answer",
    "CrossEntropy",
    "Deferred",
    "Distill",
    "FeatureDistill",
    "Ldam",
    "LogitAdjusted",
    "Loss",
    "MemoryTransfer",
    "Needs",
    "Objective",
    "OneHotDistill",
    "Reweighted",
    "Rows",
    "Sum",
    "Task",
    "TeacherAnswer",
    "VoteDistill",
]
