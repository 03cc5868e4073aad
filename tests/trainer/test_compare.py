"""Paired comparisons: intervals by hand, verdicts, refusals."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from stylegan_mix.errors import UsageFailure
from trainer.reports import compare, records
from trainer.reports.records import Result

Maker = Callable[..., dict[str, Any]]
BASE = (74, 73, 72, 71, 70, 69, 68, 60, 50, 40)


def runs(record: Maker, aug: str, few: list[int], **settings: Any) -> list[Result]:
    """One run a seed, whose smallest class has `few[seed]` right."""
    return [
        Result(record(aug, seed=seed, right=(*BASE[:-1], right), **settings))
        for seed, right in enumerate(few)
    ]


def test_t_interval_by_hand() -> None:
    """Differences 1, 2, 3: mean 2, sd 1, quantile of Student's t with 2 degrees 4.302653."""
    low, high = compare.t_interval(np.array([1.0, 2.0, 3.0]), level=0.95)
    half = 4.302653 / math.sqrt(3)
    assert (low, high) == pytest.approx((2 - half, 2 + half), abs=1e-5)


def test_t_interval_of_two_by_hand() -> None:
    """Differences 0 and 2: mean 1, sd sqrt 2, quantile 12.706205 with one degree."""
    low, high = compare.t_interval(np.array([0.0, 2.0]), level=0.95)
    assert (low, high) == pytest.approx((1 - 12.706205, 1 + 12.706205), abs=1e-5)


def test_bootstrap_interval_of_two_by_hand() -> None:
    """Means of resamples of 0 and 2 are 0, 1, 1, 2 with equal chances: the ends hold 1/4 each."""
    values = np.array([0.0, 2.0])
    assert compare.bootstrap_interval(values, level=0.95) == (0.0, 2.0)
    assert compare.bootstrap_interval(values, level=0.4) == (1.0, 1.0)


def test_bootstrap_agrees_with_t_for_many_pairs() -> None:
    values = np.random.default_rng(0).normal(1.0, 2.0, 200)
    t = compare.t_interval(values, level=0.95)
    assert compare.bootstrap_interval(values, level=0.95) == pytest.approx(t, abs=0.05)


def test_bootstrap_is_the_same_every_time() -> None:
    values = np.random.default_rng(1).normal(size=7)
    one, other = (compare.bootstrap_interval(values, level=0.95) for _ in range(2))
    assert one == other


def test_bootstrap_is_too_narrow_for_three_pairs_and_t_is_not() -> None:
    """The reason why t decides there: 400 draws of three differences whose true mean is 0."""
    draws = np.random.default_rng(2).normal(size=(400, 3))

    def share(interval: Any) -> float:
        spans = [interval(values, level=0.95) for values in draws]
        return sum(low <= 0 <= high for low, high in spans) / len(spans)

    assert share(compare.bootstrap_interval) < 0.85
    assert 0.92 < share(compare.t_interval) < 0.98


def test_few_pairs_are_decided_by_t_and_many_by_the_bootstrap() -> None:
    few = compare.difference("overall", [1.0, 2.0, 3.0], level=0.95)
    many = compare.difference("overall", [1.0, 2.0] * 10, level=0.95)
    assert (few.decides, few.interval) == ("t", few.t)
    assert (many.decides, many.interval) == ("bootstrap", many.bootstrap)


def test_an_interval_around_zero_is_not_distinguishable() -> None:
    assert not compare.difference("overall", [1.0, -1.0, 0.5], level=0.95).distinguishable
    assert compare.difference("overall", [1.0, 1.1, 0.9], level=0.95).distinguishable


def test_equal_differences_still_have_the_spread_of_half_an_image() -> None:
    """Three times one image of ten: the test part is too coarse to show the spread."""
    one = compare.difference("few", [10.0, 10.0, 10.0], level=0.95, grain=10.0)
    assert not one.distinguishable
    assert compare.difference("few", [10.0] * 3, level=0.95, grain=0.1).distinguishable


def test_the_bootstrap_has_the_least_spread_too() -> None:
    """Twenty equal differences, from where the bootstrap decides."""
    one = compare.difference("few", [10.0] * 20, level=0.95, grain=50.0)
    assert one.decides == "bootstrap" and one.bootstrap is not None
    low, high = one.bootstrap
    assert (10 - low, high - 10) == pytest.approx([1.959964 * 25 / 20**0.5] * 2, abs=1e-4)
    assert not one.distinguishable
    wide = [0.0, 100.0] * 10
    assert (
        compare.difference("few", wide, level=0.95, grain=1.0).bootstrap
        == compare.difference("few", wide, level=0.95).bootstrap
    )


def uneven(record: Maker, *, kept: str) -> records.Result:
    """A result with 2, 4, 8, ... test images, whose least step is known in several ways."""
    one = record()
    counts = [2, 4, 8, 16, 32, 64, 128, 0, 1, 485]
    one["dataset"] = {**one["dataset"], "test_counts": counts}
    right = [count // 2 for count in counts]
    one["confusion"] = [
        [half if i == j else count - half if j == (i + 1) % 10 else 0 for j in range(10)]
        for i, (count, half) in enumerate(zip(counts, right, strict=True))
    ]
    if kept != "counts":
        del one["dataset"]["test_counts"]
    if kept != "confusion":
        one["confusion"] = None
    return records.Result(one)


@pytest.mark.parametrize("kept", ["counts", "confusion"])
def test_one_image_moves_a_group_by_the_images_of_its_fullest_class(
    record: Maker, kept: str
) -> None:
    one = uneven(record, kept=kept)
    assert compare._grain(one, "overall") == pytest.approx(100 / 740)
    assert compare._grain(one, "many") == pytest.approx(100 / (3 * 8))
    assert compare._grain(one, "medium") == pytest.approx(100 / (4 * 128))
    # Of the few, one class has no test images, so its mean is over two.
    assert compare._grain(one, "few") == pytest.approx(100 / (2 * 485))


def test_a_record_without_counts_is_taken_as_even(record: Maker) -> None:
    """Committed records of an older version, of more than 20 classes, lack both."""
    one = record()
    one["confusion"] = None
    assert compare._grain(records.Result(one), "few") == pytest.approx(100 / (3 * 74))


def test_seeds_are_paired_and_those_without_a_partner_said(record: Maker) -> None:
    a, b = runs(record, "hybrid", [50, 52, 54]), runs(record, "none", [40, 41])
    found = compare.compare_runs(a, b)
    assert found.seeds == (0, 1)
    assert found.deciding.each == pytest.approx((1000 / 740, 1100 / 740))
    assert found.left_out == ("seeds of A without a partner: [2]",)


def test_every_part_is_compared(record: Maker) -> None:
    found = compare.compare_runs(runs(record, "hybrid", [50, 51]), runs(record, "none", [40, 41]))
    means = {one.part: one.mean for one in found.differences}
    assert means == pytest.approx(
        {
            "overall": 1000 / 740,
            "balanced": 1000 / 740,
            "many": 0,
            "medium": 0,
            "few": 1000 / (3 * 74),
        }
    )


def test_verdicts(record: Maker) -> None:
    none = runs(record, "none", [40, 41, 42])
    better = compare.compare_runs(runs(record, "hybrid", [60, 61, 63]), none)
    assert better.verdict.startswith(f"{better.a} is better than {better.b}: +2.7")
    worse = compare.compare_runs(runs(record, "mixup", [20, 21, 22]), none)
    assert " is worse than " in worse.verdict
    same = compare.compare_runs(runs(record, "mixup", [41, 40, 43]), none)
    assert same.verdict.startswith("not distinguishable")
    single = compare.compare_runs(runs(record, "mixup", [60]), none)
    assert single.verdict.startswith("one seed") and single.deciding.interval is None


def test_equivalence_is_an_interval_within_the_margin(record: Maker) -> None:
    none = runs(record, "none", [40, 41, 42, 40, 41])
    near = runs(record, "mixup", [41, 41, 42, 40, 42])
    assert compare.compare_runs(near, none, level=0.9, margin=1.0).verdict.startswith("equivalent")
    refused = compare.compare_runs(near, none, level=0.9, margin=0.1).verdict
    assert refused.startswith("not shown to be equivalent")


@pytest.mark.parametrize(
    ("other", "told"),
    [
        ({"dataset": "letters_lt"}, "dataset.split_id"),
        ({"epochs": 24}, "budget.epochs: 12 in A, 24 in B"),
        ({"batch": 64}, "budget.batch"),
        ({"precision": "bfloat16"}, "budget.precision"),
    ],
)
def test_other_data_or_budget_is_refused(record: Maker, other: Any, told: str) -> None:
    with pytest.raises(UsageFailure) as error:
        compare.compare_runs(runs(record, "hybrid", [50]), runs(record, "none", [40], **other))
    assert told in str(error.value)


def test_other_draws_of_the_split_are_refused(record: Maker) -> None:
    other = record()
    other["dataset"] = {**other["dataset"], "split_id": "0" * 64}
    with pytest.raises(UsageFailure, match="split_id"):
        compare.compare_runs(runs(record, "hybrid", [50]), [Result(other)])


def test_an_experiment_is_not_compared_with_itself(record: Maker) -> None:
    with pytest.raises(UsageFailure, match="same experiment"):
        compare.compare_runs(runs(record, "none", [40]), runs(record, "none", [40]))


def test_no_common_seed_is_refused(record: Maker) -> None:
    b = [Result(record(seed=7))]
    with pytest.raises(UsageFailure, match=r"A has \[0\], B has \[7\]"):
        compare.compare_runs(runs(record, "hybrid", [50]), b)


@pytest.fixture
def places(record: Maker, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    made = [
        *runs(record, "hybrid", [60, 61, 63]),
        *runs(record, "none", [40, 41, 42]),
        *runs(record, "none", [45, 46, 47], recipe="balanced-softmax"),
    ]
    for number, one in enumerate(made):
        records.write(tmp_path / "runs" / f"{number}.json", one.record)
    return tmp_path / "runs"


def test_command_compares_arms_by_name(places: Path, trainer: Any) -> None:
    code, out, _ = trainer("compare", "hybrid", "none")
    assert code == 0
    assert "better than none ce" in out
    assert "the t interval decides" in out


def test_command_takes_folders_and_gives_json(places: Path, trainer: Any) -> None:
    left = places.parent / "left"
    left.mkdir()
    for number in range(3):
        (places / f"{number}.json").rename(left / f"{number}.json")
    code, out, _ = trainer("compare", str(left), "none/balanced-softmax", "--json")
    found = json.loads(out)
    assert code == 0
    assert found["seeds"] == [0, 1, 2]
    assert found["differences"][0]["distinguishable"] is True
    assert found["schema"] == "trainer-compare/1"


def test_command_names_the_nearest_arm(places: Path, trainer: Any) -> None:
    code, _, err = trainer("compare", "hybird", "none")
    assert code == 2
    assert "did you mean 'hybrid'" in err


def test_command_says_that_there_are_no_runs(places: Path, trainer: Any) -> None:
    (places.parent / "empty").mkdir()
    code, _, err = trainer("compare", "hybrid", "none", "--in", "empty")
    assert (code, err) == (2, "trainer: there is no finished run in empty\n")


def test_command_asks_which_of_several_is_meant(places: Path, trainer: Any, record: Maker) -> None:
    records.write(places / "more.json", record("hybrid", epochs=24))
    code, _, err = trainer("compare", "hybrid", "none")
    assert code == 2
    assert "means 2 experiments" in err
