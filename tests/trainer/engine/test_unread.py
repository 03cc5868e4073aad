"""A setting that a run is said not to read changes no weight of it, and one that it reads does."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from other_settings import NUMBERS, data_for

from stylegan_mix.session import Session
from trainer.engine.arms import ARMS
from trainer.engine.run import run_recipe
from trainer.recipes.catalogue import RECIPES
from trainer.settings import method, unread
from trainer.spec import BankRef, DataSpec, RunSpec, VoteSpec

# Every recipe in one arm, and every arm with one recipe.
SOME = [("none", name) for name in RECIPES] + [(aug, "ce") for aug in ARMS if aug != "none"]


def trained(spec: RunSpec, folder: Path, stop_after: Any, monkeypatch: Any) -> str:
    """The hash of the weights; a setting that the run does not read is let through."""
    with monkeypatch.context() as patch:
        patch.setattr("trainer.engine.run.check", method)
        record = run_recipe(spec, folder, session=Session(stop_after()), checkpoint_seconds=1e9)
    return str(record["diagnostics"]["weights_sha256"])


@pytest.mark.slow
@pytest.mark.parametrize(("aug", "name"), [*SOME, ("hybrid", "cbd"), ("mixup", "crt")])
def test_unread_settings_change_nothing_and_each_other_one_something(
    aug: str, name: str, bank: BankRef, stop_after: Any, tmp_path: Path, monkeypatch: Any
) -> None:
    spec = RunSpec(
        data=data_for(name, DataSpec("digits_lt", imbalance=20.0, profile="exp")),
        aug=aug,
        recipe=name,
        recipe_version=RECIPES[name].version,
        bank=bank if ARMS[aug].bank else None,
        model="resnet8",
        epochs=5,  # of the first of which the rate is below its top
        bn_refresh_batches=1,
        votes=VoteSpec(views=3),
    )
    first = trained(spec, tmp_path / "first", stop_after, monkeypatch)
    gone = unread(aug, RECIPES[name], given_teacher=False) & NUMBERS.keys()
    same = replace(spec, **{one: NUMBERS[one] for one in gone})
    assert trained(same, tmp_path / "same", stop_after, monkeypatch) == first
    for one in sorted(NUMBERS.keys() - gone):
        other = replace(spec, **{one: NUMBERS[one]})
        assert trained(other, tmp_path / one, stop_after, monkeypatch) != first, one
