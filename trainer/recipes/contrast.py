"""Recipes that compare several views of each image.

README.md in this folder has a paragraph on each.
"""

from __future__ import annotations

from trainer.engine.features import GlobalAndLocal
from trainer.objectives import (
    BalancedContrast,
    ExpectedContrast,
    LogitAdjusted,
    MixtureConsistency,
    Objective,
    ParametricContrast,
    Sum,
)
from trainer.recipes.stage import Draw, Recipe, Stage

__all__ = ["CONTRASTED"]


def _contrasted(name: str, about: str, objective: Objective) -> Recipe:
    """Makes a recipe of one training on the rows of the arm, with two further views."""
    return Recipe(name, about, (Stage("train", objective, views=("simclr", "simclr")),))


CONTRASTED = (
    _contrasted(
        "bcl",
        "logits shifted by class counts, and a balanced contrast of two views (Zhu et al. 2022)",
        Sum(((2.0, LogitAdjusted(tau=1.0)), (0.6, BalancedContrast(temperature=0.1)))),
    ),
    _contrasted(
        "proco",
        "logits shifted by class counts, and a contrast with distributions (Du et al. 2024)",
        Sum(((1.0, LogitAdjusted(tau=1.0)), (1.0, ExpectedContrast(temperature=0.1)))),
    ),
    Recipe(
        "glmc",
        "two mixtures that agree, and weights of classes that grow (Du et al. 2023)",
        (
            Stage(
                "train",
                MixtureConsistency(power=1.2, consistency=4.0),
                rows="real",
                draws=(Draw(), Draw(judged=False)),
                schedule="cosine",
                lr=0.1,
                weight_decay=5e-3,
                forward=GlobalAndLocal(alpha=0.5),
                views=("plain",),
            ),
        ),
    ),
    Recipe(
        "paco",
        "keys of a slow copy of the network among the shifted classes (Cui et al. 2021)",
        (
            Stage(
                "train",
                ParametricContrast(alpha=0.01, temperature=0.05, queue=1024, momentum=0.999),
                schedule="cosine",
                lr=0.5,
                weight_decay=5e-4,
                views=("simclr",),
            ),
        ),
    ),
)
