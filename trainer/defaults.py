"""The defaults of a run that depend on its arm and its data set; no torch.

`RunSpec` has the protocol of the field for all others.
"""

from __future__ import annotations

from typing import Any

from stylegan_mix.datasets.pool import is_streamed
from trainer.engine.arms import ARMS
from trainer.recipes.catalogue import recipe
from trainer.spec import RunSpec

__all__ = ["by_arm", "by_data_set", "defaults", "versions"]

_BY_DATA_SET: dict[str, dict[str, Any]] = {
    "digits_lt": {"model": "resnet8", "epochs": 100},
}
# The smallest network of the tables on ImageNet-LT, and their length.
_STREAMED: dict[str, Any] = {"model": "resnet10", "epochs": 90}


def by_data_set(name: str | None) -> dict[str, Any]:
    """Returns the settings whose default a data set changes, with their values."""
    return _BY_DATA_SET.get(name or "", _STREAMED if name and is_streamed(name) else {})


def by_arm(aug: str | None) -> dict[str, Any]:
    """Returns the settings whose default an arm changes, with their values."""
    arm = ARMS.get(aug or RunSpec.aug)
    return {"alpha": arm.alpha} if arm and arm.alpha != RunSpec.alpha else {}


def defaults(aug: str | None, dataset: str | None) -> dict[str, Any]:
    """Collects the settings whose default is that of an arm or of a data set."""
    return {**by_arm(aug), **by_data_set(dataset)}


def versions(aug: str | None, recipe_name: str | None) -> dict[str, int]:
    """Looks up the versions of an arm and a recipe, as they are now.

    An unknown recipe is a `UsageFailure`; an unknown arm, which `RunSpec` refuses, has version 1.
    """
    arm = ARMS.get(aug or RunSpec.aug)
    found = recipe(recipe_name or RunSpec.recipe)
    return {
        "recipe_version": found.version,
        "aug_version": arm.version if arm else RunSpec.aug_version,
    }
