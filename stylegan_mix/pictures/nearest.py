"""Samples of the rarest classes beside their nearest training images.

A sample nearer to a training image than training images are to each other is a copy.
`N` samples of a class, `M` its training images.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from stylegan_mix.datasets import Dataset
from stylegan_mix.drawing.sheet import Sheet, draw
from stylegan_mix.metrics.neighbours import nearest
from stylegan_mix.metrics.probe import SmallNet, answers
from stylegan_mix.metrics.samples import redrawn
from stylegan_mix.pictures.choice import head_to_tail
from stylegan_mix.pictures.picture import Picture, of_image
from stylegan_mix.pictures.viewer import Subject

__all__ = ["RANKS", "Judged", "Near", "neighbours", "picked", "tail_neighbours"]

CLASSES = 5
RANKS = {"nearest": 0.0, "at 25 %": 0.25, "median": 0.5, "at 75 %": 0.75}
"""Places, in the order of their distances, of the samples shown of a class."""


@dataclass(frozen=True, eq=False)
class Judged:
    """A report's record of the samples of a seed: `labels` [N], their `distance` [N]."""

    seed: int
    labels: np.ndarray
    distance: np.ndarray


@dataclass(frozen=True, eq=False)
class Near:
    """The nearest of M images for each of N samples in one space: `index` [N], `distance` [N].

    `reals` [M] are the distances of the images to the nearest other one, empty for a single one.
    """

    index: np.ndarray
    distance: np.ndarray
    reals: np.ndarray

    def ratio(self, row: int) -> float | None:
        """Divides the distance by the median of `reals`; None if there is none."""
        typical = float(np.median(self.reals)) if len(self.reals) else 0.0
        return float(self.distance[row]) / typical if typical else None


def neighbours(samples: np.ndarray, images: np.ndarray) -> Near:
    """Finds the nearest of `images` [M,...] to each of `samples` [N,...], in Euclidean distance."""
    queries, base = _flat(samples), _flat(images)
    index, distance = nearest(queries, base)
    own = np.arange(len(base))
    reals = nearest(base, base, own=own)[1] if len(base) > 1 else np.empty(0)
    return Near(index, distance, reals)


def _flat(rows: np.ndarray) -> np.ndarray:
    return np.asarray(rows).reshape(len(rows), -1).astype(np.float64)


def picked(judged: Judged, label: int) -> np.ndarray:
    """Selects rows of a class's samples, one for each of `RANKS`; none without samples."""
    rows = np.flatnonzero(judged.labels == label)
    order = rows[np.argsort(judged.distance[rows], kind="stable")]
    return order[[int(rank * (len(order) - 1)) for rank in RANKS.values()]] if len(order) else rows


def tail_neighbours(
    subject: Subject, dataset: Dataset, judged: Judged, probe: SmallNet
) -> Picture | None:
    """Draws the picture, with distances of real images in its table; None without any sample."""
    cells, captions, names = [], [], []
    table = [["class", "training images", "in", "real to nearest real: least, median", *RANKS]]
    for label in head_to_tail(dataset.counts)[::-1][:CLASSES]:
        rows = picked(judged, label)
        if not len(rows):
            continue
        samples = redrawn(
            subject.network,
            judged.labels,
            rows,
            seed=judged.seed,
            truncation=subject.truncation,
        )
        images = np.asarray(dataset.train.images[dataset.train.labels == label])
        pixels = neighbours(samples, images)
        features = neighbours(answers(probe, samples).features, answers(probe, images).features)
        names.append(dataset.classes[label])
        cells.append(
            [
                image
                for row, sample in enumerate(samples)
                for image in (sample, images[pixels.index[row]], images[features.index[row]])
            ]
        )
        captions.append(
            [
                text
                for row, rank in enumerate(RANKS)
                for text in (rank, _times(pixels, row), _times(features, row))
            ]
        )
        count = f"{len(images):,}"
        table.append([names[-1], count, "pixels", *_numbers(pixels)])
        table.append([names[-1], count, "probe", *_numbers(features)])
    if not cells:
        return None
    sheet = Sheet(
        title=f"{dataset.name}: samples of the rarest classes and their nearest training images",
        note=f"{subject.origin}; samples in the order of their distance, in the report's features, "
        "to training images of any class; below a training image: its distance from the sample, as "
        "a multiple of the median distance from a training image of the class to the next; far "
        "below 1x is a copy",
        left=names,
        right=None,
        columns=["sample", "by pixels", "by probe"] * len(RANKS),
        cells=cells,
        corner="",
        captions=captions,
        group=3,
    )
    caption = (
        f"The {len(names)} rarest classes. Of the samples of the report, in the order of their "
        "distance in its features to the training images of any class, each row shows the nearest, "
        "those at a quarter and at the half, and one at three quarters; beside each the training "
        "image of its class that is nearest in pixels, and in the features of the probe. 1x is as "
        "far as a training image of the class is from the next one, 0x is the same image; "
        f"{subject.origin}."
    )
    return of_image("neighbours.png", "Is the tail copied?", caption, draw(sheet), table)


def _times(near: Near, row: int) -> str:
    ratio = near.ratio(row)
    return f"{near.distance[row]:.3g}" if ratio is None else f"{ratio:.2f}x"


def _numbers(near: Near) -> list[str]:
    reals = (
        f"{near.reals.min():.3g}, {np.median(near.reals):.3g}"
        if len(near.reals)
        else "n/a: one image"
    )
    return [reals, *(f"{distance:.3g}" for distance in near.distance)]
