"""A run as plain data: checked as a whole, the same after JSON, hashed without folders."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from stylegan_mix.errors import InvalidInput, UsageFailure
from trainer import spec
from trainer.spec import BankRef, DataSpec, RunSpec, TeacherRef, VoteSpec

BANK = BankRef("key", "request", "content", "w", "/somewhere/bank")
FULL = RunSpec(
    data=DataSpec("cifar10_lt", imbalance=100.0),
    aug="hybrid",
    recipe="patched-one-hot",
    bank=BANK,
    teacher=TeacherRef("weights", "/somewhere/run"),
    votes=VoteSpec(views=8, sides=(0.5,)),
    milestones=(0.5,),
    decay=(0.1,),
    pad=2,
    flip=False,
)


@pytest.mark.parametrize("one", [RunSpec(), FULL])
def test_a_spec_survives_json(one: RunSpec) -> None:
    assert RunSpec.from_plain(json.loads(json.dumps(one.plain()))) == one


def test_unknown_settings_name_the_nearest() -> None:
    with pytest.raises(InvalidInput, match="no setting 'epoch'; did you mean 'epochs'"):
        RunSpec.from_plain({"epoch": 3})
    with pytest.raises(InvalidInput, match="'data' has no setting 'imbalence'"):
        RunSpec.from_plain({"data": {"imbalence": 3}})


def test_the_key_is_of_content_and_not_of_places_or_seed() -> None:
    moved = replace(
        FULL,
        seed=7,
        bank=replace(BANK, folder="/elsewhere"),
        teacher=TeacherRef("weights", "/elsewhere"),
    )
    assert moved.key == FULL.key
    assert replace(FULL, bank=replace(BANK, content_sha256="other")).key != FULL.key
    assert replace(FULL, lr=0.2).key != FULL.key
    assert RunSpec(lr=1).key == RunSpec(lr=1.0).key
    assert FULL.folder == f"cifar10_lt-patched-one-hot-hybrid-{FULL.key}/seed-0"


def test_a_later_setting_renames_only_the_runs_that_use_it() -> None:
    assert "recipe_version" not in FULL.identity()
    assert replace(FULL, recipe_version=2).identity() == {**FULL.identity(), "recipe_version": 2}
    assert replace(FULL, recipe_version=2).key != FULL.key


@pytest.mark.parametrize(
    ("settings", "differ"),
    [
        ({}, False),
        ({"epochs": 20}, False),
        ({"epochs": 70}, False),  # 0.9 * 70 is 63, also in floating point
        ({"epochs": 1}, True),
        ({"epochs": 5}, True),
        ({"epochs": 25}, True),
        ({"epochs": 20, "milestones": (0.5, 0.75)}, False),
        ({"epochs": 100, "milestones": (0.57, 0.75)}, True),  # once 56.99... epochs
        ({"precision": "bfloat16"}, True),
    ],
)
def test_the_version_of_the_loop_is_part_of_the_key_where_versions_differ(
    settings: Any, differ: bool
) -> None:
    new = RunSpec(**settings)
    plain = {name: value for name, value in new.plain().items() if name != "loop_version"}
    old = RunSpec.from_plain(plain)
    assert (new.loop_version, old.loop_version) == (2, 1)
    assert (new.key != old.key) == differ == ("loop_version" in new.identity())
    assert RunSpec.from_plain(new.plain()).key == new.key


def test_later_settings_of_data_and_votes_are_left_out_at_their_default(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    first = spec._FIRST - {"data.drop_overlap", "votes.views", "milestones"}
    monkeypatch.setattr(spec, "_FIRST", first)
    plain = RunSpec().identity()
    assert "drop_overlap" not in plain["data"]
    assert "views" not in plain["votes"]
    assert "milestones" not in plain
    used = replace(FULL, data=replace(FULL.data, drop_overlap=True)).identity()
    assert used["data"]["drop_overlap"] is True
    assert (used["votes"]["views"], used["milestones"]) == (8, [0.5])


def test_every_committed_result_has_the_key_in_its_name(repo_root: Path) -> None:
    seen = 0
    for path in sorted((repo_root / "tools" / "results").rglob("*-seed*.json")):
        record = json.loads(path.read_text())
        if record.get("schema") == "trainer-result/1":
            key = RunSpec.from_plain(record["config"]).key
            assert f"-{key}-seed{record['seed']}.json" in path.name, path
            seen += 1
    assert seen >= 130


@pytest.mark.parametrize(
    ("aug", "space", "arm"),
    [
        ("hybrid", "w", "hybrid"),
        ("hybrid", "none", "hybrid-unmixed"),
        ("bank", "pixel", "bank-pixel"),
    ],
)
def test_control_banks_show_in_the_arm(aug: Any, space: str, arm: str) -> None:
    assert RunSpec(aug=aug, bank=replace(BANK, space=space)).arm == arm


@pytest.mark.parametrize(
    ("settings", "problem"),
    [
        ({"aug": "hybird"}, "aug 'hybird' is unknown; did you mean 'hybrid'"),
        ({"aug": "hybrid"}, "aug 'hybrid' needs a bank"),
        ({"bank": BANK}, "aug 'none' reads no bank"),
        ({"lr": 0.0}, r"lr must be a number in \(0.0, 1,000.0\], got 0.0"),
        ({"lr": float("nan")}, "lr must be a number"),
        ({"lr": "fast"}, "lr must be a number"),
        ({"epochs": 0}, r"epochs must be a number in \[1, 100,000\]"),
        ({"epochs": 1.5}, "epochs must be a whole number"),
        ({"epochs": True}, "epochs must be a number"),
        ({"momentum": 1.0}, r"momentum must be a number in \[0.0, 1.0\)"),
        ({"alpha": -1.0}, "alpha must be a number"),
        ({"precision": "float16"}, "precision 'float16' is unknown"),
        ({"milestones": (0.9, 0.8)}, "milestones must rise"),
        ({"milestones": (0.5,)}, "1 milestones need as many decay factors, got 2"),
        ({"decay": (0.1, 2.0)}, "decay factors must lie in"),
        ({"aug": "bank", "bank": BANK, "batch": 2, "bank_share": 0.1}, "leaves no real or no bank"),
        ({"votes": VoteSpec(views=0)}, "votes.views must be"),
        ({"votes": VoteSpec(sides=())}, "votes.sides must name"),
    ],
)
def test_what_cannot_be_is_refused_with_its_bounds(settings: Any, problem: str) -> None:
    with pytest.raises(UsageFailure, match=problem):
        RunSpec(**settings)


def test_all_problems_are_listed_together() -> None:
    with pytest.raises(UsageFailure) as error:
        RunSpec(lr=-1.0, batch=0, epochs=0)
    assert str(error.value).count("\n") == 3
