"""Levers that any recipe can have which does not correct for class frequencies itself."""

from __future__ import annotations

from dataclasses import replace

from trainer.objectives import CrossEntropy, Deferred, Reweighted
from trainer.recipes.fusion import fused, fused_head
from trainer.recipes.stage import Draw, Recipe, Stage

__all__ = ["with_levers"]

# Of the effective number of images (Cao et al. 2019).
_BETA = 0.9999


def with_levers(
    recipe: Recipe, *, drw: float | None, head_epochs: int, h2t: bool, epochs: int
) -> Recipe:
    """Makes the recipe of a run with its levers, as far as the recipe takes them.

    drw: deferred re-weighting (Cao et al. 2019, Algorithm 1): once this share of the steps of a
    stage is done, each row's loss has the weight of its class. head_epochs: added at the end for a
    new head on a frozen backbone and class-balanced rows (Kang et al. 2020, cRT), in a run of
    `epochs` epochs before it. h2t: feature maps of other rows in the stage that trains the head on
    balanced classes (Li et al. 2024, H2T); a recipe without such a stage gets the published one.
    """
    stages = recipe.stages
    if drw is not None and recipe.takes_drw:
        stages = tuple(
            stage if stage.name in recipe.teachers else _deferred(stage, drw) for stage in stages
        )
    if head_epochs and recipe.takes_head:
        stages = (*stages, _head(stages[-1], head_epochs / epochs))
    if h2t and recipe.takes_h2t:
        stages = _with_fusion(stages)
    return replace(recipe, stages=stages)


def _deferred(stage: Stage, at: float) -> Stage:
    both = Deferred(stage.objective, Reweighted(stage.objective, _BETA), at)
    return replace(stage, objective=both)


def _with_fusion(stages: tuple[Stage, ...]) -> tuple[Stage, ...]:
    *before, last = stages
    if last.can_fuse:
        return (*before, fused(last))
    return (*stages, fused_head(last.name, last.objective.needs.head))


def _head(last: Stage, share: float) -> Stage:
    return Stage(
        "head",
        CrossEntropy(last.objective.needs.head),
        share=share,
        rows="real",
        draws=(Draw("class"),),
        train="head",
        schedule="cosine",
        start=last.name,
        norms="frozen",
    )
