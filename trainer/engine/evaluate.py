"""Answers of a classifier on a part of a data set, and their accuracy by class and group.

`N` images, `K` classes. Accuracies are percentages; a class or group without images has None.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn

from trainer.engine.batches import Images
from trainer.engine.loop import autocast
from trainer.engine.transform import Transform
from trainer.models import Outputs
from trainer.reports.schema import class_mean, group_means

if TYPE_CHECKING:
    from stylegan_mix.datasets import Part
    from trainer.spec import RunSpec

__all__ = [
    "MOST_CONFUSED",
    "confusion_of",
    "features_of",
    "interval",
    "logits_of",
    "predicted_by",
    "scores",
]

# Budget of test images for the curves of a run: this many, or an eighth of the trained images.
EVALUATED_IMAGES = 150_000
_BATCH = 500
# Above this side, fewer images are evaluated at once: feature maps take the memory of so many.
_LARGE = 64
MOST_CONFUSED = 1000
"""The most classes of which a confusion matrix is kept: it grows with their square."""


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
    batch: int = _BATCH,
) -> Tensor:
    """Computes the logits of a part in evaluation mode, [N, K] float32 on the CPU."""
    answers = _answers(model, part, transform, device, precision, batch)
    return torch.cat([out.logits.cpu() for out in answers])


def features_of(
    model: nn.Module, part: Part, transform: Transform, *, device: torch.device, precision: str
) -> tuple[Tensor, Tensor]:
    """Computes features [N, D] and logits [N, K] of a part in evaluation mode, on the CPU."""
    answers = _answers(model, part, transform, device, precision, _BATCH)
    both = [(out.features.cpu(), out.logits.cpu()) for out in answers]
    features, logits = zip(*both, strict=True)
    return torch.cat(features), torch.cat(logits)


def predicted_by(
    model: nn.Module, part: Part, transform: Transform, *, device: torch.device, precision: str
) -> np.ndarray:
    """Computes the class of the largest logit of a part, [N] int64; the logits are not kept."""
    answers = _answers(model, part, transform, device, precision, _BATCH)
    return torch.cat([out.logits.cpu().argmax(1) for out in answers]).numpy()


def _answers(
    model: nn.Module,
    part: Part,
    transform: Transform,
    device: torch.device,
    precision: str,
    batch: int,
) -> Iterator[Outputs]:
    """Yields the outputs of a part, `batch` images at once, or fewer large ones."""
    images = Images(part.images, device)
    height, width = part.images.shape[1:3]
    fewer = max(batch * _LARGE**2 // max(height * width, _LARGE**2), 1)
    model.eval()
    with torch.no_grad(), autocast(precision, device):
        for taken in images.each(fewer):
            yield model(transform.plain(taken))


def confusion_of(labels: np.ndarray, predicted: np.ndarray, classes: int) -> np.ndarray:
    """Counts the images of class i that were classified as j, [K, K] int64."""
    pairs = np.asarray(labels, np.int64) * classes + np.asarray(predicted, np.int64)
    return np.bincount(pairs, minlength=classes * classes).reshape(classes, classes)


def scores(
    labels: np.ndarray, predicted: np.ndarray, classes: int, groups: Mapping[str, Sequence[int]]
) -> dict[str, Any]:
    """Computes overall, balanced, many, medium, few and per class.

    "overall" is the share of all images, "balanced" the mean over the classes (the balanced
    accuracy of scikit-learn), and a group the mean over its classes. labels, predicted: [N] class
    indices. No memory grows with the square of the classes.
    """
    labels, predicted = np.asarray(labels), np.asarray(predicted)
    totals = np.bincount(labels, minlength=classes)
    right = np.bincount(labels[labels == predicted], minlength=classes)
    per_class = [100 * int(r) / int(n) if n else None for r, n in zip(right, totals, strict=True)]
    return {
        "overall": 100 * int(right.sum()) / max(int(totals.sum()), 1),
        "balanced": class_mean(per_class),
        **group_means(groups, per_class),
        "per_class": per_class,
    }
