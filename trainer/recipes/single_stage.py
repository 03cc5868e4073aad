"""Recipes of one stage that differ from cross-entropy by their loss, or by a correction after it.

README.md in this folder has a paragraph on each.
"""

from __future__ import annotations

from trainer.objectives import (
    BalancedSigmoid,
    CrossEntropy,
    Deferred,
    Focal,
    LabelAwareSmoothing,
    Ldam,
    LogitAdjusted,
    Objective,
    Reweighted,
    SigmoidFocal,
    VectorScaled,
)
from trainer.recipes.posthoc import LogitAdjust, NearestMean, PostHoc, Temperature
from trainer.recipes.stage import Recipe, Stage

__all__ = ["BY_LOSS"]


def _trained(
    name: str, about: str, objective: Objective, *, posthoc: PostHoc | None = None
) -> Recipe:
    """Makes a recipe of one training on the rows of the arm."""
    return Recipe(name, about, (Stage("train", objective),), posthoc=posthoc)


BY_LOSS = (
    _trained(
        "focal",
        "less weight for rows that are right already (Lin et al. 2017)",
        Focal(gamma=1.0),
    ),
    _trained(
        "cb-ce",
        "cross-entropy times inverse effective numbers of images (Cui et al. 2019)",
        Reweighted(CrossEntropy(), beta=0.9999, mean="classes"),
    ),
    _trained(
        "cb-focal",
        "focal loss of each class, times inverse effective numbers (Cui et al. 2019)",
        Reweighted(SigmoidFocal(gamma=1.0), beta=0.9999, mean="classes"),
    ),
    _trained(
        "ce-drw",
        "cross-entropy, with weights of classes at its end (Cao et al. 2019)",
        Deferred(CrossEntropy(), Reweighted(CrossEntropy(), beta=0.9999), at=0.8),
    ),
    _trained("ldam", "larger margins for rarer classes (Cao et al. 2019)", Ldam(0.5, 30.0)),
    _trained(
        "balanced-sigmoid",
        "each class against the rest, with its prior odds (Ren et al. 2020)",
        BalancedSigmoid(),
    ),
    _trained(
        "logit-adjust",
        "logits shifted by log class shares in training (Menon et al. 2021)",
        LogitAdjusted(tau=1.0),
    ),
    _trained(
        "logit-adjust-posthoc",
        "cross-entropy, then logits less log class shares (Menon et al. 2021)",
        CrossEntropy(),
        posthoc=LogitAdjust(tau=1.0),
    ),
    _trained(
        "label-aware-smoothing",
        "labels of large classes smoothed most (Zhong et al. 2021)",
        LabelAwareSmoothing(first=0.3, last=0.0),
    ),
    _trained(
        "vs-loss",
        "logits scaled and shifted by class counts in training (Kini et al. 2021)",
        VectorScaled(gamma=0.2, tau=1.2),
    ),
    _trained(
        "ncm",
        "cross-entropy, then the nearest class mean by cosine (Kang et al. 2020)",
        CrossEntropy(),
        posthoc=NearestMean(),
    ),
    _trained(
        "temperature",
        "cross-entropy, then logits divided by one number (Guo et al. 2017)",
        CrossEntropy(),
        posthoc=Temperature(),
    ),
)
