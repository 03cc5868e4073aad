"""The methods by name."""

from __future__ import annotations

from stylegan_mix.errors import UsageFailure, nearest
from trainer.models.heads import Head
from trainer.objectives import (
    CrossEntropy,
    Deferred,
    Distill,
    FeatureDistill,
    Ldam,
    LogitAdjusted,
    Objective,
    OneHotDistill,
    Sum,
    VoteDistill,
)
from trainer.recipes.contrast import CONTRASTED
from trainer.recipes.decoupled import DECOUPLED
from trainer.recipes.draws import BY_DRAWS
from trainer.recipes.experts import OF_EXPERTS
from trainer.recipes.features import BY_FEATURES
from trainer.recipes.fusion import fused_head
from trainer.recipes.memory import WITH_MEMORY
from trainer.recipes.posthoc import TauNorm
from trainer.recipes.single_stage import BY_LOSS
from trainer.recipes.stage import Draw, Recipe, Stage

__all__ = ["RECIPES", "recipe"]


_TEACHER = Stage("teacher", CrossEntropy(), rows="real")
_ON_COSINES = CrossEntropy(Head("cosine", 20.0))


def _taught(name: str, about: str, label_weight: float, distill: Objective) -> Recipe:
    """Makes a recipe of a plainly trained teacher, then a student of labels and teacher."""
    both = Sum(((label_weight, CrossEntropy()), (round(1 - label_weight, 6), distill)))
    return Recipe(name, about, (_TEACHER, Stage("student", both, teachers=("teacher",))))


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
                draws=(Draw("class"),),
                train="head",
                schedule="cosine",
                start="train",
                norms="frozen",
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
    Recipe(
        "ldam-drw",
        "larger margins for rarer classes, then their weights too (Cao et al. 2019)",
        (Stage("train", Deferred(Ldam(0.5, 30.0), Ldam(0.5, 30.0, beta=0.9999), at=0.8)),),
    ),
    Recipe(
        "tau-norm",
        "cross-entropy, then class weights of like norms (Kang et al. 2020)",
        (Stage("train", CrossEntropy()),),
        posthoc=TauNorm(1.0),
    ),
    Recipe(
        "h2t",
        "cross-entropy, then its head on balanced classes with channels of others (Li et al. 2024)",
        (Stage("train", CrossEntropy()), fused_head("train")),
    ),
    Recipe(
        "cbd",
        "features of a plain teacher, classes drawn evenly (Iscen et al. 2021)",
        (
            Stage("teacher", _ON_COSINES),
            Stage(
                "student",
                Sum(((0.6, _ON_COSINES), (0.4 * 100, FeatureDistill()))),
                rows="real",
                draws=(Draw("class"),),
                teachers=("teacher",),
            ),
        ),
    ),
    *WITH_MEMORY,
    *BY_LOSS,
    *BY_DRAWS,
    *DECOUPLED,
    *BY_FEATURES,
    *OF_EXPERTS,
    *CONTRASTED,
)
RECIPES: dict[str, Recipe] = {item.name: item for item in _ALL}


def recipe(name: str) -> Recipe:
    """Looks up a recipe by name; `UsageFailure` with the nearest one if there is none."""
    if name not in RECIPES:
        raise UsageFailure(f"unknown recipe '{name}'{nearest(name, RECIPES)}")
    return RECIPES[name]
