"""Objectives as frozen values with declared needs (`base`); no torch until one is bound."""

from __future__ import annotations

from trainer.objectives.backtracked import BackTracked
from trainer.objectives.base import Answer, Loss, Needs, Objective, Rows, Task, TeacherAnswer
from trainer.objectives.classify import CrossEntropy, Focal, LabelAwareSmoothing, SigmoidFocal
from trainer.objectives.combine import Deferred, Reweighted, Sum
from trainer.objectives.consistency import MixtureConsistency
from trainer.objectives.contrast import BalancedContrast, ExpectedContrast, ParametricContrast
from trainer.objectives.distill import Distill, OneHotDistill, VoteDistill
from trainer.objectives.experts import BalancedExperts
from trainer.objectives.features import FeatureDistill
from trainer.objectives.gaussian import GaussianClouded
from trainer.objectives.margin import Ldam
from trainer.objectives.memory import MemoryTransfer, Remembered
from trainer.objectives.meta import MetaSoftmax
from trainer.objectives.priors import BalancedSigmoid, LogitAdjusted, VectorScaled

__all__ = [
    "Answer",
    "BackTracked",
    "BalancedContrast",
    "BalancedExperts",
    "BalancedSigmoid",
    "CrossEntropy",
    "Deferred",
    "Distill",
    "ExpectedContrast",
    "FeatureDistill",
    "Focal",
    "GaussianClouded",
    "LabelAwareSmoothing",
    "Ldam",
    "LogitAdjusted",
    "Loss",
    "MemoryTransfer",
    "MetaSoftmax",
    "MixtureConsistency",
    "Needs",
    "Objective",
    "OneHotDistill",
    "ParametricContrast",
    "Remembered",
    "Reweighted",
    "Rows",
    "SigmoidFocal",
    "Sum",
    "Task",
    "TeacherAnswer",
    "VectorScaled",
    "VoteDistill",
]
