"""A budget given as a time: measured once, remembered, and the same for the same command."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tiny_training import StopAfter, tiny_plan

from stylegan_mix import store
from stylegan_mix.durations import seconds_of
from stylegan_mix.errors import InvalidInput, Stopped, UsageFailure
from stylegan_mix.estimates import Span
from stylegan_mix.generators import store as generator_store
from stylegan_mix.session import Session
from stylegan_mix.training import cost
from stylegan_mix.training.plan import TrainPlan, start_of
from stylegan_mix.training.run import run_training
from stylegan_mix.training.timed_budget import (
    Chosen,
    budget_for,
    measurement_seconds,
    rounded_down,
)

Run = Callable[..., tuple[int, str, str]]

TRAIN = ("train", "--dataset", "digits_lt", "--batch", "16", "--channel-base", "64")
TRAIN += ("--channel-max", "8", "--device", "cpu")


def takes(low: float, high: float | None = None) -> Callable[[TrainPlan], Span]:
    """A measurement that finds a step to take so long."""
    return lambda plan: Span(low, low if high is None else high)


def never(plan: TrainPlan) -> Span:
    raise AssertionError("measured again")


def chosen(seconds: float, measure: Callable[[TrainPlan], Span], *, keep: bool = True) -> Chosen:
    return budget_for(tiny_plan(), seconds, measure, keep=keep)


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        *(("45s", 45), ("90m", 5400), ("2h", 7200), ("1h30m", 5400), ("1d12h", 129600)),
        *(("1h5s", 3605), ("1d1h1m1s", 90061), ("1.5h", 5400), ("0.25d", 21600), (" 2H ", 7200)),
        *(("2", None), ("h", None), ("", None), ("2h30", None), ("30m1h", None), ("-2h", None)),
        *(("2 h", None), ("1.5h30m", None), ("1e3s", None), ("infs", None), ("nan", None)),
        *(("9" * 5000 + "s", None), ("٣h", None), ("2h2h", None), ("1:30", None)),
    ],
)
def test_a_time_has_units(text: str, seconds: float | None) -> None:
    assert seconds_of(text) == seconds


@pytest.mark.parametrize("text", ["2", "0s", "0h0m", "soon", "-1h", "9" * 5000 + "h"])
def test_what_is_no_time_is_refused(home: Path, run: Run, text: str) -> None:
    code, out, err = run(*TRAIN, f"--time={text}")
    assert (code, out) == (2, "")
    assert "is no time; write it with units, such as 45s, 90m, 2h or 1h30m" in err
    assert len(err) < 1000


@pytest.mark.parametrize(
    ("kimg", "readable"),
    [
        *((0.0317, 0.03), (0.999, 0.8), (1, 1), (1.19, 1), (37.2, 30), (99, 80), (100, 100)),
        *((151, 150), (1000, 1000), (1234.5, 1200), (99999.99, 80000), (999.9999999999999, 800)),
    ],
)
def test_a_chosen_budget_is_easy_to_read(kimg: float, readable: float) -> None:
    assert rounded_down(kimg) == pytest.approx(readable)


def test_the_budget_is_what_the_middle_of_the_range_allows_rounded_down(home: Path) -> None:
    found = chosen(7200, takes(0.4, 1.6))  # about 0.8 s a step of 16 images: 144 kimg
    assert found.kimg == 120
    assert found.why == "--kimg 120 for the time: 0.83 to 3.3 hours on this machine"


def test_the_same_time_gives_the_first_choice_whatever_is_measured_later(home: Path) -> None:
    first = chosen(3600, takes(0.1)).kimg
    again = chosen(3600.0, never)
    assert again.kimg == first
    assert "as it was chosen for this time before" in again.why
    other = chosen(7200, takes(0.1)).kimg
    assert other == pytest.approx(2 * first, rel=0.3)
    assert chosen(3600, never).kimg == first


def test_a_choice_of_a_dry_run_is_not_kept(home: Path) -> None:
    chosen(3600, takes(0.1), keep=False)
    assert not home.exists()
    assert chosen(3600, takes(1.0)).kimg < chosen(3600, never, keep=False).kimg * 1.001


def test_a_training_that_stands_somewhere_is_given_the_time_from_there_on(home: Path) -> None:
    with pytest.raises(Stopped):
        run_training(tiny_plan(kimg=3.2), Session(StopAfter(60)))
    start = start_of(tiny_plan(kimg=3.2))
    assert start > 0.5
    found = chosen(10.0, takes(0.1))  # a hundred steps of 16 images
    assert start + 0.8 < found.kimg <= start + 1.6
    assert f"from {start:g} thousand images on" in found.why
    assert chosen(1.0, takes(0.1)).kimg > start


def test_a_time_too_short_for_a_step_is_refused(home: Path) -> None:
    with pytest.raises(UsageFailure, match="one step of 16 images takes 3 to 5 seconds"):
        chosen(2.0, takes(3.0, 5.0))
    assert not tiny_plan().folder.exists()


def test_an_absurd_time_has_an_absurd_budget_that_can_still_be_counted(home: Path) -> None:
    assert chosen(86400 * 999_999_999, takes(1e-6)).kimg == 1e9


@pytest.mark.parametrize(
    "content", ["[]", '{"3600": "many"}', '{"3600": -1}', '{"3600": true}', "{", '{"3600": 1e999}']
)
def test_choices_that_cannot_be_read_are_code_3_with_their_place(home: Path, content: str) -> None:
    path = tiny_plan().folder / "budgets.json"
    store.write_bytes(path, content.encode())
    with pytest.raises(InvalidInput) as refused:
        chosen(3600, never)
    assert str(path) in str(refused.value)
    assert (
        refused.value.remedy
        == f"move {path} away, and the budget is measured anew; or give " + ("--kimg")
    )


def test_a_measurement_is_short_beside_its_training() -> None:
    assert measurement_seconds(45) == measurement_seconds(1) <= 10
    assert measurement_seconds(7200) == 60
    assert measurement_seconds(1800) == 36


# As a user types it


def test_an_interrupted_training_goes_on_with_the_budget_that_it_chose(
    home: Path, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cost, "step_seconds", lambda plan, **_: Span(0.1, 0.1))
    monkeypatch.setattr("stylegan_mix.commands.train.StopSignals", lambda _: StopAfterContext(5))
    code, _, err = run(*TRAIN, "--time", "2s")  # 20 steps
    assert code == 75, err
    assert "--kimg 0.3 for the time: about 1.9 seconds on this machine" in err
    assert "0.3 thousand images = 19 steps" in err
    monkeypatch.undo()
    monkeypatch.setenv("STYLEGAN_MIX_HOME", str(home))
    monkeypatch.setattr(cost, "step_seconds", never)
    code, out, err = run(*TRAIN, "--time", "2s", "--json")
    assert code == 0, err
    assert "--kimg 0.3, as it was chosen for this time before" in err
    assert "going on from 0.1 thousand images" in err
    published = generator_store.load(json.loads(out)["generator"])
    assert published.card["kimg"] == 0.3
    assert " --kimg 0.3" in published.card["command"]
    assert "--time" not in published.card["command"]
    assert "--seconds" not in published.card["command"]
    code, again, _ = run(*TRAIN, "--time", "2s", "--json")
    assert (code, again) == (0, out)
    code, _, err = run(*TRAIN, "--kimg", "0.3")
    assert "finished already" in err


class StopAfterContext(StopAfter):
    """`StopAfter` in the place of signals."""

    def __enter__(self) -> StopAfterContext:
        return self

    def __exit__(self, *_: object) -> None:
        pass


def test_two_budgets_of_one_training_are_refused(home: Path, run: Run, tmp_path: Path) -> None:
    code, _, err = run(*TRAIN, "--time", "2h", "--kimg", "3")
    assert (code, "--time and --kimg 3 are two budgets" in err) == (2, True), err
    path = tmp_path / "train.toml"
    path.write_text('time = "2h"\n')
    code, _, err = run(*TRAIN, "--config", path, "--kimg", "3")
    assert (code, "--time and --kimg 3 are two budgets" in err) == (2, True), err
    path.write_text("time = 7200\n")
    code, _, err = run(*TRAIN, "--config", path)
    assert (code, "'7200' is no time" in err) == (2, True), err


def test_a_dry_run_of_a_time_measures_once_and_tells_the_budget(
    home: Path, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    measured: list[Any] = []

    def once(plan: TrainPlan, **given: Any) -> Span:
        measured.append(given)
        return Span(0.5, 0.8)

    monkeypatch.setattr(cost, "step_seconds", once)
    code, out, err = run(*TRAIN, "--time", "1h", "--dry-run", "--json")
    assert code == 0, err
    assert len(measured) == 1
    plan = json.loads(out)
    assert plan["kimg"] == 80
    assert plan["cost"]["seconds"] == [2500, 4000]
    assert not home.exists()


def test_of_several_processes_the_others_take_the_choice_of_the_first(home: Path) -> None:
    plan = tiny_plan()

    def meanwhile(_: TrainPlan) -> Span:
        # The lock is held while the first one measures.
        with pytest.raises(Stopped), store.locked(lock, wait=False):
            pass
        return Span(0.1, 0.1)

    lock = home / "training" / f"{plan.key}.budgets.lock"
    first = budget_for(plan, 3600, meanwhile, keep=True)
    assert budget_for(plan, 3600, never, keep=True).kimg == first.kimg
