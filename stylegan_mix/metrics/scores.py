"""Scores of a classifier: label accuracy, classification accuracy score; shares of classes.

`N` rows, `K` classes.
"""

from __future__ import annotations

import numpy as np

__all__ = ["allocate", "class_accuracy", "class_mean"]


def class_accuracy(said: np.ndarray, labels: np.ndarray, classes: int) -> list[float | None]:
    """Computes the share of each class's rows that were classified as it: K values; None: no rows.

    With a classifier of real images on samples this is the label accuracy ("GAN-test", Shmelkov et
    al. 2018). With a classifier of samples alone on real images it is the classification accuracy
    score (Ravuri and Vinyals 2019; "GAN-train").
    """
    totals = np.bincount(labels, minlength=classes)
    right = np.bincount(labels[said == labels], minlength=classes)
    return [
        int(hit) / int(total) if total else None for hit, total in zip(right, totals, strict=True)
    ]


def class_mean(values: list[float | None]) -> float | None:
    """Averages over the classes that have a value; None if none has."""
    known = [value for value in values if value is not None]
    return float(np.mean(known)) if known else None


def allocate(share: np.ndarray, n: int) -> np.ndarray:
    """Shares n rows over classes by their shares [K], by largest remainders -> int64 [K]."""
    exact = share / share.sum() * n
    counts = np.floor(exact).astype(np.int64)
    # Rounded, so that equal remainders are equal: the first classes get the rest.
    order = np.argsort(-np.round(exact - counts, 9), kind="stable")
    counts[order[: n - counts.sum()]] += 1
    return counts
