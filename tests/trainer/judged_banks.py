"""Made-up annotations of banks: what a judge would have said of each row."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from stylegan_mix import arrays
from stylegan_mix.banks import store as banks
from stylegan_mix.banks.reader import open_bank
from stylegan_mix.judging.annotations import KIND, named, places

JUDGE = "e" * 64


def judged(
    bank: Path | str,
    /,
    kept: Callable[[np.ndarray], np.ndarray] = lambda rows: rows >= 0,
    judge: str = JUDGE,
    **changes: Any,
) -> Path:
    """Writes annotations by which the judge sees a third class in all rows but the kept ones.

    `bank` is a key or a folder; `changes` replace arrays of the annotations or facts.
    """
    bank = open_bank(bank if isinstance(bank, Path) else banks.resolve(bank))
    rows = np.arange(len(bank))
    posterior = np.zeros((len(bank), 10), np.float32)
    posterior[rows, bank.pair[:, 0]] = 1
    third = [next(c for c in range(10) if c not in pair) for pair in bank.pair.tolist()]
    for row in rows[~kept(rows)]:
        posterior[row] = np.eye(10)[third[row]]
    held = {
        "posterior": posterior.astype("<f2"),
        "distance": np.zeros((len(bank), 2), "<f4"),
        "nearest": np.zeros(len(bank), "<f4"),
        "copy": np.zeros(len(bank), "<i4"),
    }
    facts = {
        "schema_version": 1,
        "bank": bank.key,
        "content_sha256": bank.content_sha256,
        "split_id": bank.split_id,
        "classes": list(bank.classes),
        "judge": judge,
        "reach": [1.0] * 10,
    }
    held = {name: changes.get(name, value) for name, value in held.items()}
    facts = {name: changes.get(name, value) for name, value in facts.items()}
    place = places(bank)[0] / named(judge)
    arrays.write(place, held, kind=KIND, facts=facts)
    return place
