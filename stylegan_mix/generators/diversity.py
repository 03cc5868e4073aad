"""Diversity inside the classes, compared with that of their real images.

K classes, n images of a class, P pixels x channels.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor

from stylegan_mix.datasets import Part

__all__ = ["class_samples", "diversity_ratios", "mean_pairwise_distance"]


def mean_pairwise_distance(images: Tensor) -> float | None:
    """Averages the Euclidean pixel distance over all pairs of images [n, ...]; None below two."""
    if len(images) < 2:
        return None
    return float(torch.pdist(images.flatten(1).float()).mean())


def diversity_ratios(
    samples: Mapping[int, Tensor], part: Part, *, most: int = 200
) -> dict[int, float | None]:
    """Compares each class c: mean pairwise distance of `samples[c]` over that of its real images.

    `samples[c]` holds uint8 images [n,H,W,C]. 1 is as diverse as the data; at 0 all samples look
    the same. At most `most` real images of a class are used, evenly spaced in its order. None if a
    class has fewer than two images, or all of them are equal.
    """
    ratios: dict[int, float | None] = {}
    for label, drawn in samples.items():
        real = mean_pairwise_distance(torch.from_numpy(class_samples(part, label, most)))
        fake = mean_pairwise_distance(drawn)
        ratios[label] = fake / real if real and fake is not None else None
    return ratios


def class_samples(part: Part, label: int, most: int) -> np.ndarray:
    """Selects up to `most` images of a class, evenly spaced in the part: [n,H,W,C] uint8."""
    rows = np.flatnonzero(part.labels == label)
    if len(rows) > most:
        rows = rows[np.linspace(0, len(rows) - 1, most).round().astype(int)]
    return np.asarray(part.images[rows])
