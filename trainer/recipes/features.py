"""Recipes of one training that mix features within the network, or keep those of earlier steps.

README.md in this folder has a paragraph on each.
"""

from __future__ import annotations

from trainer.engine.features import FromQueues, ManifoldMixup
from trainer.objectives import BackTracked, CrossEntropy
from trainer.recipes.stage import Recipe, Stage

__all__ = ["BY_FEATURES"]

BY_FEATURES = (
    Recipe(
        "manifold-mixup",
        "cross-entropy of images or feature maps that are mixed (Verma et al. 2019)",
        (Stage("train", CrossEntropy(), rows="real", forward=ManifoldMixup(alpha=1.0)),),
    ),
    Recipe(
        "breadcrumbs",
        "a second head on balanced features of earlier passes (Liu et al. 2022)",
        (
            Stage(
                "train",
                BackTracked(),
                schedule="cosine",
                weight_decay=5e-4,
                forward=FromQueues(),
            ),
        ),
    ),
)
