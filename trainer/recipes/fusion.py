"""Head-to-tail fusion of feature maps in the training of a head (H2T, Li et al. 2024)."""

from __future__ import annotations

from dataclasses import replace

from trainer.engine.features import HeadToTail
from trainer.models.heads import Head
from trainer.objectives import CrossEntropy
from trainer.recipes.stage import Draw, Stage

__all__ = ["fused", "fused_head"]

_FORWARD = HeadToTail(rho=0.25)
_DONOR = Draw("instance", judged=False)


def fused_head(start: str, head: Head | None = None) -> Stage:
    """Makes the published second stage: the head of stage `start` learns on, with fusion.

    It takes 10 of 200 epochs, on balanced classes, with a cosine from 0.2 times the rate on and
    weight decay 5e-4; batch-norm statistics follow. head: the form of that stage's head.
    """
    return Stage(
        "head",
        CrossEntropy(head),
        share=0.05,
        rows="real",
        draws=(Draw("class"), _DONOR),
        train="head",
        schedule="cosine",
        lr=0.2,
        weight_decay=5e-4,
        start=start,
        head="kept",
        forward=_FORWARD,
    )


def fused(stage: Stage) -> Stage:
    """Adds fusion to a stage that `can_fuse`; its loss, length and rate stay."""
    return replace(stage, draws=(*stage.draws, _DONOR), forward=_FORWARD)
