"""Is the generator still alive in every class? Signs of collapse, measured while it trains.

A class-conditional generator collapses where images are few, and its losses do not say so
(methods dossier 4.2): a class falls to a few looks, its samples become its training images, its w
shrink to a point, the label path explodes, the discriminator is never wrong. K classes, n samples
of each.
"""

from __future__ import annotations

import statistics
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from stylegan_mix.datasets import Dataset
from stylegan_mix.networks import Generator
from stylegan_mix.training.diversity import class_samples, diversity_ratios

__all__ = [
    "COPIED",
    "SATURATED",
    "Alarms",
    "Health",
    "dead",
    "label_path_norm",
    "measure",
    "w_spread",
]

# A class has collapsed when its diversity, once at least _ALIVE, stays below _COLLAPSED for
# _LOGS logs in a row; after _LATEST kimg also where it never lived. On digits and CIFAR-10 sound
# classes stay above 0.5, from the first 20 kimg on.
_ALIVE, _COLLAPSED, _LOGS, _LATEST = 0.3, 0.1, 3, 100.0
# Samples that lie five times nearer to a training image than its nearest other one does.
COPIED = 0.2
_POINT = 0.02
_EXPLODED = 10.0
SATURATED = 0.98
_REALS = 500


@dataclass(frozen=True)
class Health:
    """The state of the K classes at one log, in their order; None of those not looked at.

    `diversity` as in `diversity_ratios`. `spread` is the standard deviation of w inside the class
    over that of all w. `copies` is the median distance of a sample to the nearest training image
    of its class over the median distance between nearest training images: near 0 are copies.
    None where a class has too few images. `label_norm` is the spectral norm of the label path.
    """

    diversity: list[float | None]
    spread: list[float | None]
    copies: list[float | None]
    label_norm: float

    def plain(self) -> dict[str, Any]:
        """As a part of a log line."""
        return {
            "diversity": self.diversity,
            "w_spread": [None if value is None else round(value, 4) for value in self.spread],
            "copies": self.copies,
            "label_norm": self.label_norm,
        }


def measure(
    network: Generator, samples: Mapping[int, Tensor], w: Mapping[int, Tensor], dataset: Dataset
) -> Health:
    """The health of `network`, from samples [n,H,W,C] uint8 and w [n,D] of each class there."""

    def of_all(values: Mapping[int, float | None]) -> list[float | None]:
        return [values.get(label) for label in range(dataset.num_classes)]

    return Health(
        diversity=of_all(diversity_ratios(samples, dataset.train)),
        spread=of_all(w_spread(w)),
        copies=of_all({label: _copies(drawn, dataset, label) for label, drawn in samples.items()}),
        label_norm=label_path_norm(network),
    )


def w_spread(w: Mapping[int, Tensor]) -> dict[int, float]:
    """Standard deviation of w inside each class over that of all w, from w [n,D] of each."""
    everything = torch.cat(list(w.values()))
    whole = (everything - everything.mean(dim=0)).square().mean().sqrt()
    inside = {label: (one - one.mean(dim=0)).square().mean().sqrt() for label, one in w.items()}
    return {label: float(one / whole) if whole > 0 else 0.0 for label, one in inside.items()}


def dead(diversity: Mapping[int, float | None]) -> list[int]:
    """The classes whose samples are little but one picture, of those that can be judged."""
    return [c for c, ratio in diversity.items() if ratio is not None and ratio < _COLLAPSED]


def label_path_norm(network: Generator) -> float:
    """The largest singular value of the label embedding as it is used; 0 without classes."""
    if not network.classes:
        return 0.0
    weight = network.mapping.embed.weight.detach().float()
    return float(torch.linalg.matrix_norm(weight, ord=2)) / weight.shape[1] ** 0.5


def _copies(drawn: Tensor, dataset: Dataset, label: int) -> float | None:
    real = torch.from_numpy(class_samples(dataset.train, label, _REALS)).flatten(1).float()
    if len(real) < 2:
        return None
    between = torch.cdist(real, real).fill_diagonal_(float("inf")).amin(dim=1).median()
    nearest = torch.cdist(drawn.flatten(1).float(), real).amin(dim=1).median()
    return float(nearest / between) if between > 0 else None


class Alarms:
    """What the logs so far say of a training; its memory lies in the training's running state."""

    def __init__(self, running: dict[str, Tensor], classes: tuple[str, ...]) -> None:
        self._classes = classes
        self._best = running.setdefault("alarms.best", torch.zeros(len(classes)))
        self._low = running.setdefault("alarms.low", torch.zeros(len(classes)))
        self._first_norm = running.setdefault("alarms.label_norm", torch.zeros([]))

    def collapsed(self, health: Health, kimg: float) -> list[str]:
        """Takes the log at `kimg` in; the classes that have collapsed by it."""
        for label, ratio in enumerate(health.diversity):
            if ratio is None:
                continue
            self._best[label] = max(float(self._best[label]), ratio)
            lived = kimg >= _LATEST or float(self._best[label]) >= _ALIVE
            fallen = lived and ratio < _COLLAPSED
            self._low[label] = float(self._low[label]) + 1 if fallen else 0
        rows = torch.nonzero(self._low >= _LOGS).flatten().tolist()
        return [self._classes[label] for label in rows]

    @property
    def sound(self) -> bool:
        """Whether no class looked collapsed at the last log."""
        return not bool(self._low.any())

    def warnings(self, health: Health, means: dict[str, float]) -> list[str]:
        """What looks wrong at a log, in words; none of it stops a training."""
        found = []
        copied = [
            name
            for name, ratio in zip(self._classes, health.copies, strict=True)
            if ratio is not None and ratio < COPIED
        ]
        if copied:
            found.append(f"copies its training images: {', '.join(copied)}")
        points = [
            name
            for name, spread in zip(self._classes, health.spread, strict=True)
            if spread is not None and spread < _POINT
        ]
        if points:
            found.append(f"w nearly a point: {', '.join(points)}")
        if float(self._first_norm) == 0:
            self._first_norm.fill_(health.label_norm)
        elif health.label_norm > _EXPLODED * float(self._first_norm):
            found.append(f"label path grew to {health.label_norm:.3g}")
        if means.get("sign_real", 0) > SATURATED and means.get("sign_fake", 0) < -SATURATED:
            found.append("the discriminator is never wrong")
        return found

    @staticmethod
    def shown(health: Health, warnings: list[str]) -> dict[str, str]:
        """The facts for the progress line."""
        known = [ratio for ratio in health.diversity if ratio is not None]
        facts = {"diversity": f"{min(known):.2f}..{max(known):.2f}"} if known else {}
        near = [ratio for ratio in health.copies if ratio is not None]
        if near:
            facts["copies"] = f"{min(near):.2f}..{statistics.median(near):.2f}"
        if warnings:
            facts["alarms"] = str(len(warnings))
        return facts
