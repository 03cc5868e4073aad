"""`report --summary` and `--pairs`: chosen arms of several data sets, and their differences."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from made_arms import BASE, HEADINGS, Maker, arms

from trainer.reports import records, summary, tables
from trainer.reports.records import Result


def test_a_summary_sets_data_sets_side_by_side(places: Path, record: Maker, trainer: Any) -> None:
    for number, one in enumerate(arms(record, "none", seeds=3, dataset="other_lt")):
        records.write(places / "runs" / f"other{number}.json", one.record)
    code, out, _ = trainer("report", "runs", "--summary", "hybrid,none", "--format", "md")
    assert code == 0
    head, rule, hybrid, none, *_ = out.splitlines()
    columns = ["overall = balanced (10 classes)", HEADINGS[4]]
    named = [f"{name}: {column}" for name in ("digits_lt", "other_lt") for column in columns]
    assert head == f"| arm | recipe | {' | '.join(named)} |"
    assert rule == f"| --- | --- |{' ---: |' * 4}"
    assert hybrid.startswith("| hybrid | ce | 8") and hybrid.endswith(" | not run" * 2 + " |")
    assert none.startswith("| none | ce | 8") and "not run" not in none
    assert "- digits_lt, imbalance 20, 12 epochs: resnet8, 2 runs an arm." in out
    assert "- other_lt, imbalance 20, 12 epochs: resnet8, 3 runs an arm." in out


@pytest.mark.parametrize(
    ("seeds", "told"),
    [
        ((1, 1), "1 run"),
        ((3, 3), "3 runs"),
        ((1, 2), "1 or 2 runs"),
        ((1, 2, 4), "1 to 4 runs"),
    ],
)
def test_a_summary_counts_the_runs_of_its_arms(
    record: Maker, seeds: tuple[int, ...], told: str
) -> None:
    augs = ("none", "mixup", "hybrid")[: len(seeds)]
    found = [
        result
        for aug, count in zip(augs, seeds, strict=True)
        for result in arms(record, aug, seeds=count)
    ]
    text = summary.text_summary(found, augs)
    assert f"digits_lt, imbalance 20, 12 epochs: resnet8, {told} an arm." in text.splitlines()


def test_a_data_set_without_any_of_the_arms_is_left_out_of_a_summary_by_name(
    record: Maker,
) -> None:
    found = [
        *arms(record, "none", "hybrid", seeds=1),
        *arms(record, "none", seeds=1, dataset="ada", epochs=2),
        *arms(record, "mixup", seeds=1, dataset="bob", model="resnet20"),
        *arms(record, "hybrid", seeds=1, dataset="bob"),
    ]
    for render in (summary.text_summary, summary.markdown_summary):
        lines = render(found, ["hybrid", "mixup"]).splitlines()
        assert "ada:" not in lines[0] and "bob:" in lines[0]
        told = [line.removeprefix("- ") for line in lines]
        assert "ada, imbalance 20, 2 epochs: none of these arms has a run." in told
        assert "digits_lt, imbalance 20, 12 epochs: resnet8, 1 run an arm." in told
        assert "bob, imbalance 20, 12 epochs: resnet20 and resnet8, 1 run an arm." in told
        assert not any(": ," in line or ",  " in line for line in told)


def test_two_budgets_of_a_data_set_have_columns_of_their_own_in_a_summary(record: Maker) -> None:
    found = [*arms(record, "none", seeds=1), *arms(record, "none", seeds=1, epochs=2)]
    head = summary.markdown_summary(found, ["none"]).splitlines()[0]
    assert "digits_lt, imbalance 20, 12 epochs: " in head
    assert "digits_lt, imbalance 20, 2 epochs: " in head


def test_an_arm_of_a_summary_is_its_plain_recipe_and_one_row_of_each_table(
    places: Path, record: Maker, trainer: Any
) -> None:
    """At another rate, in a table of its own, there is only a distilled run of that arm."""
    records.write(places / "runs" / "kd.json", record("hybrid", recipe="kd", lr=0.2))
    code, out, _ = trainer("report", "runs", "--summary", "hybrid,hybrid/ce,hybrid/kd")
    assert code == 0
    _, plain, same, distilled, *_ = out.splitlines()
    assert plain == same and plain.split()[-4:] == ["not", "run"] * 2
    assert distilled.split()[:4] == ["hybrid", "kd", "not", "run"]
    records.write(places / "runs" / "two.json", record("hybrid", recipe="kd", lr=0.2, alpha=0.5))
    code, _, err = trainer("report", "runs", "--summary", "hybrid/kd")
    assert code == 2 and "'hybrid/kd' means several rows" in err


def test_pairs_are_what_compare_says(places: Path, record: Maker, trainer: Any) -> None:
    better = record("hybrid", seed=0, right=(*BASE[:-1], 47))
    records.write(places / "runs" / "2.json", better)  # in the place of hybrid, seed 0
    code, out, _ = trainer("report", "runs", "--pairs", "hybrid:none", "--format", "md")
    assert code == 0
    line = out.splitlines()[2]
    compared = json.loads(trainer("compare", "hybrid", "none", "--in", "runs", "--json")[1])
    for one in compared["differences"]:
        low, high = one["t"]
        assert f"| {one['mean']:+.1f} [{low:+.1f}, {high:+.1f}] |" in line
    assert line.startswith("| hybrid | none | 2 | +0.5 ")


def test_pairs_of_several_experiments_are_listed(places: Path, record: Maker, trainer: Any) -> None:
    for number, alpha in enumerate((0.5, 0.25)):
        records.write(places / "runs" / f"other{number}.json", record("hybrid", alpha=alpha))
    code, _, err = trainer("report", "runs", "--pairs", "hybrid:none")
    assert code == 2
    assert "'hybrid' means 3 experiments" in err
    assert err.count("hybrid/ce/resnet8/") == 3
    assert "add recipe, model or key" in err


@pytest.mark.parametrize(
    ("setting", "told"),
    [
        ({"lr": 0.05}, {"lr 0.05", "lr 0.1"}),
        ({"batch": 64}, {"batch 64", "batch 128"}),
        ({"precision": "bfloat16"}, {"precision bfloat16", "precision float32"}),
    ],
)
def test_tables_that_would_have_one_title_name_their_difference(
    record: Maker, setting: Any, told: set[str]
) -> None:
    found = tables.tables([Result(record()), Result(record(**setting))])
    plain = "digits_lt, imbalance 20, 12 epochs, "
    assert {table.title for table in found} == {plain + one for one in told}
