"""Made-up results of runs that nobody ran, sound in every field."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from made_arms import Maker, arms

from stylegan_mix import arrays, console, datasets, store
from stylegan_mix.datasets.groups import shot_groups
from trainer import cli
from trainer.reports import records
from trainer.reports.schema import group_means
from trainer.spec import BankRef, DataSpec, RunSpec

COUNTS = (100, 72, 51, 37, 26, 19, 14, 10, 7, 5)
GROUPS = {"rule": "index 3/4/3", "many": [0, 1, 2], "medium": [3, 4, 5, 6], "few": [7, 8, 9]}
TESTED = 74


def sha(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def make_spec(
    aug: str, seed: int, *, space: str, dataset: str, recipe: str, **settings: Any
) -> RunSpec:
    bank = None
    if aug in ("bank", "hybrid"):
        bank = BankRef(sha(f"key {space}"), sha("request"), sha(f"rows {space}"), space, "/banks/x")
    settings = {"model": "resnet8", "epochs": 12, **settings}
    data = DataSpec(name=dataset, imbalance=20.0, profile="exp")
    return RunSpec(data=data, aug=aug, bank=bank, seed=seed, recipe=recipe, **settings)


def make_record(
    aug: str = "none",
    *,
    seed: int = 0,
    right: tuple[int, ...] = (74, 73, 72, 71, 70, 69, 68, 60, 50, 40),
    space: str = "w",
    dataset: str = "digits_lt",
    recipe: str = "ce",
    **settings: Any,
) -> dict[str, Any]:
    """A record in which `right` of the 74 test images of each class are right."""
    spec = make_spec(aug, seed, space=space, dataset=dataset, recipe=recipe, **settings)
    confusion = [[0] * 10 for _ in range(10)]
    for index, count in enumerate(right):
        confusion[index][index] = count
        confusion[index][(index + 1) % 10] += TESTED - count
    per_class = [100 * count / TESTED for count in right]
    overall = 100 * sum(right) / (10 * TESTED)
    return {
        "schema": "trainer-result/1",
        "dataset": made_data(dataset),
        "arm": spec.arm,
        "aug": aug,
        "recipe": recipe,
        "model": spec.model,
        "seed": seed,
        "budget": made_budget(spec),
        "bank": made_bank(spec),
        "teacher": None,
        "accuracy": {"overall": overall, **group_means(GROUPS, per_class), "per_class": per_class},
        "test_oracle": {"epoch": 10, "overall": min(100.0, overall + 0.4)},
        "history": [made_event(epoch, spec.epochs, overall) for epoch in range(1, spec.epochs + 1)],
        "confusion": confusion,
        "diagnostics": {},
        "command": f"trainer run --dataset {dataset} --aug {aug} --seed {seed}",
        "config": spec.plain(),
        "environment": {
            "python": "3.11.9",
            "torch": "2.13.0+cpu",
            "cpu": "Some CPU",
            "threads": 2,
            "device": "cpu",
            "numerics": "cpu float32",
        },
        "finished_utc": "2026-01-02T03:04:05Z",
    }


def make_classes(
    one: dict[str, Any], counts: list[int], tested: list[int], right: list[int]
) -> dict[str, Any]:
    """The record with other classes: training images, test images and right answers of each."""
    found = shot_groups(counts)
    groups = {name: list(indices) for name, indices in found.members.items()}
    per_class = [100 * hit / of if of else None for hit, of in zip(right, tested, strict=True)]
    confusion = [[0] * len(counts) for _ in counts]
    for index, (hit, of) in enumerate(zip(right, tested, strict=True)):
        confusion[index][index] = hit
        confusion[index][(index + 1) % len(counts)] += of - hit
    overall = 100 * sum(right) / sum(tested)
    dataset = {
        **one["dataset"],
        "classes": [f"class {index}" for index in range(len(counts))],
        "counts": counts,
        "groups": {"rule": found.rule, **groups},
        "train_images": sum(counts),
        "test_images": sum(tested),
        "test_id": sha(f"test of {tested}"),
    }
    accuracy = {"overall": overall, **group_means(groups, per_class), "per_class": per_class}
    return {**one, "dataset": dataset, "accuracy": accuracy, "confusion": confusion}


def made_data(name: str) -> dict[str, Any]:
    return {
        "name": name,
        "profile": "exp",
        "imbalance": 20.0,
        "split_seed": 0,
        "split_id": sha(f"split of {name}"),
        "test_id": sha(f"test of {name}"),
        "classes": [str(index) for index in range(10)],
        "counts": list(COUNTS),
        "groups": GROUPS,
        "train_images": sum(COUNTS),
        "test_images": 10 * TESTED,
        "overlap": 0,
        "dropped_overlap": False,
    }


def made_budget(spec: RunSpec) -> dict[str, Any]:
    return {
        "epochs": spec.epochs,
        "steps": 3 * spec.epochs,
        "batch": spec.batch,
        "lr": spec.lr,
        "precision": spec.precision,
        "seconds": 12.5,
        "images": 3 * spec.epochs * spec.batch,
        "fair": spec.fairness,
    }


def made_bank(spec: RunSpec) -> dict[str, Any] | None:
    if spec.bank is None:
        return None
    return {
        "key": spec.bank.key,
        "request_key": spec.bank.request_key,
        "content_sha256": spec.bank.content_sha256,
        "n": 20_000,
        "space": spec.bank.space,
        "alpha": None if spec.bank.space == "none" else 1.0,
        "generator": sha("generator"),
        "generator_kimg": 300.0,
    }


def made_event(epoch: int, epochs: int, overall: float) -> dict[str, Any]:
    return {
        "stage": "train",
        "epoch": epoch,
        "loss": 2.3 / epoch,
        "lr": 0.1,
        "accuracy": overall * (1 - 0.6 / epoch) if epoch < epochs else overall,
        "seconds": 0.2 * epoch,
    }


@pytest.fixture
def record() -> Callable[..., dict[str, Any]]:
    """The maker of synthetic records."""
    return make_record


@pytest.fixture
def with_classes() -> Callable[..., dict[str, Any]]:
    """The maker of records with other classes."""
    return make_classes


@pytest.fixture
def bank(home: Path) -> Callable[..., str]:
    """Puts a small bank of noise for a split of the digits into the store; returns its key."""

    def make(space: str = "w", *, name: str = "first", imported: bool = False, **split: Any) -> str:
        data = datasets.load("digits_lt", **split)
        key = sha(f"{name} {space}")
        rows = 64
        draws = np.random.default_rng(0)
        found = {
            "images": draws.integers(0, 256, (rows, 8, 8, 1)).astype(np.uint8),
            "pair": draws.integers(0, 10, (rows, 2)).astype(np.int32),
            "lam": draws.random(rows).astype(np.float32),
        }
        facts = {
            "schema_version": 1,
            "key": key,
            "request_key": sha(f"request {name} {space}"),
            "split_id": data.split_id,
            "dataset": data.name,
            "imbalance": data.imbalance,
            "profile": data.profile,
            "split_seed": data.split_seed,
            "classes": list(data.classes),
            "space": space,
            "n": rows,
            "image_shape": [8, 8, 1],
            "generator": sha("generator"),
            "generator_imported": {"split": "declared by the user"} if imported else None,
            "command": "stylegan-mix generate --dataset digits_lt",
        }
        folder = store.home() / "banks" / key
        arrays.write(folder, found, kind="hybrid-bank", facts=facts, file="bank.h5")
        order = len(list(folder.parent.iterdir()))
        os.utime(folder / "MANIFEST.json", (order, order))  # made one after another
        return key

    return make


@pytest.fixture
def trainer(capsys: pytest.CaptureFixture[str]) -> Callable[..., tuple[int, str, str]]:
    """Runs a command line of `trainer` and returns its exit code, stdout and stderr."""

    def call(*argv: str) -> tuple[int, str, str]:
        with pytest.raises(SystemExit) as end:
            console.main(cli.group, "trainer", argv)
        told = capsys.readouterr()
        return int(end.value.code or 0), told.out, told.err

    return call


@pytest.fixture
def places(record: Maker, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with the runs of two arms and two seeds, of which the last class differs."""
    monkeypatch.chdir(tmp_path)
    for number, one in enumerate(arms(record, "none", "hybrid", seeds=2)):
        records.write(tmp_path / "runs" / f"{number}.json", one.record)
    return tmp_path
