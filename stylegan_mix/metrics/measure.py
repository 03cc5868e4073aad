"""All figures of samples: scope by scope, against each reference, with the floor beside them.

A scope is all classes, a shot group, or one class. The floor of a distance is the same figure with
real images in place of the samples, weighted to the samples' labels. For the training references
these are the test part; for the test part, the training part. `N` rows, `K` classes, `D` feature
width.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from stylegan_mix.datasets import Dataset, Part
from stylegan_mix.datasets.groups import telling
from stylegan_mix.generators.diversity import diversity_ratios
from stylegan_mix.metrics.distances import (
    Kernel,
    Labelled,
    effective_count,
    frechet_distance,
    kernel_distance,
    kernel_sums,
    moments,
)
from stylegan_mix.metrics.features import Backbone
from stylegan_mix.metrics.neighbours import copying, evenly_spaced, nearest, prdc
from stylegan_mix.metrics.probe import SmallNet, answers, schedule_for, train_classifier
from stylegan_mix.metrics.samples import Samples
from stylegan_mix.metrics.scores import class_accuracy, class_mean
from stylegan_mix.session import Session

__all__ = ["NEIGHBOURS", "Judge", "Values", "compare", "least_for_frechet", "scopes"]

NEIGHBOURS = 5
"""k of precision, recall, density and coverage, as in Naeem et al. 2020."""

_DIVERSITY_IMAGES = 200
# Real images of a class whose distance to the training part is measured: enough for a percentile.
_DISTANCES = 1000

Values = dict[str, list[float | None]]
"""A figure's name -> its value in every scope."""

Scope = tuple[str, tuple[int, ...]]


def scopes(dataset: Dataset) -> list[Scope]:
    """Lists (name, classes): "all", the shot groups that tell more, then every class."""
    return [
        ("all", tuple(range(dataset.num_classes))),
        *telling(dataset.counts, dataset.groups.members).items(),
        *((dataset.classes[c], (c,)) for c in range(dataset.num_classes)),
    ]


def least_for_frechet(width: int) -> int:
    """Returns the least number of rows for a covariance of D features: twice D."""
    return 2 * width


# One set against another


@dataclass(frozen=True, eq=False)
class Stand:
    """A set that stands for a mixture of classes with these shares [K]: samples, or reals."""

    rows: Labelled
    share: np.ndarray

    def weights(self) -> np.ndarray:
        """Weighs each row [N] so that the classes have their shares; 0 for a class without one."""
        counts = np.bincount(self.rows.labels, minlength=len(self.share))
        return (self.share / np.maximum(counts, 1))[self.rows.labels]

    def of(self, classes: Sequence[int]) -> Stand | None:
        """Selects these classes; None if one with a share has no row."""
        share = np.zeros_like(self.share)
        share[list(classes)] = self.share[list(classes)]
        rows = self.rows.of(np.flatnonzero(share > 0).tolist())
        missing = (share > 0) & (np.bincount(rows.labels, minlength=len(share)) == 0)
        if missing.any() or not len(rows):
            return None
        return Stand(rows, share / share.sum())

    def spread_out(self, most: int) -> Stand:
        """Selects at most so many rows, evenly spaced after sorting by class."""
        order = np.argsort(self.rows.labels, kind="stable")
        return Stand(self.rows.at(order[evenly_spaced(len(order), most)]), self.share)


def as_it_is(rows: Labelled, classes: int) -> Stand:
    """Makes a set stand for itself, with its own class shares."""
    counts = np.bincount(rows.labels, minlength=classes)
    return Stand(rows, counts / max(counts.sum(), 1))


def compare(x: Stand, y: Stand, y_within: Kernel, wanted: Sequence[Scope]) -> Values:
    """Computes distances and neighbour figures of x against the reference y, in every scope."""
    classes = len(x.share)
    x_within = kernel_sums(x.rows, None, classes)
    across = kernel_sums(x.rows, y.rows, classes)
    found: Values = {name: [] for name in _COMPARED}
    for _, members in wanted:
        left, right = x.of(members), y.of(members)
        if left is None or right is None:
            values: tuple[float | None, ...] = (None,) * len(_COMPARED)
        else:
            distance, error = kernel_distance(x_within, y_within, across, left.share, right.share)
            values = (_frechet(left, right), distance, error, *_neighbours(left, right))
        for name, value in zip(_COMPARED, values, strict=True):
            found[name].append(value)
    return found


_COMPARED = (
    "frechet",
    "kernel",
    "kernel_error",
    "precision",
    "recall",
    "density",
    "coverage",
)


def _frechet(x: Stand, y: Stand) -> float | None:
    """Computes the Frechet distance; None if a set has fewer effective rows than it needs."""
    least = least_for_frechet(x.rows.features.shape[1])
    if effective_count(x.weights()) < least or effective_count(y.weights()) < least:
        return None
    return frechet_distance(
        moments(x.rows.features, x.weights()), moments(y.rows.features, y.weights())
    )


def _neighbours(x: Stand, y: Stand) -> tuple[float | None, ...]:
    """Computes the figures of equally many rows: coverage and recall grow with their number."""
    most = min(len(x.rows), len(y.rows))
    x, y = x.spread_out(most), y.spread_out(most)
    found = prdc(y.rows.features, x.rows.features, k=NEIGHBOURS, weights=x.weights())
    if found is None:
        return (None,) * 4
    return found.precision, found.recall, found.density, found.coverage


# Samples against everything


@dataclass(frozen=True, eq=False)
class _Reference:
    name: str
    stand: Stand
    within: Kernel


class Judge:
    """The reference sets with their features; it judges one set of samples after another.

    `references` maps "train", "balanced" and "test" to parts. No image of the test part is used
    unless it is among them. `network` is the probe, `backbone` the space of distances.
    """

    def __init__(
        self,
        dataset: Dataset,
        references: Mapping[str, Part],
        *,
        network: SmallNet,
        backbone: Backbone,
        device: torch.device,
        session: Session = Session(),
    ) -> None:
        self._dataset, self._network, self._backbone = dataset, network, backbone
        self._device, self._session = device, session
        self.scopes = scopes(dataset)
        self._sees_test = "test" in references
        self._train = self._labelled(dataset.train)
        self._references = []
        for name, part in references.items():
            self._session.say(f"features of {len(part):,} real images: {name}")
            rows = self._train if name == "train" else self._labelled(part)
            within = kernel_sums(rows, None, dataset.num_classes)
            self._references.append(_Reference(name, as_it_is(rows, dataset.num_classes), within))
        self._held_out = self._distances_of_reals()

    @property
    def width(self) -> int:
        """The feature width, D."""
        return int(self._train.features.shape[1])

    def _labelled(self, part: Part) -> Labelled:
        return Labelled(self._backbone.features(part.images), np.asarray(part.labels))

    def floor_set(self, name: str) -> str | None:
        """Names the part whose real images are the floor against this reference."""
        if not self._sees_test:
            return None
        return "train" if name == "test" else "test"

    def _stand_in(self, name: str, share: np.ndarray) -> Stand | None:
        part = self.floor_set(name)
        if part is None:
            return None
        if part == "train":
            return Stand(self._train, share)
        test = next(one for one in self._references if one.name == "test")
        return Stand(test.stand.rows, share)

    def described(self, share: np.ndarray) -> dict[str, Any]:
        """Describes each reference for these shares: its images, and the reals of its floor."""
        found: dict[str, Any] = {}
        for reference in self._references:
            stand = self._stand_in(reference.name, share)
            floor = None
            if stand is not None:
                worth = effective_count(stand.weights())
                floor = (
                    f"{len(stand.rows):,} {self.floor_set(reference.name)} images, weighted to "
                    f"the samples' labels: worth {worth:,.0f}"
                )
            found[reference.name] = {"images": len(reference.stand.rows), "floor": floor}
        return found

    def floors(self, share: np.ndarray) -> dict[str, Values]:
        """Compares real with real, by reference, for samples with these class shares [K]."""
        found = {}
        for reference in self._references:
            stand = self._stand_in(reference.name, share)
            if stand is not None:
                found[reference.name] = self._compared(stand, reference)
        found[""] = self._floors_alone()
        return found

    def judge(
        self, samples: Samples, *, seed: int, cas: bool
    ) -> tuple[dict[str, Values], dict[str, np.ndarray]]:
        """Computes figures by reference ("" for those without one), and answers by row."""
        dataset = self._dataset
        rows = Labelled(self._backbone.features(samples.images), samples.labels)
        stand = as_it_is(rows, dataset.num_classes)
        figures = {one.name: self._compared(stand, one) for one in self._references}
        said = answers(self._network, samples.images).said
        alone = {"label_accuracy": self._accuracy(said, samples.labels)}
        if cas and self._sees_test:
            alone["cas"] = self._classification_accuracy_score(samples, seed)
        index, near = nearest(rows.features, self._train.features)
        pixel_index, pixel_near = nearest(_flat(samples.images), _flat(dataset.train.images))
        for suffix, distances in (("", near), ("_pixels", pixel_near)):
            alone |= self._copying(distances, samples.labels, suffix)
        alone["diversity"] = self._diversity(samples)
        figures[""] = alone
        arrays = {
            "label": samples.labels.astype(np.int32),
            "said": said.astype(np.int32),
            "nearest": index.astype(np.int32),
            "distance": near.astype(np.float32),
            "nearest_pixels": pixel_index.astype(np.int32),
            "distance_pixels": pixel_near.astype(np.float32),
        }
        return figures, arrays

    def _compared(self, stand: Stand, reference: _Reference) -> Values:
        self._session.go_on(f"distances to {reference.name} were being taken")
        return compare(stand, reference.stand, reference.within, self.scopes)

    def _accuracy(self, said: np.ndarray, labels: np.ndarray) -> list[float | None]:
        """Computes the accuracy of every scope as the mean over its classes."""
        return self._class_means(class_accuracy(said, labels, self._dataset.num_classes))

    def _class_means(self, values: list[float | None]) -> list[float | None]:
        """Averages a value of each class [K] over the classes of every scope."""
        return [class_mean([values[c] for c in members]) for _, members in self.scopes]

    def _classification_accuracy_score(self, samples: Samples, seed: int) -> list[float | None]:
        dataset = self._dataset
        network = train_classifier(
            Part(samples.images, samples.labels),
            classes=dataset.num_classes,
            flip=dataset.flip,
            schedule=schedule_for(dataset.resolution),
            seed=seed,
            device=self._device,
            label=f"classifier of the samples of seed {seed}",
            session=self._session,
        )
        said = answers(network, dataset.test.images).said
        return self._accuracy(said, dataset.test.labels)

    # Copies of training images

    def _distances_of_reals(self) -> dict[str, tuple[np.ndarray, np.ndarray]]:
        """Measures (distance, class) of real images to the training part, in features and pixels.

        "test" are unseen images. "train" are the training images, each to the nearest other one.
        """
        found = {}
        train, test = self._dataset.train, self._dataset.test
        own = _some_of_each(self._train.labels)
        for suffix, base in (("", self._train.features), ("_pixels", _flat(train.images))):
            others = nearest(base[own], base, own=own)[1]
            found[f"train{suffix}"] = (others, self._train.labels[own])
            if self._sees_test:
                rows = _some_of_each(test.labels)
                stand = next(one.stand for one in self._references if one.name == "test")
                queries = stand.rows.features[rows] if not suffix else _flat(test.images[rows])
                found[f"test{suffix}"] = (nearest(queries, base)[1], test.labels[rows])
        return found

    def _copying(self, distances: np.ndarray, labels: np.ndarray, suffix: str) -> Values:
        """Compares class by class, then averages: distances shrink with a class's images."""
        held_out, held_labels = self._held_out[("test" if self._sees_test else "train") + suffix]
        ratios, shares = [], []
        for c in range(self._dataset.num_classes):
            found = copying(distances[labels == c], held_out[held_labels == c])
            ratios.append(found.ratio if found else None)
            shares.append(found.share if found else None)
        return {
            f"memorisation{suffix}": self._class_means(ratios),
            f"copies{suffix}": self._class_means(shares),
        }

    def _diversity(self, samples: Samples) -> list[float | None]:
        """Averages pairwise pixel distances, over the same of the class's training images."""
        chosen = {}
        for c in range(self._dataset.num_classes):
            rows = np.flatnonzero(samples.labels == c)
            rows = rows[evenly_spaced(len(rows), _DIVERSITY_IMAGES)]
            chosen[c] = torch.from_numpy(np.array(samples.images[rows]))
        ratios = diversity_ratios(chosen, self._dataset.train)
        return self._class_means([ratios[c] for c in range(self._dataset.num_classes)])

    def _floors_alone(self) -> Values:
        """Computes the floors of the figures without a reference, from real images."""
        if not self._sees_test:
            return {}
        test = self._dataset.test
        found: Values = {}
        accuracy = self._accuracy(answers(self._network, test.images).said, test.labels)
        # The probe is this same network trained on the real training part.
        found["label_accuracy"] = found["cas"] = accuracy
        for suffix in ("", "_pixels"):
            found |= self._copying(*self._held_out[f"train{suffix}"], suffix)
        found["diversity"] = self._diversity(Samples(test.images, test.labels))
        return found


def _some_of_each(labels: np.ndarray) -> np.ndarray:
    """Selects at most `_DISTANCES` rows of each class, evenly spaced in its order, ascending."""
    chosen = []
    for c in np.unique(labels):
        rows = np.flatnonzero(labels == c)
        chosen.append(rows[evenly_spaced(len(rows), _DISTANCES)])
    return np.sort(np.concatenate(chosen))


def _flat(images: np.ndarray) -> np.ndarray:
    """Flattens pixels to float32 [N,H*W*C] in 0..255."""
    return np.asarray(images).reshape(len(images), -1).astype(np.float32)
