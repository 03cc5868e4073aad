"""Made-up runs of several arms and seeds, and the columns of their table."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from trainer.reports.records import Result

Maker = Callable[..., dict[str, Any]]
HEADINGS = [
    *("overall (images)", "balanced (10 classes)"),
    *("many (3 classes)", "medium (4 classes)", "few (3 classes)"),
]
BASE = (74, 73, 72, 71, 70, 69, 68, 60, 50, 40)


def arms(record: Maker, *augs: str, seeds: int = 3, **settings: Any) -> list[Result]:
    return [
        Result(record(aug, seed=seed, right=(*BASE[:-1], 40 + 10 * seed), **settings))
        for aug in augs
        for seed in range(seeds)
    ]
