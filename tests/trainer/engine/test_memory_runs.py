"""Runs of recipes with a memory of class means: interrupted ones, and ones with a bank."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from stylegan_mix.errors import Stopped
from stylegan_mix.session import Session
from trainer.engine.folder import Finished
from trainer.engine.run import run_recipe
from trainer.spec import DataSpec, RunSpec


def test_a_killed_run_with_a_memory_ends_with_the_same_memory(home: Path, stop_after: Any) -> None:
    spec = RunSpec(
        data=DataSpec("digits_lt"),
        recipe="memory-llw",
        model="resnet8",
        epochs=2,
        bn_refresh_batches=1,
    )
    whole, again = home / "whole", home / "again"
    run_recipe(spec, whole, session=Session(stop_after()))
    with pytest.raises(Stopped):
        run_recipe(spec, again, session=Session(stop_after(3)))
    run_recipe(spec, again, session=Session(stop_after()))
    for stage in ("train", "head"):
        one, other = (Finished.load(run / "weights" / stage) for run in (whole, again))
        assert one.weights.keys() == other.weights.keys()
        assert all(torch.equal(one.weights[name], other.weights[name]) for name in one.weights)
    one, other = (Finished.load(run / "weights" / "train").memory for run in (whole, again))
    assert one is not None and other is not None and torch.equal(one, other)
    assert torch.equal(Finished.load(whole / "weights" / "head").weights["head.memory"], one)


def test_a_memory_goes_with_a_bank_and_with_late_weights(home: Path, bank_for: Any) -> None:
    data = DataSpec("digits_lt", imbalance=20.0, profile="exp")
    spec = RunSpec(
        data=data,
        recipe="memory-sum-logits",
        aug="hybrid",
        bank=bank_for(data),
        model="resnet8",
        epochs=2,
        drw=0.5,
        bn_refresh_batches=1,
    )
    result = run_recipe(spec, home / "it")
    assert result["diagnostics"]["posthoc"] == {"share": 0.5}
    memory = Finished.load(home / "it" / "weights" / "train").memory
    assert memory is not None and memory.isfinite().all() and memory.any(1).all()
