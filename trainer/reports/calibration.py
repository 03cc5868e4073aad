"""The calibration error of a classifier: how far its confidence is from its accuracy; no torch.

`N` images, `K` classes.
"""

from __future__ import annotations

import numpy as np

__all__ = ["BINS", "calibration_error"]

BINS = 15
"""The number of bins of confidence, as in Guo et al. 2017."""


def calibration_error(probabilities: np.ndarray, labels: np.ndarray, bins: int = BINS) -> float:
    """Computes the expected calibration error in percent (Guo et al. 2017, eq. 3, ECE).

    An image's confidence is its largest probability. Images are put into `bins` bins of equal
    width by it, a bin's upper end included. The error is the mean over the images of |accuracy -
    mean confidence| of an image's bin. probabilities: [N, K], rows with sum 1; labels: [N] int64,
    at least one.
    """
    confidence = probabilities.max(1).astype(np.float64)
    right = probabilities.argmax(1) == labels
    place = np.clip(np.ceil(confidence * bins).astype(np.int64) - 1, 0, bins - 1)
    gap = np.bincount(place, weights=right - confidence, minlength=bins)  # of each bin, summed
    return float(100 * np.abs(gap).sum() / len(labels))
