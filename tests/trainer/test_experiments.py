"""The sweep files of the tree: each is read, and every run in it is one that the trainer takes."""

from __future__ import annotations

import tomllib
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any

import pytest
from other_settings import BANK, data_for

from trainer import sweep
from trainer.asked import Asked
from trainer.engine.arms import ARMS
from trainer.recipes.catalogue import RECIPES
from trainer.settings import check, refuse_unread
from trainer.spec import RunSpec

FOLDER = Path(__file__).resolve().parents[2] / "tools" / "experiments"
SWEEPS = [
    path
    for path in sorted(FOLDER.glob("*.toml"))
    if "runs" in (read := tomllib.loads(path.read_text())) and "dataset" in read.get("base", {})
]
# Those of generators are read by another script.
OF_RUNS = [path for path in SWEEPS if "preset" not in tomllib.loads(path.read_text())["base"]]


def spec(asked: Asked) -> RunSpec:
    """The run that is asked for, with a bank where its arm reads one."""
    told = {name: value for name, value in asdict(asked).items() if value is not None}
    known = {field.name for field in fields(RunSpec)} - {"bank"}
    settings: dict[str, Any] = {name: told[name] for name in told.keys() & known}
    recipe, aug = settings.get("recipe", RunSpec.recipe), settings.get("aug", RunSpec.aug)
    settings["bank"] = BANK if ARMS[aug].bank else None
    versions = {"recipe_version": RECIPES[recipe].version, "aug_version": ARMS[aug].version}
    return RunSpec(data=data_for(recipe), **versions, **settings)


@pytest.mark.parametrize("path", OF_RUNS, ids=lambda path: path.stem)
def test_every_run_of_a_sweep_file_is_one_that_the_trainer_takes(path: Path) -> None:
    runs = sweep.load(path)
    assert len(runs) > 1
    for asked in runs:
        told = {name: value for name, value in asdict(asked).items() if value is not None}
        refuse_unread(told)
        check(spec(asked))


@pytest.mark.parametrize("name", ["cifar10_lt_200", "cifar100_lt_200"])
def test_the_protocol_of_the_field_has_all_recipes_of_the_table(name: str) -> None:
    runs = sweep.load(FOLDER / f"{name}.toml")
    assert {asked.imbalance for asked in runs} == {100.0, 50.0, 10.0}
    assert {asked.seed for asked in runs} == {0, 1, 2}
    found = {(asked.aug or "none", asked.recipe or "ce", bool(asked.h2t)) for asked in runs}
    plain = ("balanced-softmax", "ldam-drw", "crt", "breadcrumbs", "bcl")
    memory = ("memory-llw", "memory-asm", "memory-kt")
    assert found >= {("none", one, False) for one in ("ce", *plain, *memory)}
    assert found >= {("mixup", one, False) for one in ("ce", "mislas", "gcl", "balpoe")}
    assert found >= {("hybrid", one, False) for one in ("ce", "balanced-softmax", "gcl")}
    assert ("mixup", "gcl", True) in found
    specs = [spec(asked) for asked in runs]
    assert {(one.model, one.epochs) for one in specs} == {("resnet32", 200)}
