"""Recipes that differ from cross-entropy by the draws of their real rows.

README.md in this folder has a paragraph on each.
"""

from __future__ import annotations

from trainer.objectives import CrossEntropy
from trainer.recipes.stage import Draw, Recipe, Sampler, Stage

__all__ = ["BY_DRAWS"]


def _drawn(name: str, about: str, sampler: Sampler) -> Recipe:
    """Makes a recipe of one training with cross-entropy on rows from a sampler."""
    return Recipe(name, about, (Stage("train", CrossEntropy(), draws=(Draw(sampler),)),))


BY_DRAWS = (
    _drawn("class-balanced", "all classes drawn equally often", "class"),
    _drawn(
        "square-root",
        "classes drawn as often as the root of their size (Mahajan et al. 2018)",
        "square-root",
    ),
    _drawn(
        "progressive",
        "classes drawn by size first, equally often at the end (Kang et al. 2020)",
        "progressive",
    ),
    _drawn(
        "effective-number",
        "images drawn by the inverse effective number of their class (Cui et al. 2019)",
        "effective-number",
    ),
)
