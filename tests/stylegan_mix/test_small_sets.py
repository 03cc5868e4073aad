"""A training set smaller than the batch: the batch is as large as it can be, and that is told."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from stylegan_mix import datasets
from stylegan_mix.datasets import Dataset
from stylegan_mix.presets import PRESETS
from stylegan_mix.training.batch_sizes import can_be, largest_within
from stylegan_mix.training.plan import TrainPlan, plan_training
from stylegan_mix.training.run import run_training

NETWORKS = {"channel_base": 64, "channel_max": 8, "z_dim": 8, "w_dim": 8}


def digits_of(images: int) -> Dataset:
    """The digits with so many training images, evenly over the classes."""
    data = datasets.load("digits_lt")
    order = np.argsort(np.arange(len(data.train)) % 37, kind="stable")
    rows = np.sort(order[:images])
    counts = np.bincount(data.train.labels[rows], minlength=10)
    train = datasets.Part(data.train.images[rows], data.train.labels[rows])
    return dataclasses.replace(data, train=train, counts=counts)


def planned(images: int, **changes: Any) -> TrainPlan:
    return plan_training(
        digits_of(images),
        preset="tiny8",
        kimg=0.064,
        seed=0,
        device="cpu",
        command="stylegan-mix train",
        changes={**NETWORKS, **changes},
    )


@pytest.mark.parametrize(
    ("images", "changes", "batch"),
    [
        (32, {}, 32),
        (31, {}, 28),
        (28, {}, 28),
        (6, {}, 4),
        (3, {}, 3),
        (2, {}, 2),
        (1, {}, 2),
        (31, {"twins": 0.01}, 28),
        (3, {"twins": 0.01}, 2),
        (40, {"batch": 64}, 40),
        (40, {"batch": 16}, 16),
    ],
)
def test_the_batch_is_the_largest_that_the_set_fills(
    images: int, changes: dict[str, Any], batch: int
) -> None:
    plan = planned(images, **changes)
    assert plan.preset.batch == batch
    told = [line for line in plan.warnings if line.startswith("batch")]
    asked = changes.get("batch", 32)
    expected = [f"batch {batch}, not {asked}: the training part has {images} images"]
    assert told == (expected if batch < asked else [])


def test_any_batch_that_is_chosen_can_be() -> None:
    for name in ("tiny8", "cifar", "gpu64"):
        for images in range(1, 100):
            preset = PRESETS[name]
            batch = largest_within(preset, images)
            assert can_be(preset, batch)
            assert batch <= max(images, 2)
            assert not any(
                can_be(preset, more) for more in range(batch + 1, min(images, preset.batch) + 1)
            )


def test_a_training_of_a_few_images_runs(home: Path) -> None:
    published = run_training(planned(7))[0]
    assert published.card["preset"]["batch"] == 4


def test_the_command_tells_it(
    home: Path, run: Callable[..., tuple[int, str, str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    few = digits_of(20)
    monkeypatch.setattr("stylegan_mix.datasets.asked.load", lambda *_, **__: few)
    _, _, err = run("train", "--dataset", "digits_lt", "--kimg", "0.04", "--channel-max", "8")
    assert "batch 20, not 32: the training part has 20 images\n" in err
    assert "steps of 20" in err
