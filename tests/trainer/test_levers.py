"""Levers of a run on the command line and in a sweep: what is taken, refused, and told."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from judged_banks import judged

from stylegan_mix.banks import store as banks
from stylegan_mix.banks.reader import open_bank
from stylegan_mix.errors import InvalidInput, UsageFailure
from trainer import sweep
from trainer.asked import Asked
from trainer.inputs import open_inputs, posterior_of
from trainer.plan import decide, requested

MakeBank = Callable[..., str]
Trainer = Callable[..., tuple[int, str, str]]


def asked(key: str, **more: Any) -> Asked:
    return Asked(dataset="digits_lt", aug="hybrid", bank=key, **more)


def test_a_label_names_the_judge_or_its_share(bank: MakeBank) -> None:
    key = bank()
    judged(key)
    plain = decide(asked(key)).spec
    assert decide(asked(key, label="lam")).spec == plain
    for label, share, arm in (("judge", 1.0, "hybrid-judge"), (0.25, 0.25, "hybrid-judge0.25")):
        spec = decide(asked(key, label=label)).spec
        assert spec.label is not None
        assert (spec.label.judge_share, spec.arm) == (share, arm)
        assert spec.key != plain.key
    assert decide(asked(key, label="0.250")).spec == spec
    inputs = open_inputs(spec)
    assert inputs.posterior is not None and inputs.posterior.shape == (64, 10)
    assert inputs.identity["label"]["judge_share"] == 0.25
    assert "label" not in open_inputs(plain).identity


@pytest.mark.parametrize("label", ["jugde", "0", "1", "1.5", "nan", "-0.5", ""])
def test_another_label_is_refused(label: str, bank: MakeBank) -> None:
    with pytest.raises(UsageFailure, match=r"label must be lam, judge or a number in \(0, 1\)"):
        decide(asked(bank(), label=label))


def test_a_label_needs_a_bank_and_a_recipe_that_reads_it(bank: MakeBank) -> None:
    key = bank()
    judged(key)
    with pytest.raises(UsageFailure, match="--aug mixup reads no label; arms that do: bank, hy"):
        decide(Asked(dataset="digits_lt", aug="mixup", label="judge"))
    for name in ("ldam-drw", "memory-kt"):
        with pytest.raises(UsageFailure) as error:
            decide(asked(key, label="judge", recipe=name))
        assert f"recipe {name} cannot read a label of all classes; recipes that can: ce, b" in str(
            error.value
        )
        assert error.value.code == 2


def test_a_refused_lever_says_why_and_who_takes_it(home: Path) -> None:
    told: dict[str, tuple[str, Any]] = {
        "drw": ("balanced-softmax", 0.8),
        "head_epochs": ("crt", 5),
        "h2t": ("tau-norm", True),
    }
    for lever, (name, value) in told.items():
        with pytest.raises(UsageFailure) as error:
            decide(Asked(dataset="digits_lt", recipe=name, **{lever: value}))
        why = {"drw": "corrects for class frequencies", "head_epochs": "class-balanced rows"}
        why["h2t"] = "changed at the end"
        assert why[lever] in str(error.value) and "recipes that do: ce, " in str(error.value)


def test_a_bank_that_no_judge_has_seen_has_no_labels(bank: MakeBank, trainer: Trainer) -> None:
    key = bank()
    words = "run --dataset digits_lt --aug hybrid --label judge --dry-run"
    code, _, err = trainer(*words.split())
    assert code == 3
    assert f"stylegan-mix bank judge {key[:12]}" in err and "no judge has labelled" in err


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"bank": "f" * 64}, "their bank is ffffffffffff"),
        ({"split_id": "a" * 64}, "their split id is aaaaaaaaaaaa"),
        ({"content_sha256": "b" * 64}, "their content sha256 is bbbbbbbbbbbb"),
        ({"posterior": np.zeros((64, 10), "<f2")}, "posterior of row 0 must be shares"),
        ({"posterior": np.full((64, 10), -0.1, "<f2")}, "posterior of row 0 must be shares"),
    ],
)
def test_annotations_of_another_bank_or_split_are_refused(
    change: Any, told: str, bank: MakeBank
) -> None:
    key = bank()
    judged(key, **change)
    with pytest.raises(InvalidInput, match=told):
        open_inputs(decide(asked(key, label="judge")).spec)


def test_labels_of_another_judge_than_a_run_began_with_are_refused(bank: MakeBank) -> None:
    key = bank()
    place = judged(key)
    spec = decide(asked(key, label=0.5)).spec
    assert spec.label is not None
    shutil.rmtree(place)
    judged(key, lambda rows: rows < 41)
    with pytest.raises(InvalidInput, match="other annotations than this run began with"):
        posterior_of(open_bank(banks.resolve(key)), spec.label)
    assert decide(asked(key, label=0.5)).spec.key != spec.key


def test_levers_reach_the_run_and_every_place_that_names_it(
    bank: MakeBank, trainer: Trainer
) -> None:
    key = bank()
    judged(key)
    typed = (
        "run --dataset digits_lt --aug hybrid --epochs 2 --bn-refresh-batches 1 --fair equal-real "
        "--label 0.5 --bank-schedule falling --mix-bank-real --drw 0.5 --head-epochs 1"
    )
    words = typed.split()
    code, out, err = trainer(*words, "--dry-run")
    arm = "hybrid-judge0.5-crossed-falling-equal-real-drw-head"
    assert code == 0 and f"arm {arm}" in err
    assert "128 real rows a step and 64 of the bank, falling, fair by equal-real" in err
    assert "--fair equal-real" in out and "--mix-bank-real" in out and "--drw 0.5" in out
    assert "steps       9 a run (train 6, head 3)" in out
    code, out, err = trainer(*words, "--dry-run", "--json")
    told = json.loads(out)
    assert told["run"]["fair"] == "equal-real" and told["run"]["label"]["judge_share"] == 0.5
    code, out, err = trainer(*words)
    assert code == 0, err
    (path,) = Path("runs").glob(f"digits_lt-ce-{arm}-*/seed-0/result.json")
    record = json.loads(path.read_text())
    assert (record["arm"], record["budget"]["fair"]) == (arm, "equal-real")
    assert record["budget"]["images"] == told["cost"]["images"]
    code, out, _ = trainer("report", "runs")
    assert code == 0
    for note in ("Fair by equal-real", "*-judge: ", "*-crossed: ", "*-falling: ", "*-head: "):
        assert note in out, note
    code, out, _ = trainer("report", "runs", "--json")
    assert json.loads(out)["tables"][0]["rows"][0]["fair"] == "equal-real"


def test_runs_that_differ_in_a_lever_are_rows_of_their_own(
    record: Callable[..., dict[str, Any]], tmp_path: Path, trainer: Trainer
) -> None:
    for number, more in enumerate(
        ({}, {"fair": "equal-real"}, {"fair": "equal-real", "bank_schedule": "from:3"})
    ):
        for seed in (0, 1):
            made = record("hybrid", seed=seed, **more)
            (tmp_path / f"{number}-{seed}.json").write_text(json.dumps(made))
    code, out, _ = trainer("report", str(tmp_path), "--json")
    assert code == 0
    (table,) = json.loads(out)["tables"]
    assert [(row["arm"], row["fair"], row["n"]) for row in table["rows"]] == [
        ("hybrid", "equal-steps", 2),
        ("hybrid-equal-real", "equal-real", 2),
        ("hybrid-from3-equal-real", "equal-real", 2),
    ]
    assert "Fair by equal-real and equal-steps" in " ".join(table["notes"])


def test_two_shares_of_a_judge_are_told_apart(
    record: Callable[..., dict[str, Any]], tmp_path: Path, trainer: Trainer
) -> None:
    for number, more in enumerate(({"drw": 0.5}, {"drw": 0.8})):
        (tmp_path / f"{number}.json").write_text(json.dumps(record("mixup", **more)))
    _, out, _ = trainer("report", str(tmp_path), "--json")
    (table,) = json.loads(out)["tables"]
    assert {row["setting"] for row in table["rows"]} == {"drw 0.5", "drw 0.8"}


def test_a_record_whose_fairness_is_not_that_of_its_settings_is_refused(
    record: Callable[..., dict[str, Any]], tmp_path: Path, trainer: Trainer
) -> None:
    made = record("hybrid", fair="equal-real")
    made["budget"]["fair"] = "equal-steps"
    (tmp_path / "one.json").write_text(json.dumps(made))
    code, _, err = trainer("report", str(tmp_path))
    assert code == 3 and "'budget.fair' is 'equal-steps'" in err


def test_a_sweep_leaves_a_lever_out_where_nobody_reads_it() -> None:
    base = {
        "dataset": "digits_lt",
        "fair": "equal-real",
        "label": 0.5,
        "drw": 0.8,
        "bank_schedule": "falling",
        "head-epochs": 2,
    }
    runs = [
        {"aug": ["none", "mixup", "mixup-even", "hybrid"]},
        {"aug": "hybrid", "recipe": ["balanced-softmax", "ldam-drw", "crt"]},
    ]
    items = sweep.expand({"base": base, "runs": runs}, "x.toml")
    told = [(one.fair, one.label, one.bank_schedule, one.drw, one.head_epochs) for one in items]
    assert told == [
        (None, None, None, 0.8, 2),
        (None, None, None, 0.8, 2),
        (None, None, "falling", 0.8, 2),
        ("equal-real", "0.5", "falling", 0.8, 2),
        ("equal-real", "0.5", "falling", None, 2),
        ("equal-real", None, "falling", None, 2),
        ("equal-real", "0.5", "falling", None, None),
    ]
    with pytest.raises(UsageFailure, match="'mix_bank_real' must be bool"):
        sweep.expand({"base": {**base, "mix_bank_real": "yes"}, "runs": runs}, "x.toml")


def test_a_lever_at_its_default_changes_no_request() -> None:
    """A choice that was kept before there were levers is found again."""
    plain = Asked(dataset="digits_lt", aug="hybrid")
    same = Asked(
        **{
            **vars(plain),
            "label": "lam",
            "fair": "equal-steps",
            "bank_schedule": "constant",
            "mix_bank_real": False,
            "head_epochs": 0,
            "h2t": False,
            "accept": "all",
        }
    )
    assert requested(same) == requested(plain)
    assert not {"label", "fair", "drw", "accept"} & requested(plain).keys()
    assert requested(Asked(**{**vars(plain), "label": "0.5"}))["label"] == 0.5


def test_a_committed_result_stands_for_a_run_of_the_same_levers_only(
    record: Callable[..., dict[str, Any]], home: Path
) -> None:
    """Where there is no bank, results are recognised by their settings."""
    from trainer.reports.records import Result

    made = Result(record("hybrid", recipe="ce", fair="equal-real", epochs=12))
    base = {"dataset": "digits_lt", "aug": "hybrid", "model": "resnet8", "epochs": 12}
    split = {"imbalance": 20.0, "profile": "exp"}
    right = Asked(**base, **split, fair="equal-real")
    (found,) = sweep.settle([right], [made], out="runs")
    assert found.found is made
    for wrong in (
        {},
        {"fair": "equal-real", "label": "judge"},
        {"accept": "clean", "fair": "equal-real"},
    ):
        with pytest.raises(InvalidInput):
            sweep.settle([Asked(**base, **split, **wrong)], [made], out="runs")
