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


@pytest.fixture(scope="module")
def record(load_file: Callable[[Path], ModuleType], repo_root: Path) -> Any:
    """The script that recorded the facts."""
    return load_file(repo_root / "tests" / "recorded" / "record.py")


@pytest.fixture
def then(record: Any) -> Facts:
    """The recorded facts."""
    facts: Facts = json.loads(record.FACTS.read_text())
    return facts


@pytest.fixture
def stored(record: Any, tmp_path: Path) -> Path:
    """A folder whose home is the store of then."""
    record.unpack(tmp_path)
    return tmp_path


def require_same_libraries(record: Any, then: Facts) -> None:
    """Skips the rest of a test where the recorded bits are those of other libraries."""
    here = record.environment()
    for name, version in then["environment"].items():
        if here[name] != version:
            pytest.skip(f"bits were recorded with {name} {version}, this is {here[name]}")


def test_splits_have_their_ids(record: Any, then: Facts, repo_root: Path, tmp_path: Path) -> None:
    assert record.splits(repo_root, tmp_path) == then["splits"]


def test_trainings_and_banks_are_made_again(
    record: Any, then: Facts, repo_root: Path, tmp_path: Path
) -> None:
    now = record.trained(repo_root, tmp_path)
    assert now["trainings"] == then["trained"]["trainings"]
    require_same_libraries(record, then)
    assert now["generators"] == then["trained"]["generators"]
    assert now["banks"] == then["trained"]["banks"]


def test_a_store_of_then_is_found(record: Any, then: Facts, repo_root: Path, stored: Path) -> None:
    recorded, now = then["found"], record.found(repo_root, stored)
    drawn, drawn_then = now["banks"].pop("w"), recorded["banks"].pop("w")
    assert now["banks"] == recorded["banks"]
    assert {bank["state"] for bank in now["banks"].values()} == {"exists"}
    assert {bank["key"] for bank in now["banks"].values()} <= set(now["listed"])
    assert now["run"] == recorded["run"]
    assert now["reports"] == recorded["reports"]
    require_same_libraries(record, then)
    assert drawn == drawn_then
    assert drawn["state"] == "written"


# Two in a process: to import torch takes as long as to train one.
@pytest.mark.parametrize(
    "names",
    [
        ("ce", "crt"),
        pytest.param(("balanced-softmax", "kd"), marks=pytest.mark.slow),
        pytest.param(("one-hot", "patched-one-hot"), marks=pytest.mark.slow),
    ],
)
def test_recipes_train_to_the_same_bits(
    record: Any, then: Facts, repo_root: Path, stored: Path, names: tuple[str, ...]
) -> None:
    recorded = {name: run for name, run in then["recipes"].items() if name.split()[0] in names}
    now = record.recipes(repo_root, stored, names)
    folders = {name: run["folder"] for name, run in recorded.items()}
    assert {name: run["folder"] for name, run in now.items()} == folders
    require_same_libraries(record, then)
    assert [name for name, run in recorded.items() if now[name] != run] == []
    assert {name.split()[0] for name in recorded} == {*names}
