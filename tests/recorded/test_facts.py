"""Today's commands give the keys and the bits that commit 541ec22 gave; see record.py.

Bits hold for the libraries that they were recorded with; keys hold everywhere.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

Facts = dict[str, Any]

SPACES = ("w", "none", "pixel", "z", "label")
RECIPES = ("ce", "balanced-softmax", "crt", "kd", "one-hot", "patched-one-hot")


@pytest.fixture(scope="module")
def record(load_file: Callable[[Path], ModuleType], repo_root: Path) -> Any:
    """The script that recorded the facts."""
    return load_file(repo_root / "tests" / "recorded" / "record.py")


@pytest.fixture(scope="module")
def then(record: Any) -> Facts:
    """The recorded facts."""
    facts: Facts = json.loads(record.FACTS.read_text())
    return facts


@pytest.fixture(scope="module")
def splits(record: Any, repo_root: Path, tmp_path_factory: pytest.TempPathFactory) -> Facts:
    """Draws of today."""
    facts: Facts = record.splits(repo_root, tmp_path_factory.mktemp("splits"))
    return facts


@pytest.fixture(scope="module")
def trained(record: Any, repo_root: Path, tmp_path_factory: pytest.TempPathFactory) -> Facts:
    """Generators and banks of today."""
    facts: Facts = record.trained(repo_root, tmp_path_factory.mktemp("trained"))
    return facts


@pytest.fixture(scope="module")
def found(record: Any, repo_root: Path, tmp_path_factory: pytest.TempPathFactory) -> Facts:
    """Answers of today to requests for what the store of then holds."""
    folder = tmp_path_factory.mktemp("found")
    record.unpack(folder)
    facts: Facts = record.found(repo_root, folder)
    return facts


@pytest.fixture(scope="module")
def runs(record: Any, repo_root: Path, tmp_path_factory: pytest.TempPathFactory) -> Facts:
    """Runs of today with the banks of then."""
    folder = tmp_path_factory.mktemp("runs")
    record.unpack(folder)
    facts: Facts = record.recipes(repo_root, folder)
    return facts


@pytest.fixture
def same_libraries(record: Any, then: Facts) -> None:
    """Skips where the recorded bits are those of other libraries."""
    recorded, here = then["environment"], record.environment()
    for name, version in recorded.items():
        if here[name] != version:
            pytest.skip(f"bits were recorded with {name} {version}, this is {here[name]}")


# --------------------------------------------------------------------- keys


def test_splits_have_their_ids(then: Facts, splits: Facts) -> None:
    assert splits == then["splits"]


def test_trainings_have_their_keys(then: Facts, trained: Facts) -> None:
    assert trained["trainings"] == then["trained"]["trainings"]


@pytest.mark.parametrize("space", [space for space in SPACES if space != "w"])
def test_a_bank_of_then_is_found(then: Facts, found: Facts, space: str) -> None:
    bank = found["banks"][space]
    assert bank == then["found"]["banks"][space]
    assert bank["state"] == "exists"


def test_a_bank_of_then_is_listed_and_trained_with(then: Facts, found: Facts) -> None:
    there = {bank["key"] for bank in then["found"]["banks"].values() if bank["state"] == "exists"}
    assert there <= set(found["listed"])
    assert found["run"] == then["found"]["run"]


def test_reports_have_their_keys(then: Facts, found: Facts) -> None:
    assert found["reports"] == then["found"]["reports"]


def test_runs_have_their_folders(then: Facts, runs: Facts) -> None:
    recorded = {name: run["folder"] for name, run in then["recipes"].items()}
    assert {name: run["folder"] for name, run in runs.items()} == recorded


# --------------------------------------------------------------------- bits


@pytest.mark.usefixtures("same_libraries")
@pytest.mark.parametrize("name", ["plain", "every part", "UTLO"])
def test_a_training_ends_with_the_same_weights(then: Facts, trained: Facts, name: str) -> None:
    assert trained["generators"][name] == then["trained"]["generators"][name]


@pytest.mark.usefixtures("same_libraries")
@pytest.mark.parametrize("space", SPACES)
def test_a_bank_has_the_same_rows(then: Facts, trained: Facts, space: str) -> None:
    assert trained["banks"][space] == then["trained"]["banks"][space]


@pytest.mark.usefixtures("same_libraries")
def test_a_generator_of_then_draws_the_same_rows(then: Facts, found: Facts) -> None:
    assert found["banks"]["w"] == then["found"]["banks"]["w"]
    assert found["banks"]["w"]["state"] == "written"


@pytest.mark.usefixtures("same_libraries")
@pytest.mark.parametrize("recipe", RECIPES)
def test_a_recipe_trains_to_the_same_bits(then: Facts, runs: Facts, recipe: str) -> None:
    recorded = {name: run for name, run in then["recipes"].items() if name.split()[0] == recipe}
    assert len(recorded) >= 2
    assert {name: runs.get(name) for name in recorded} == recorded
