"""The judge of a split: one classifier a fold of the training part, corrected for its prior.

Each classifier is trained on all other folds by logit adjustment (Menon et al. 2021): log of the
class prior is added to the logits in the loss, so that the logits alone are those of balanced
classes. An image of the training part is judged by the one classifier that has not seen it, a
generated image by all of them. The test part is never used.
`N` images, `K` classes, `D` feature width, `F` folds.
"""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.nn import functional

from stylegan_mix import checkpoint, store
from stylegan_mix.datasets import Dataset, Part
from stylegan_mix.errors import InvalidInput, UsageFailure
from stylegan_mix.judging.folds import KEPT, folds_of
from stylegan_mix.metrics.probe import WIDTH, SmallNet, outputs, schedule_for, train_classifier
from stylegan_mix.session import Session

__all__ = ["FOLDS", "Judge", "Verdict", "ensure_judge", "judge_key", "near_pairs"]

FOLDS = 3
_KIND = "judge-fold"
_ALGORITHM = {"network": 1, "training": 1}
_MOST_FOLDS = 20
# Fewer held-out images than this tell no percentile of their own.
_ENOUGH = 10


@dataclass(frozen=True, eq=False)
class Verdict:
    """Answers on N images: `posterior` float32 [N,K], sums 1, and `features` float32 [N,F*D].

    The features of each classifier have unit length, divided by the root of F: so their squared
    distance is the mean over classifiers.
    """

    posterior: np.ndarray
    features: np.ndarray


@dataclass(frozen=True, eq=False)
class Judge:
    """The judge of a split.

    `key` names it, `networks` are the F classifiers. `held_out` [N,K] are the posteriors of the
    training images by the classifier that has not seen them, `labels` [N] their classes; rows that
    every classifier has seen are left out. `prototypes` [K,F*D] are the mean features of the
    training images of each class, at unit length in each classifier. `reach` [K] is the 95th
    percentile of the cosine distance of held-out images of a class to its prototype. `training`
    [M,F*D] are the features of all M training images.
    """

    key: str
    classes: tuple[str, ...]
    networks: tuple[SmallNet, ...]
    held_out: np.ndarray
    labels: np.ndarray
    prototypes: np.ndarray
    reach: np.ndarray
    training: np.ndarray

    def verdict(self, images: np.ndarray, session: Session = Session()) -> Verdict:
        """Judges uint8 images [N,H,W,C] by all classifiers."""
        found = [_answers(network, images, session) for network in self.networks]
        posterior = np.stack([one.posterior for one in found]).mean(axis=0, dtype=np.float32)
        return Verdict(posterior, _joined([one.features for one in found]))

    def accuracy(self) -> np.ndarray:
        """Computes the share of held-out images of each class that are recognised -> [K].

        NaN for a class of which no image was held out.
        """
        right = self.held_out.argmax(axis=1) == self.labels
        size = len(self.classes)
        counts = np.bincount(self.labels, minlength=size)
        with np.errstate(invalid="ignore"):
            return np.bincount(self.labels, right, minlength=size) / counts

    def confusion(self) -> np.ndarray:
        """Computes the mean posterior of held-out images of each class -> [K,K], rows sum to 1.

        A class of which no image was held out has a row of zeros.
        """
        size = len(self.classes)
        total = np.zeros((size, size))
        np.add.at(total, self.labels, self.held_out.astype(np.float64))
        counts = np.bincount(self.labels, minlength=size)[:, None]
        return total / np.maximum(counts, 1)

    def near(self, k: int | None = None) -> np.ndarray:
        """Finds the k classes that are most confused with each class -> bool [K,K].

        Confusion counts in both directions. `k` is a third of the classes if None, at least 1.
        """
        size = len(self.classes)
        chosen = max(1, size // 3) if k is None else k
        confusion = self.confusion()
        both = confusion + confusion.T
        np.fill_diagonal(both, -1.0)
        near = np.zeros((size, size), bool)
        order = np.argsort(-both, axis=1, kind="stable")[:, : min(chosen, size - 1)]
        np.put_along_axis(near, order, True, axis=1)
        return near

    def distance(self, features: np.ndarray, classes: np.ndarray) -> np.ndarray:
        """Measures the cosine distance of features [N,F*D] to the prototypes of classes [N]."""
        return 1.0 - np.einsum("nd,nd->n", features, self.prototypes[classes])


def judge_key(dataset: Dataset, *, folds: int = FOLDS, seed: int = 0) -> str:
    """Names the judge of a split before it is trained: 64 hex digits."""
    return store.digest(_spec(dataset, folds, seed))


def near_pairs(judge: Judge) -> tuple[tuple[int, int, float], ...]:
    """Lists the pairs (a, b, 1) of each class a with the classes that are near it."""
    return tuple((int(a), int(b), 1.0) for a, b in zip(*np.nonzero(judge.near()), strict=True))


def ensure_judge(
    dataset: Dataset,
    *,
    folds: int = FOLDS,
    seed: int = 0,
    device: torch.device,
    session: Session = Session(),
) -> Judge:
    """Finds the judge of a split, or trains it; each classifier is kept as soon as it is trained.

    `UsageFailure` (exit code 2) if `folds` is not from 2 to 20.
    """
    if not 2 <= folds <= _MOST_FOLDS:
        raise UsageFailure(f"--folds must be from 2 to {_MOST_FOLDS}, got {folds}")
    key = judge_key(dataset, folds=folds, seed=seed)
    dealt = folds_of(dataset.train.labels, folds, seed)
    networks = tuple(
        _ensure_fold(dataset, key, dealt, fold, folds, seed, device, session)
        for fold in range(folds)
    )
    return _judge(dataset, key, dealt, networks, session)


def _spec(dataset: Dataset, folds: int, seed: int) -> dict[str, Any]:
    return {
        "kind": "judge",
        "algorithm": dict(_ALGORITHM),
        "split_id": dataset.split_id,
        "flip": bool(dataset.flip),
        "schedule": asdict(schedule_for(dataset.resolution)),
        "folds": int(folds),
        "seed": int(seed),
    }


def _ensure_fold(
    dataset: Dataset,
    key: str,
    dealt: np.ndarray,
    fold: int,
    folds: int,
    seed: int,
    device: torch.device,
    session: Session,
) -> SmallNet:
    """Loads the classifier of a fold, or trains and keeps it."""
    folder = store.home() / "judges" / key / f"fold-{fold}"
    lock = folder.with_name(f".fold-{fold}.lock")
    with store.locked(lock, session=session):
        if not folder.is_dir():
            seen = dealt != fold
            part = Part(dataset.train.images[seen], dataset.train.labels[seen])
            network = train_classifier(
                part,
                classes=dataset.num_classes,
                flip=dataset.flip,
                schedule=schedule_for(dataset.resolution),
                seed=seed * _MOST_FOLDS + fold,
                device=device,
                label=f"judge {fold + 1} of {folds}",
                session=session,
                adjusted=True,
            )
            _publish(folder, network, {**_spec(dataset, folds, seed), "fold": fold})
        lock.unlink(missing_ok=True)
    return _load(folder, dataset, device)


def _publish(folder: Path, network: SmallNet, facts: dict[str, Any]) -> None:
    temporary = folder.with_name(f".{folder.name}")
    shutil.rmtree(temporary, ignore_errors=True)
    checkpoint.save(temporary, network.state_dict(), kind=_KIND, facts=facts)
    store.publish(temporary, folder)


def _load(folder: Path, dataset: Dataset, device: torch.device) -> SmallNet:
    try:
        state, _ = checkpoint.load(folder, kind=_KIND)
        network = SmallNet(
            resolution=dataset.resolution,
            channels=dataset.channels,
            classes=dataset.num_classes,
        )
        network.load_state_dict(state)
    except (InvalidInput, RuntimeError) as error:
        raise InvalidInput(
            f"the judge in {folder} is not as it was written: {error}",
            remedy=f"move {folder} away: the same command trains it again",
        ) from error
    return network.to(device).eval().requires_grad_(False)


def _judge(
    dataset: Dataset, key: str, dealt: np.ndarray, networks: Sequence[SmallNet], session: Session
) -> Judge:
    """Judges the training part, and computes prototypes and reaches from the answers."""
    labels = dataset.train.labels.astype(np.int64)
    found = [_answers(network, dataset.train.images, session) for network in networks]
    prototypes = [
        _prototypes(one.features[dealt != fold], labels[dealt != fold], dataset.num_classes)
        for fold, one in enumerate(found)
    ]
    held = dealt != KEPT
    rows = np.arange(len(labels))[held]
    folds = dealt[held]
    posterior = np.stack([one.posterior for one in found])[folds, rows]
    features = np.stack([one.features for one in found])[folds, rows]
    near = np.stack(prototypes)[folds, labels[held]]
    distance = 1.0 - np.einsum("nd,nd->n", features, near)
    return Judge(
        key=key,
        classes=tuple(dataset.classes),
        networks=tuple(networks),
        held_out=posterior,
        labels=labels[held],
        prototypes=_joined(prototypes),
        reach=_reaches(distance, labels[held], dataset.num_classes),
        training=_joined([one.features for one in found]),
    )


def _answers(network: SmallNet, images: np.ndarray, session: Session) -> Verdict:
    """Answers of one classifier: posterior [N,K] and features [N,D] of unit length."""
    features, logits = outputs(network, images, session=session)
    posterior = functional.softmax(torch.from_numpy(logits), dim=1).numpy()
    return Verdict(posterior, _unit(features))


def _unit(features: np.ndarray) -> np.ndarray:
    length = np.linalg.norm(features, axis=1, keepdims=True)
    return features / np.maximum(length, np.finfo(np.float32).tiny)


def _joined(parts: Sequence[np.ndarray]) -> np.ndarray:
    return np.concatenate(parts, axis=1) / np.float32(len(parts) ** 0.5)


def _prototypes(features: np.ndarray, labels: np.ndarray, classes: int) -> np.ndarray:
    """Averages the features of each class, at unit length -> [K,D]; zeros for an empty class."""
    total = np.zeros((classes, WIDTH), np.float32)
    np.add.at(total, labels, features)
    return _unit(total)


def _reaches(distance: np.ndarray, labels: np.ndarray, classes: int) -> np.ndarray:
    """Computes the 95th percentile of each class [K]; that of all where it has under ten rows."""
    every = np.quantile(distance, 0.95)
    reach = np.full(classes, every)
    for label in range(classes):
        own = distance[labels == label]
        if len(own) >= _ENOUGH:
            reach[label] = np.quantile(own, 0.95)
    return reach
