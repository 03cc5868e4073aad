"""Recipes of two stages: features first, then the classifier alone on balanced draws.

README.md in this folder has a paragraph on each.
"""

from __future__ import annotations

from typing import Any

from trainer.engine.features import MetaSampled
from trainer.models.heads import Head
from trainer.objectives import (
    CrossEntropy,
    GaussianClouded,
    LabelAwareSmoothing,
    MetaSoftmax,
    Objective,
)
from trainer.recipes.stage import Draw, Recipe, Stage

__all__ = ["DECOUPLED"]


def _decoupled(
    name: str, about: str, first: Objective, then: Objective, *, version: int = 1, **settings: Any
) -> Recipe:
    """Makes a recipe of a training on the rows of the arm, then of its head, which it keeps."""
    head = Stage(
        "head",
        then,
        rows="real",
        draws=(Draw("class"),),
        train="head",
        schedule="cosine",
        start="train",
        head="kept",
        **settings,
    )
    return Recipe(name, about, (Stage("train", first), head), version)


# 30 of 200 epochs, cosine from 0.002, backbone in evaluation mode.
_CLOUDED_HEAD: dict[str, Any] = {"share": 0.15, "lr": 0.02, "norms": "frozen"}

DECOUPLED = (
    _decoupled(
        "lws",
        "cross-entropy, then a scale for each class on balanced draws (Kang et al. 2020)",
        CrossEntropy(),
        CrossEntropy(Head("scaled")),
        share=0.05,
        weight_decay=5e-4,
        norms="frozen",
    ),
    _decoupled(
        "mislas",
        "cross-entropy, then scaled head, smoothed labels, shifted norms (Zhong et al. 2021)",
        CrossEntropy(),
        LabelAwareSmoothing(first=0.3, last=0.0, head=Head("rescaled")),
        share=0.05,
        lr=0.5,
        rates=(("head.scale", 1.0),),
        norms="follow",
    ),
    _decoupled(
        "gcl",
        "noise on the cosines of rare classes, then the head on balanced draws (Li et al. 2022)",
        GaussianClouded("cosine", size=0.5, margin=0.0, scale=30.0),
        GaussianClouded("cosine", size=0.5, margin=0.1, scale=20.0, gamma=1.0),
        **_CLOUDED_HEAD,
    ),
    _decoupled(
        "gcl-angular",
        "noise on the angles of rare classes, then the head on balanced draws (Li et al. 2024)",
        GaussianClouded("angle", size=0.1, margin=0.0, scale=30.0),
        GaussianClouded("angle", size=0.1, margin=0.1, scale=20.0, gamma=1.0),
        version=2,  # version 1 had a margin of 0.5 in the first stage
        **_CLOUDED_HEAD,
    ),
    Recipe(
        "balms",
        "cross-entropy, then a new head on draws of a learned sampler (Ren et al. 2020)",
        (
            Stage("train", CrossEntropy()),
            Stage(
                "head",
                MetaSoftmax(),
                share=0.15,  # 2,000 of 13,000 steps
                rows="real",
                draws=(Draw("instance"), Draw("class", judged=False)),
                train="head",
                schedule="cosine",
                weight_decay=5e-4,
                start="train",
                norms="frozen",
                forward=MetaSampled(rate=0.1),
            ),
        ),
    ),
)
