"""Recipes with a memory of class means beside the linear head.

README.md in this folder has a paragraph on each.
"""

from __future__ import annotations

from trainer.models.heads import Head
from trainer.objectives import CrossEntropy, MemoryTransfer, Remembered
from trainer.recipes.posthoc import PostHoc
from trainer.recipes.stage import Draw, Recipe, Stage
from trainer.recipes.with_memory import Assignment, MemoryFusion, WeightedFusion

__all__ = ["WITH_MEMORY"]

_REMEMBERED = Stage("train", Remembered(CrossEntropy(), rate=0.1))


def _fused(name: str, about: str, posthoc: PostHoc) -> Recipe:
    """Makes a recipe of cross-entropy with a memory, which a correction puts beside the head."""
    return Recipe(name, f"cross-entropy, then {about} (Sonseca 2021)", (_REMEMBERED,), 1, posthoc)


WITH_MEMORY = (
    Recipe(
        "memory-kt",
        "a second head that class means teach (Sonseca 2021, a thesis known by its code)",
        (Stage("train", MemoryTransfer(label_weight=0.2, temperature=1.0, rate=0.1)),),
    ),
    Recipe(
        "memory-llw",
        "cross-entropy, then weights by class of logits and memory (Sonseca 2021)",
        (
            _REMEMBERED,
            # 10 of 200 epochs at the run's own rate, which never falls.
            Stage(
                "head",
                CrossEntropy(Head("weighed")),
                share=0.05,
                rows="real",
                draws=(Draw("class"),),
                train="head",
                schedule="constant",
                start="train",
                head="kept",
                norms="frozen",
            ),
        ),
    ),
    _fused("memory-asm", "a small network that knows when to trust the memory", Assignment()),
    _fused("memory-sum-logits", "the mean of logits and memory", WeightedFusion("logits", 0.5)),
    _fused(
        "memory-sum-probabilities",
        "the mean of the probabilities of logits and memory",
        WeightedFusion("probabilities", 0.5),
    ),
    _fused("memory-max", "the surer of logits and memory", MemoryFusion("max")),
    _fused(
        "memory-weighted-logits",
        "a tuned sum of logits and memory",
        WeightedFusion("logits"),
    ),
    _fused(
        "memory-weighted-probabilities",
        "a tuned sum of the probabilities of logits and memory",
        WeightedFusion("probabilities"),
    ),
    _fused(
        "memory-scaled-logits",
        "a tuned sum of logits and cosines with the same maximum",
        WeightedFusion("scaled"),
    ),
    _fused(
        "memory-attention",
        "logits times the attention of the memory",
        MemoryFusion("attention"),
    ),
)
