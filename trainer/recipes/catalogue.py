"""The methods by name."""

from __future__ import annotations

from stylegan_mix.errors import UsageFailure, nearest
from trainer.objectives import (
    CrossEntropy,
    Distill,
    LogitAdjusted,
    Objective,
    OneHotDistill,
    Sum,
    VoteDistill,
)
from trainer.recipes.stage import Recipe, Stage

__all__ = ["RECIPES", "recipe"]


_TEACHER = Stage("teacher", CrossEntropy(), rows="real")


def _taught(name: str, about: str, label_weight: float, distill: Objective) -> Recipe:
    """A plainly trained teacher, then a student of labels and teacher in shares that add to 1."""
    both = Sum(((label_weight, CrossEntropy()), (round(1 - label_weight, 6), distill)))
    return Recipe(name, about, (_TEACHER, Stage("student", both, teacher="teacher")))


_ALL = (
    Recipe("ce", "cross-entropy", (Stage("train", CrossEntropy()),)),
    Recipe(
        "balanced-softmax",
        "logits shifted by log class counts in training (Ren et al. 2020)",
        (Stage("train", LogitAdjusted(tau=1.0)),),
    ),
    Recipe(
        "crt",
        "cross-entropy, then a new head on class-balanced draws (Kang et al. 2020)",
        (
            Stage("train", CrossEntropy()),
            Stage(
                "head",
                CrossEntropy(),
                share=0.1,
                rows="real",
                sampler="class",
                train="head",
                schedule="cosine",
                start="train",
            ),
        ),
    ),
    _taught("kd", "softened logits of a teacher (Hinton et al. 2015)", 0.1, Distill(4.0)),
    _taught("one-hot", "a teacher that says only a class, for each view", 0.5, OneHotDistill()),
    _taught(
        "patched-one-hot",
        "votes of a teacher that says only a class, over patches",
        0.1,
        VoteDistill(pseudo_votes=8.0, eta=0.9),
    ),
)
RECIPES: dict[str, Recipe] = {item.name: item for item in _ALL}


def recipe(name: str) -> Recipe:
    """The recipe of that name; `UsageFailure` with the nearest one if there is none."""
    if name not in RECIPES:
        raise UsageFailure(f"unknown recipe '{name}'{nearest(name, RECIPES)}")
    return RECIPES[name]
