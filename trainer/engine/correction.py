"""The correction of a finished network: the images that it may look at, its numbers in words."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch

from stylegan_mix.datasets import Dataset, Part
from trainer.models.classifier import Classifier
from trainer.objectives import Task
from trainer.recipes.posthoc import Evidence, PostHoc, Seen

__all__ = ["corrected", "in_words"]


def corrected(
    posthoc: PostHoc,
    model: Classifier,
    task: Task,
    data: Dataset,
    *,
    seen: Callable[[Part], Seen],
    memory: torch.Tensor | None,
    seed: int,
) -> dict[str, Any]:
    """Changes a network in place; returns the numbers of the correction.

    seen: asks the network, as it is then, about a part without augmentation; memory: the class
    means [K, D] of its training, or None; seed: that of the run. The test part is not shown.
    """
    validation = data.val
    evidence = Evidence(
        lambda: seen(data.train),
        None if validation is None else lambda: seen(validation),
        memory,
        seed,
    )
    with torch.no_grad():
        return posthoc(model, task, evidence)


def in_words(numbers: Mapping[str, Any]) -> str:
    """Renders the numbers of a correction, such as "tau 0.6"."""
    shown = {name: f"{n:.4g}" if isinstance(n, float) else n for name, n in numbers.items()}
    return ", ".join(f"{name.replace('_', ' ')} {n}" for name, n in shown.items())
