"""A data set, a bank and a stop request small enough to train on in a test."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from stylegan_mix import arrays, datasets
from stylegan_mix.banks.request import KIND, SCHEMA_VERSION
from stylegan_mix.errors import Failure, Stopped
from stylegan_mix.rng import stream
from trainer.engine.folder import Finished
from trainer.inputs import bank_reference
from trainer.spec import BankRef, DataSpec


def make_data(counts: tuple[int, ...] = (12, 6, 3), size: int = 8, channels: int = 2) -> Any:
    """Random images with the attributes of a data set that batches are made from."""
    labels = np.repeat(np.arange(len(counts)), counts)
    images = stream(0, "test.images").integers(0, 256, (len(labels), size, size, channels), "u1")
    return SimpleNamespace(
        train=SimpleNamespace(images=images, labels=labels),
        num_classes=len(counts),
        counts=np.array(counts),
        resolution=size,
        channels=channels,
        mean=(0.5,) * channels,
        std=(0.25,) * channels,
        flip=True,
    )


@pytest.fixture
def data() -> Any:
    """Twenty-one random images of three classes, 8 by 8 pixels, two channels."""
    return make_data()


@pytest.fixture
def data_of() -> Callable[..., Any]:
    """The maker of small data sets of random images."""
    return make_data


def make_bank(
    folder: Path, data: datasets.Dataset, *, n: int = 300, space: str = "w", split: str = ""
) -> BankRef:
    """A sound bank of pixel mixes of training images; `split` overrides whose it claims to be."""
    draws = stream(0, "test.bank", n)
    pair = draws.integers(0, data.num_classes, (n, 2)).astype(np.int32)
    if space == "none":
        pair[:, 1] = pair[:, 0]
    lam = draws.random(n).astype(np.float32) if space != "none" else np.ones(n, np.float32)
    rows = [np.flatnonzero(data.train.labels == c) for c in range(data.num_classes)]
    a, b = (np.array([draws.choice(rows[c]) for c in pair[:, side]]) for side in (0, 1))
    images = np.asarray(data.train.images)
    mixed = lam[:, None, None, None] * images[a] + (1 - lam)[:, None, None, None] * images[b]
    facts = {
        "schema_version": SCHEMA_VERSION,
        "key": hashlib.sha256(f"{space} {n}".encode()).hexdigest(),
        "request_key": hashlib.sha256(space.encode()).hexdigest(),
        "split_id": split or data.split_id,
        "dataset": data.name,
        "classes": list(data.classes),
        "space": space,
        "n": n,
        "command": "stylegan-mix generate --n 300",
        "alpha": 1.0,
        "generator": hashlib.sha256(b"generator").hexdigest(),
        "generator_kimg": 300.0,
        "image_shape": list(images.shape[1:]),
    }
    content = {"images": mixed.astype(np.uint8), "pair": pair, "lam": lam}
    arrays.write(folder, content, kind=KIND, facts=facts, file="bank.h5")
    return bank_reference(folder)


@pytest.fixture
def bank_of() -> Callable[..., BankRef]:
    """The maker of small banks."""
    return make_bank


class StopAfter:
    """Stands in for `StopSignals`: asks for a stop once it was looked at `looks` times."""

    def __init__(self, looks: float = float("inf")) -> None:
        self.looks = looks

    @property
    def requested(self) -> str | None:
        self.looks -= 1
        return "minutes" if self.looks < 0 else None

    def failure(self, *, saved: bool, what: str) -> Failure:
        assert saved
        return Stopped(what)


@pytest.fixture
def stop_after() -> type[StopAfter]:
    """The stand-in for `StopSignals`."""
    return StopAfter


@pytest.fixture
def bank(home: Path, bank_of: Callable[..., BankRef]) -> BankRef:
    """A small bank of the digits' split."""
    return bank_of(home / "banks" / "some", datasets.load("digits_lt"))


@pytest.fixture
def network_facts() -> dict[str, Any]:
    """The facts of a network of five classes and two channels, as its stage stores them."""
    return {
        "model": "resnet8",
        "classes": list("abcde"),
        "channels": 2,
        "resolution": 8,
        "mean": [0.5, 0.5],
        "std": [0.25, 0.25],
        "split_id": "split",
        "test_id": "test",
        "history": [],
    }


@pytest.fixture
def bank_for(home: Path, bank_of: Callable[..., BankRef]) -> Callable[[DataSpec], BankRef]:
    """The maker of small banks of the split of a data set."""

    def make(data: DataSpec) -> BankRef:
        return bank_of(home / "banks" / "own", datasets.load(**asdict(data)))

    return make


CLOCKS = {"seconds", "finished_utc", "environment"}


def timeless(value: Any) -> Any:
    """A record without its clock fields."""
    if isinstance(value, dict):
        return {name: timeless(item) for name, item in value.items() if name not in CLOCKS}
    return [timeless(item) for item in value] if isinstance(value, list) else value


def weights_of(run: Path) -> dict[str, bytes]:
    """The bytes of every stage's network."""
    found = {}
    for folder in sorted((run / "weights").iterdir()):
        finished = Finished.load(folder)
        for name, value in finished.weights.items():
            found[f"{folder.name}/{name}"] = value.numpy().tobytes()
    return found


def events_of(run: Path) -> list[Any]:
    return [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]


@pytest.fixture
def require_same() -> Callable[[Path, Path], None]:
    """Asserts that two finished runs have the same record, events and bytes of weights."""

    def check(one: Path, other: Path) -> None:
        results = [json.loads((run / "result.json").read_text()) for run in (one, other)]
        assert timeless(results[0]) == timeless(results[1])
        assert timeless(events_of(one)) == timeless(events_of(other))
        assert weights_of(one) == weights_of(other)

    return check
