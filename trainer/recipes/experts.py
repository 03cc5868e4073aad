"""Recipes of one training whose network has several experts.

README.md in this folder has a paragraph on each.
"""

from __future__ import annotations

from trainer.objectives import BalancedExperts
from trainer.recipes.stage import Recipe, Stage

__all__ = ["OF_EXPERTS"]

OF_EXPERTS = (
    Recipe(
        "balpoe",
        "three experts, logits shifted by class shares 0, 1, 2 times (Aimar et al. 2023)",
        (Stage("train", BalancedExperts(taus=(0.0, 1.0, 2.0), scale=30.0), weight_decay=5e-4),),
    ),
)
