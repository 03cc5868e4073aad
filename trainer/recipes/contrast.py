"""Recipes that contrast several views of each image.

README.md in this folder has a paragraph on each.
"""

from __future__ import annotations

from trainer.objectives import BalancedContrast, LogitAdjusted, Sum
from trainer.recipes.stage import Recipe, Stage

__all__ = ["CONTRASTED"]

CONTRASTED = (
    Recipe(
        "bcl",
        "logits shifted by class counts, and a balanced contrast of two views (Zhu et al. 2022)",
        (
            Stage(
                "train",
                Sum(((2.0, LogitAdjusted(tau=1.0)), (0.6, BalancedContrast(temperature=0.1)))),
                views=("plain", "plain"),
            ),
        ),
    ),
)
