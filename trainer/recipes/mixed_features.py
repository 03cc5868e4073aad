"""Recipes of one stage that mix feature maps within the network.

README.md in this folder has a paragraph on each.
"""

from __future__ import annotations

from trainer.engine.features import ManifoldMixup
from trainer.objectives import CrossEntropy
from trainer.recipes.stage import Recipe, Stage

__all__ = ["BY_FEATURES"]

BY_FEATURES = (
    Recipe(
        "manifold-mixup",
        "cross-entropy of images or feature maps that are mixed (Verma et al. 2019)",
        (Stage("train", CrossEntropy(), rows="real", forward=ManifoldMixup(alpha=1.0)),),
    ),
)
