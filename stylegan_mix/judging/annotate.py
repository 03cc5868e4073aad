"""Making annotations: a judge looks at every row of a bank once."""

from __future__ import annotations

import shutil
from dataclasses import asdict
from typing import Any

import numpy as np
import torch

from stylegan_mix import arrays, store
from stylegan_mix.banks.reader import Bank
from stylegan_mix.datasets import Dataset
from stylegan_mix.errors import InvalidInput
from stylegan_mix.judging.acceptance import calibration, kept_by_class
from stylegan_mix.judging.annotations import (
    KIND,
    SCHEMA_VERSION,
    Annotations,
    named,
    open_annotations,
    places,
)
from stylegan_mix.judging.judge import FOLDS, Judge, ensure_judge, judge_key
from stylegan_mix.metrics.neighbours import nearest
from stylegan_mix.session import Session

__all__ = ["annotate", "existing"]

_ROWS = 1024


def existing(
    bank: Bank, dataset: Dataset, *, folds: int = FOLDS, seed: int = 0
) -> Annotations | None:
    """Opens the annotations of a bank by this judge of the data set, if they have been made."""
    key = judge_key(dataset, folds=folds, seed=seed)
    for folder in places(bank):
        if (folder / named(key)).is_dir():
            return open_annotations(folder / named(key), bank)
    return None


def annotate(
    bank: Bank,
    dataset: Dataset,
    *,
    folds: int = FOLDS,
    seed: int = 0,
    device: torch.device,
    session: Session = Session(),
) -> Annotations:
    """Finds the annotations of a bank, or makes them, training the judge if it must.

    Raises `InvalidInput` (exit code 3) if the data set is not the one that the bank's generator
    was trained on.
    """
    bank.require_split(dataset.split_id)
    place = places(bank)[0] / named(judge_key(dataset, folds=folds, seed=seed))
    lock = place.with_name(f".{place.name}.lock")
    with store.locked(lock, session=session):
        found = existing(bank, dataset, folds=folds, seed=seed)
        if found is None:
            judge = ensure_judge(dataset, folds=folds, seed=seed, device=device, session=session)
            made, facts = _judged(bank, judge, session)
            bank.require_unchanged()
            temporary = place.with_name(f".{place.name}")
            shutil.rmtree(temporary, ignore_errors=True)
            arrays.write(temporary, made, kind=KIND, facts={**facts, "split_id": bank.split_id})
            store.publish(temporary, place)
            found = existing(bank, dataset, folds=folds, seed=seed)
        lock.unlink(missing_ok=True)
    if found is None:
        raise InvalidInput(f"{place} vanished while it was written")
    return found


def _judged(
    bank: Bank, judge: Judge, session: Session
) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """Judges all rows: the arrays of the annotations, and their facts."""
    size = len(bank)
    made: dict[str, np.ndarray] = {
        "posterior": np.empty((size, len(bank.classes)), "<f2"),
        "distance": np.empty((size, 2), "<f4"),
        "nearest": np.empty(size, "<f4"),
        "copy": np.empty(size, "<i4"),
    }
    progress = session.track(size, "rows", "judging")
    for start in range(0, size, _ROWS):
        rows = slice(start, start + _ROWS)
        verdict, pair = judge.verdict(bank.images[rows], session), bank.pair[rows]
        made["posterior"][rows] = verdict.posterior
        for side in (0, 1):
            made["distance"][rows, side] = judge.distance(verdict.features, pair[:, side])
        # Half the squared distance of unit vectors is their cosine distance.
        index, apart = nearest(verdict.features, judge.training)
        made["copy"][rows], made["nearest"][rows] = index, apart**2 / 2
        progress.update(min(start + _ROWS, size))
    progress.close()
    return made, _facts(bank, judge, made)


def _facts(bank: Bank, judge: Judge, made: dict[str, np.ndarray]) -> dict[str, Any]:
    pair, lam = np.asarray(bank.pair), np.asarray(bank.lam)
    facts: dict[str, Any] = {
        "schema_version": SCHEMA_VERSION,
        "bank": bank.key,
        "content_sha256": bank.content_sha256,
        "judge": judge.key,
        "classes": list(bank.classes),
        "reach": [float(one) for one in judge.reach],
        "judge_accuracy": [None if np.isnan(one) else float(one) for one in judge.accuracy()],
    }
    found = Annotations(facts, "", **made)
    near = judge.near()[pair[:, 0], pair[:, 1]]
    for name, rows in (("near", near), ("far", ~near)):
        curve = calibration(made["posterior"][rows], pair[rows], lam[rows])
        facts[f"calibration_{name}"] = {key: list(value) for key, value in asdict(curve).items()}
    classes = found.dominant(bank)
    facts["kept"] = kept_by_class(found.clean(bank), classes, len(bank.classes))
    facts["third_share"] = float(found.third(bank).mean())
    facts["far_share"] = float(found.far(bank).mean())
    return facts
