"""The benchmark of augmentation: that it times batches and steps, and what it writes."""

from __future__ import annotations

import importlib
import json
import sys
from pathlib import Path
from types import ModuleType

import pytest
import torch

from trainer.engine import loop
from trainer.engine.batch import Batch
from trainer.spec import RunSpec


@pytest.fixture
def bench(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """tools/bench/augmentation.py, which changes the path when it is imported."""
    monkeypatch.setattr(sys, "path", list(sys.path))
    return importlib.import_module("tools.bench.augmentation")


def test_calls_are_batches_of_a_policy_and_steps_of_a_training(
    bench: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    spec, data = RunSpec(model="resnet8", batch=4, augment="cutout"), bench.noise()
    prepare = bench.preparation(spec, data, torch.device("cpu"))
    first, second = prepare(), prepare()
    assert isinstance(first, Batch) and not torch.equal(first.images, second.images)
    assert (first.images == 0).any()
    steps: list[int] = []
    one_step = loop.one_step

    def watched(job: loop.Job, state: loop.State) -> torch.Tensor:
        before = [one.clone() for one in state.model.parameters()]
        values = one_step(job, state)
        changed = zip(before, state.model.parameters(), strict=True)
        assert all(not torch.equal(one, other) for one, other in changed)
        steps.append(state.step)
        return values

    monkeypatch.setattr(loop, "one_step", watched)
    step = bench.training(spec, data, torch.device("cpu"))
    step(), step()
    assert steps == [0, 1]


def test_a_share_is_of_the_step_with_that_batch(bench: ModuleType) -> None:
    rows = bench.shares({"plain": 2.0, "simclr": 10.0, "step": 92.0})
    assert [(row["name"], row["share"]) for row in rows] == [
        ("plain", round(2 / 92, 4)),
        ("simclr", 0.1),
        ("step", None),
    ]


def test_calls_take_turns_and_their_median_is_kept(bench: ModuleType) -> None:
    order: list[str] = []
    calls = {name: (lambda name=name: order.append(name)) for name in ("one", "other")}
    found = bench.processor_ms(calls, rounds=3)
    assert order == ["one", "other"] * (bench.WARM + 3)
    assert all(value >= 0 for value in found.values())


def test_the_committed_measurement_is_under_two_percent_for_plain_images(
    bench: ModuleType, repo_root: Path
) -> None:
    file = repo_root / "tools" / "results" / "kernels" / "augmentation-cpu.json"
    found = json.loads(file.read_text())
    assert [row["name"] for row in found["rows"]] == [*bench.POLICIES, "step"]
    assert found["rows"][0]["share"] < 0.02
    assert bench.table(found) in (repo_root / "trainer" / "README.md").read_text()
