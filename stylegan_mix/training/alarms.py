"""Signs of collapse in each class, measured while the generator trains.

A class-conditional generator collapses where images are few, and its losses do not show it
(Rangwani et al. 2022, gSR, and 2023, NoisyTwins): a class falls to a few images, its samples become
its training images, its w shrink to a point, the norm of its class path explodes, or the
discriminator is never wrong. K classes, n samples of each.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from stylegan_mix.datasets import Dataset
from stylegan_mix.generators.collapse import COLLAPSED, ONE_PICTURE
from stylegan_mix.generators.diversity import class_samples, diversity_ratios

__all__ = [
    "COPIED",
    "SATURATED",
    "Alarms",
    "Health",
    "class_path_norm",
    "measure",
    "w_spread",
]

# A class has collapsed when its diversity was at least _ALIVE and then stays below COLLAPSED for
# _LOGS logs in a row. After _LATEST kimg it need not have been alive.
_ALIVE, _LOGS, _LATEST = 0.3, 3, 100.0
# Samples five times nearer to a training image than its nearest other training image is.
COPIED = 0.2
_POINT = 0.02
_EXPLODED = 10.0
SATURATED = 0.98
_OVERFLOWING = 0.01
_REALS = 500


@dataclass(frozen=True)
class Health:
    """The state of the K classes at one log, in their order; None for classes not measured.

    `diversity` as in `diversity_ratios`. `spread` is the standard deviation of w inside the class
    over that of all w. `copies` is the median distance of a sample to the nearest training image of
    its class, over the median distance between nearest training images. Near 0 the samples are
    copies; None if a class has too few images. `class_norm` is the spectral norm of the class path.
    """

    diversity: list[float | None]
    spread: list[float | None]
    copies: list[float | None]
    class_norm: float

    def plain(self) -> dict[str, Any]:
        """Composes the measurements as a part of a log line."""
        return {
            "diversity": self.diversity,
            "w_spread": [None if value is None else round(value, 4) for value in self.spread],
            "copies": self.copies,
            "class_norm": self.class_norm,
        }


def measure(samples: Mapping[int, Tensor], w: Mapping[int, Tensor], dataset: Dataset) -> Health:
    """Measures a generator by samples [n,H,W,C] uint8 and w [n,D] of each class in the maps."""

    def of_all(values: Mapping[int, float | None]) -> list[float | None]:
        return [values.get(label) for label in range(dataset.num_classes)]

    return Health(
        diversity=of_all(diversity_ratios(samples, dataset.train)),
        spread=of_all(w_spread(w)),
        copies=of_all({label: _copies(drawn, dataset, label) for label, drawn in samples.items()}),
        class_norm=class_path_norm(w),
    )


def w_spread(w: Mapping[int, Tensor]) -> dict[int, float]:
    """Computes the deviation of w inside each class over that of all w, from w [n,D] of each."""
    everything = torch.cat(list(w.values()))
    whole = (everything - everything.mean(dim=0)).square().mean().sqrt()
    inside = {label: (one - one.mean(dim=0)).square().mean().sqrt() for label, one in w.items()}
    return {label: float(one / whole) if whole > 0 else 0.0 for label, one in inside.items()}


def class_path_norm(w: Mapping[int, Tensor]) -> float:
    """Computes the spectral norm of the class means of w, less the overall mean, over sqrt(K).

    From w [n,D] of each class. It measures the whole path from label to w. The embedding alone
    would not do: it is normalised after its weights, which may grow without bound. When a rare
    class collapses this norm explodes, which Rangwani et al. 2022 (gSR) regularise.
    """
    means = torch.stack([one.mean(dim=0) for one in w.values()]).float()
    apart = means - means.mean(dim=0)
    return float(torch.linalg.matrix_norm(apart, ord=2)) / len(means) ** 0.5


def _copies(drawn: Tensor, dataset: Dataset, label: int) -> float | None:
    real = torch.from_numpy(class_samples(dataset.train, label, _REALS)).flatten(1).float()
    if len(real) < 2:
        return None
    between = torch.cdist(real, real).fill_diagonal_(float("inf")).amin(dim=1).median()
    nearest = torch.cdist(drawn.flatten(1).float(), real).amin(dim=1).median()
    return float(nearest / between) if between > 0 else None


class Alarms:
    """The alarms of a training, judged from its logs; the memory lies in its running state."""

    def __init__(self, running: dict[str, Tensor], classes: tuple[str, ...]) -> None:
        self._classes = classes
        self._best = running.setdefault("alarms.best", torch.zeros(len(classes)))
        self._low = running.setdefault("alarms.low", torch.zeros(len(classes)))
        self._first_norm = running.setdefault("alarms.class_norm", torch.zeros([]))

    def collapsed(self, health: Health, kimg: float) -> list[str]:
        """Records the log at `kimg`; returns the classes that have collapsed by now."""
        for label, ratio in enumerate(health.diversity):
            if ratio is None:
                continue
            self._best[label] = max(float(self._best[label]), ratio)
            lived = kimg >= _LATEST or float(self._best[label]) >= _ALIVE
            fallen = lived and ratio < COLLAPSED
            self._low[label] = float(self._low[label]) + 1 if fallen else 0
        rows = torch.nonzero(self._low >= _LOGS).flatten().tolist()
        return [self._classes[label] for label in rows]

    @property
    def sound(self) -> bool:
        """True if no class looked collapsed at the last log."""
        return not bool(self._low.any())

    def warnings(self, health: Health, means: Mapping[str, float]) -> dict[str, str]:
        """Lists the alarms of a log, short name -> text; none of them stops a training."""
        found = {}
        if flat := self._below(health.diversity, COLLAPSED):
            found["diversity"] = f"{ONE_PICTURE} {flat}"
        if copied := self._below(health.copies, COPIED):
            found["copies"] = f"copies its training images: {copied}"
        if points := self._below(health.spread, _POINT):
            found["w"] = f"w nearly a point: {points}"
        if float(self._first_norm) == 0:
            self._first_norm.fill_(health.class_norm)
        elif health.class_norm > _EXPLODED * float(self._first_norm):
            found["class path"] = f"the class path grew more than {_EXPLODED:g} times as strong"
        if means.get("sign_real", 0) > SATURATED and means.get("sign_fake", 0) < -SATURATED:
            found["discriminator"] = "the discriminator is never wrong"
        if max(means.get("overflow_g", 0), means.get("overflow_d", 0)) > _OVERFLOWING:
            found["overflow"] = "gradients do not fit in float16"
        return found

    def _below(self, values: list[float | None], bound: float) -> str:
        """Lists the names of the classes with a value below `bound`."""
        pairs = zip(self._classes, values, strict=True)
        return ", ".join(name for name, value in pairs if value is not None and value < bound)

    @staticmethod
    def shown(
        health: Health, warnings: Mapping[str, str], means: Mapping[str, float]
    ) -> dict[str, str]:
        """Composes the facts of the progress line: the names of alarms, and their measurements.

        A measurement is shown for the lowest and the highest class.
        """
        facts = {"ALARMS": ", ".join(warnings)} if warnings else {}
        for name, values in (
            ("diversity", health.diversity),
            ("copies", health.copies),
            ("w", health.spread),
        ):
            known = [value for value in values if value is not None]
            if known:
                facts[name] = f"{min(known):.2f}..{max(known):.2f}"
        facts["class path"] = f"{health.class_norm:.2g}"
        if {"sign_real", "sign_fake"} <= set(means):
            facts["D"] = f"{means['sign_real']:+.2f}/{means['sign_fake']:+.2f}"
        return facts
