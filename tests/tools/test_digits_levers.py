"""The choice of levers by folds: who is held out, what is counted, which commands are run."""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest

PLAN = """
folds = 2
kimg = 1.5
rows = 64
seeds = 2
epochs = 3
baseline = "mixup"
[prove]
kimg = 2.0
seeds = 1
arms = ["mixup", "none"]
[banks.fill]
fill = "balance"
[arms.mixup]
aug = "mixup"
[arms.none]
aug = "none"
[arms.judge]
aug = "hybrid"
bank = "fill"
label = 0.5
mix_bank_real = true
"""
# Right answers of ten, in class 0 and in all other classes.
RIGHT = {"mixup": (9, 5), "none": (10, 4), "judge": (9, 7)}


@pytest.fixture(scope="module")
def script(repo_root: Path, load_file: Callable[[Path], ModuleType]) -> ModuleType:
    """The script."""
    return load_file(repo_root / "tools" / "experiments" / "digits_levers.py")


class Commands:
    """Stands in for the commands: keeps their words, and writes records of their runs."""

    def __init__(self) -> None:
        self.said: list[list[str]] = []

    def __call__(self, words: list[str], package: str) -> Any:
        self.said.append(words)
        if words[0] == "generate":
            return {"key": f"bank of {words[2]}"}
        if words[0] == "run":
            return self.run(words)
        return {}

    def run(self, words: list[str]) -> Any:
        told = dict(zip(words, [*words[1:], ""], strict=True))
        arm = "judge" if "--label" in words else told["--aug"]
        key = f"{arm}{told['--dataset'][12]}"
        for seed in range(int(told["--seeds"])):
            first, others = RIGHT[arm]
            hits = [first] + [others + seed] * 9
            confusion = np.diag(hits)
            confusion[np.arange(10), (np.arange(10) + 1) % 10] = 10 - np.array(hits)
            place = Path(told["--out"]) / f"x-{key}" / f"seed-{seed}" / "result.json"
            place.parent.mkdir(parents=True, exist_ok=True)
            place.write_text(json.dumps({"seed": seed, "confusion": confusion.tolist()}))
        return {"tables": [{"rows": [{"key": key}]}]}


def test_every_image_is_held_out_once_and_every_class_in_every_fold(script: ModuleType) -> None:
    labels = np.repeat(np.arange(3), [20, 7, 3])
    fold = script.fold_of(labels, 3)
    held = np.array([[((fold == k) & (labels == c)).sum() for c in range(3)] for k in range(3)])
    assert held.tolist() == [[7, 3, 1], [7, 2, 1], [6, 2, 1]]
    assert np.array_equal(fold, script.fold_of(labels, 3))


def test_arms_are_ordered_by_held_out_images_of_all_folds(
    script: ModuleType, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, home: Path, capsys: Any
) -> None:
    commands = Commands()
    monkeypatch.setattr(script, "command", commands)
    (tmp_path / "plan.toml").write_text(PLAN)
    out, work = tmp_path / "choice.json", tmp_path / "work"
    script.choose(argparse.Namespace(plan=tmp_path / "plan.toml", work=work, out=out))
    found = json.loads(out.read_text())
    assert [row["arm"] for row in found["arms"]] == ["judge", "mixup", "none"]
    judge = found["arms"][0]
    assert judge["by_seed"][0]["balanced"] == pytest.approx((90 + 9 * 70) / 10)
    assert judge["by_seed"][0]["many"] == pytest.approx(76.67)
    assert judge["over_baseline"] == {"mean": 18.0, "half_width": 0.0}
    assert "judge" in capsys.readouterr().out.splitlines()[1]
    # Nothing but the folds is read: each has a generator, a judge and runs of its own.
    data = {words[words.index("--dataset") + 1] for words in commands.said if "--dataset" in words}
    assert data == {"digits_fold0of2", "digits_fold1of2"}
    run = next(words for words in commands.said if "--label" in words)
    assert run[run.index("--bank") + 1] == "bank of digits_fold0of2"
    assert "--mix-bank-real" in run and "True" not in run
    images = {
        part: len(list((work / "digits_fold0of2" / part).rglob("*.png")))
        for part in ("train", "test")
    }
    assert sum(images.values()) == 335 and abs(images["test"] - 335 / 2) <= 5


def test_the_proof_is_a_sweep_of_the_baselines_and_the_first_arm(
    script: ModuleType, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    commands = Commands()
    monkeypatch.setattr(script, "command", commands)
    plan = script.tomllib.loads(PLAN)
    choice = tmp_path / "choice.json"
    choice.write_text(json.dumps({"plan": plan, "arms": [{"arm": "judge"}, {"arm": "none"}]}))
    script.prove(argparse.Namespace(choice=choice, work=tmp_path, results=tmp_path / "results"))
    from trainer.sweep import load

    items = load(tmp_path / "prove.toml")
    assert [(one.aug, one.label, one.bank) for one in items] == [
        ("mixup", None, None),
        ("none", None, None),
        ("hybrid", "0.5", "bank of digits_lt"),
    ]
    assert items[2].mix_bank_real and {one.epochs for one in items} == {3}


def test_the_plan_of_the_project_can_be_run(script: ModuleType, repo_root: Path) -> None:
    """Every arm is one that `trainer run` accepts, and names a bank of the plan."""
    from trainer.asked import Asked
    from trainer.settings import refuse_unread

    plan = script.tomllib.loads(script.PLAN.read_text())
    for name, arm in plan["arms"].items():
        refuse_unread(vars(Asked.from_table(arm, name)))
        assert arm.get("bank", "fill") in plan["banks"]
    assert {plan["baseline"], *plan["prove"]["arms"]} <= set(plan["arms"])
