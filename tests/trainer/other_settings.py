"""For every setting that not all runs read, another value than its default."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from trainer.recipes.catalogue import RECIPES
from trainer.spec import AcceptRef, BankRef, DataSpec, LabelRef, TeacherRef, VoteSpec

BANK = BankRef("key", "request", "content", "w", "/somewhere/bank")

# Those that name something: a run with one of them needs it on the disk.
CHOSEN: dict[str, Any] = {
    "accept": AcceptRef("clean", "content", "/somewhere/annotations"),
    "aug": "mixup",
    "bank": BANK,
    "label": LabelRef(0.5, "content", "/somewhere/annotations"),
    "teacher": TeacherRef("weights", "/somewhere/run"),
}
NUMBERS: dict[str, Any] = {
    "alpha": 0.5,
    "bank_schedule": "falling",
    "bank_share": 0.25,
    "bank_weight": 2.0,
    "bn_refresh_batches": 3,
    "decay": (0.5, 0.05),
    "drw": 0.4,
    "fair": "equal-real",
    "final_real_fraction": 0.5,
    "h2t": True,
    "head_epochs": 1,
    "milestones": (0.4, 0.7),
    "mix_bank_real": True,
    "teacher_model": "resnet20",
    "votes": VoteSpec(views=4),
    "warmup_epochs": 0.0,
    "weight_decay": 0.01,
}


DEFAULT = DataSpec()

# A recipe of each kind; the tests of all others that train are slow ones, in four slices.
KINDS = (
    *("ce", "ldam-drw", "crt", "one-hot", "h2t", "gcl-angular", "class-balanced", "tau-norm"),
    *("memory-kt", "memory-asm", "breadcrumbs", "balms", "balpoe", "bcl", "paco", "glmc"),
)
EVERY_RECIPE = [
    name if name in KINDS else pytest.param(name, marks=pytest.mark.slow) for name in RECIPES
]


def arm_with_bank(recipe: str) -> str:
    """The arm of a recipe's run with a bank: "none" if the recipe takes no rows of an arm."""
    return "hybrid" if RECIPES[recipe].follows_arm() else "none"


def data_for(recipe: str, data: DataSpec = DEFAULT) -> DataSpec:
    """The data with validation images, if a recipe cannot do without."""
    posthoc = RECIPES[recipe].posthoc if recipe in RECIPES else None
    tuned = posthoc is not None and posthoc.needs_validation
    return replace(data, val_per_class=1) if tuned else data
