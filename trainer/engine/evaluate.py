"""Answers of a classifier on a part of a data set, and their accuracy by class and group.

`N` images, `K` classes. Accuracies are percentages; a class or group without images has None.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn

from trainer.engine.batches import Images, Transform
from trainer.engine.loop import autocast
from trainer.reports.schema import class_mean, group_means

if TYPE_CHECKING:
    from stylegan_mix.datasets import Part
    from trainer.spec import RunSpec

__all__ = ["confusion_of", "interval", "logits_of", "scores"]

# Budget of test images for the curves of a run: this many, or an eighth of the trained images.
EVALUATED_IMAGES = 150_000


def interval(spec: RunSpec, train_images: int, test_images: int) -> int:
    """Computes epochs between evaluations: `eval_every`, or as `EVALUATED_IMAGES` allows."""
    if spec.eval_every:
        return spec.eval_every
    allowed = max(EVALUATED_IMAGES, spec.epochs * train_images // 8)
    return max(1, -(-spec.epochs * test_images // allowed))


def logits_of(
    model: nn.Module,
    part: Part,
    transform: Transform,
    *,
    device: torch.device,
    precision: str,
    batch: int = 500,
) -> Tensor:
    """Computes the logits of a part in evaluation mode, [N, K] float32 on the CPU."""
    images = Images(part.images, device)
    model.eval()
    found = []
    with torch.no_grad(), autocast(precision, device):
        for start in range(0, len(images), batch):
            rows = np.arange(start, min(start + batch, len(images)))
            found.append(model(transform.plain(images.take(rows))).logits.cpu())
    return torch.cat(found)


def confusion_of(labels: np.ndarray, predicted: np.ndarray, classes: int) -> np.ndarray:
    """Counts the images of class i that were classified as j, [K, K] int64."""
    pairs = np.asarray(labels, np.int64) * classes + np.asarray(predicted, np.int64)
    return np.bincount(pairs, minlength=classes * classes).reshape(classes, classes)


def scores(confusion: np.ndarray, groups: Mapping[str, Sequence[int]]) -> dict[str, Any]:
    """Computes overall, balanced, many, medium, few and per class.

    "overall" is the share of all images, "balanced" the mean over the classes (the balanced
    accuracy of scikit-learn), and a group the mean over its classes.
    """
    totals = confusion.sum(1)
    right = confusion.diagonal()
    per_class = [100 * int(r) / int(n) if n else None for r, n in zip(right, totals, strict=True)]
    return {
        "overall": 100 * int(right.sum()) / max(int(totals.sum()), 1),
        "balanced": class_mean(per_class),
        **group_means(groups, per_class),
        "per_class": per_class,
    }
