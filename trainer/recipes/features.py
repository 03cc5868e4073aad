"""Recipes of one training that keeps features of earlier steps.

README.md in this folder has a paragraph on each.
"""

from __future__ import annotations

from trainer.engine.features import FromQueues
from trainer.objectives import BackTracked
from trainer.recipes.stage import Recipe, Stage

__all__ = ["OF_FEATURES"]

OF_FEATURES = (
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
