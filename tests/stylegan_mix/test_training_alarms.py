"""Alarms: what is sound stays quiet, what collapses is named, and the training goes back once."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tiny_training import tiny_plan

from stylegan_mix import datasets
from stylegan_mix.datasets import Dataset
from stylegan_mix.errors import Diverged, MissingEnvironment
from stylegan_mix.generators import class_grid
from stylegan_mix.generators.collapse import dead
from stylegan_mix.session import Session
from stylegan_mix.stopping import StopSignals
from stylegan_mix.training import alarms, loop
from stylegan_mix.training.alarms import Alarms, Health
from stylegan_mix.training.run import run_training
from stylegan_mix.training.step import play

CLASSES = ("head", "tail")


def _health(diversity: list[float | None], **changes: Any) -> Health:
    parts = {"spread": [1.0, 1.0], "copies": [1.0, 1.0], "class_norm": 1.0, **changes}
    return Health(diversity=diversity, **parts)


def test_a_class_collapses_after_three_logs_and_only_if_it_was_alive() -> None:
    watch = Alarms({}, CLASSES)
    for _ in range(9):
        assert watch.collapsed(_health([0.8, 0.02]), 50) == []
    assert watch.collapsed(_health([0.8, 0.5]), 50) == []
    assert watch.sound
    assert watch.collapsed(_health([0.8, 0.05]), 50) == []
    assert not watch.sound
    assert watch.collapsed(_health([0.8, 0.05]), 50) == []
    assert watch.collapsed(_health([0.8, 0.05]), 50) == ["tail"]
    assert watch.collapsed(_health([0.8, 0.2]), 50) == []


def test_a_class_that_never_lived_has_collapsed_after_long_enough() -> None:
    watch = Alarms({}, CLASSES)
    found = [watch.collapsed(_health([0.8, 0.02]), kimg) for kimg in (80, 90, 100, 110, 120)]
    assert found == [[], [], [], [], ["tail"]]


def test_the_memory_of_alarms_lies_in_the_running_state() -> None:
    running: dict[str, torch.Tensor] = {}
    first = Alarms(running, CLASSES)
    first.collapsed(_health([0.8, 0.5]), 50)
    first.collapsed(_health([0.8, 0.05]), 50)
    again = Alarms({name: value.clone() for name, value in running.items()}, CLASSES)
    assert again.collapsed(_health([0.8, 0.05]), 50) == []
    assert again.collapsed(_health([0.8, 0.05]), 50) == ["tail"]


def test_dead_are_the_classes_of_which_one_picture_is_drawn() -> None:
    assert dead({0: 0.7, 4: 0.0, 8: None, 9: 0.09}) == [4, 9]


def test_warnings_name_what_is_wrong() -> None:
    watch = Alarms({}, CLASSES)
    calm = {"sign_real": 0.6, "sign_fake": -0.5}
    assert watch.warnings(_health([0.8, None], copies=[1.0, None]), calm) == {}
    sound = [0.8, 0.8]
    cases: list[tuple[Health, dict[str, float], str, str]] = [
        (_health([0.8, 0.05]), calm, "diversity", "little but one picture is drawn of tail"),
        (_health(sound, copies=[0.9, 0.1]), calm, "copies", "copies its training images: tail"),
        (_health(sound, spread=[0.01, 0.5]), calm, "w", "w nearly a point: head"),
        (_health(sound, class_norm=11.0), calm, "class path", "more than 10 times"),
        (_health(sound), {"sign_real": 0.99, "sign_fake": -0.99}, "discriminator", "never wrong"),
        (_health(sound), {**calm, "overflow_d": 0.02}, "overflow", "float16"),
    ]
    for health, means, name, text in cases:
        found = watch.warnings(health, means)
        assert list(found) == [name]
        assert text in found[name]


def test_the_progress_line_shows_alarms_first_and_what_they_are_drawn_from() -> None:
    health = _health([0.05, None], copies=[0.9, 0.3], spread=[0.5, 0.7], class_norm=1.26)
    warnings = Alarms({}, CLASSES).warnings(health, {})
    shown = Alarms.shown(health, warnings, {"sign_real": 0.24, "sign_fake": -0.3})
    assert list(shown.items()) == [
        ("ALARMS", "diversity"),
        ("diversity", "0.05..0.05"),
        ("copies", "0.30..0.90"),
        ("w", "0.50..0.70"),
        ("class path", "1.3"),
        ("D", "+0.24/-0.30"),
    ]


def test_the_class_path_is_as_strong_as_class_means_of_w_lie_apart() -> None:
    noise = torch.randn(400, 3, generator=torch.Generator().manual_seed(0))
    noise -= noise.mean(dim=0)
    along = torch.tensor([3.0, 0.0, 4.0])
    # Means at -5, 0 and 5 from theirs, along one direction: a singular value of sqrt(50), over
    # sqrt(3).
    w = {label: 7 + noise + shift * along for label, shift in enumerate((-1.0, 0.0, 1.0))}
    assert alarms.class_path_norm(w) == pytest.approx((50 / 3) ** 0.5, rel=1e-4)
    assert alarms.class_path_norm({3: noise, 7: noise}) == pytest.approx(0, abs=1e-5)


def test_copies_are_near_zero_for_training_images_and_near_one_for_others() -> None:
    data = datasets.load("digits_lt")
    rows = {c: np.flatnonzero(data.train.labels == c) for c in range(10)}
    real = [torch.from_numpy(np.asarray(data.train.images[rows[c]])) for c in range(10)]
    test = [
        torch.from_numpy(np.asarray(data.test.images[data.test.labels == c])) for c in range(10)
    ]
    rare = int(np.argmin(data.counts))
    for label in (0, rare):
        assert alarms._copies(real[label], data, label) == 0.0
        unseen = alarms._copies(test[label], data, label)
        assert unseen is not None
        assert 0.8 < unseen < 1.6


def test_w_spread_compares_inside_with_all() -> None:
    generator = torch.Generator().manual_seed(0)
    wide = torch.randn(500, 4, generator=generator)
    point = torch.ones(500, 4) + 1e-4 * torch.randn(500, 4, generator=generator)
    spread = alarms.w_spread({3: wide, 7: point})
    assert spread[3] > 0.9
    assert spread[7] < 1e-3


@pytest.fixture
def often(monkeypatch: pytest.MonkeyPatch) -> None:
    """A log every 2 steps, a kept state every 8."""
    rhythm = loop.Rhythm(log_kimg=0.032, picture_kimg=0.128)
    monkeypatch.setattr(loop, "Rhythm", lambda save_seconds: rhythm)


def _collapse_at(monkeypatch: pytest.MonkeyPatch, logs: dict[int, set[int]]) -> list[int]:
    """Lets class 9 look collapsed at the given logs of each attempt; the logs seen, counted."""
    seen: list[int] = []

    def looked(samples: Any, w: Any, dataset: Dataset) -> Health:
        seen.append(len(seen))
        attempt = sum(1 for _ in Path(tiny_plan(0.64).folder).glob("events.jsonl"))
        low = len(seen) in logs.get(attempt, set())
        ratios: list[float | None] = [0.8] * 9 + [0.01 if low else 0.8]
        return Health(ratios, [1.0] * 10, [1.0] * 10, 1.0)

    monkeypatch.setattr(alarms, "measure", looked)
    return seen


def test_a_collapse_takes_the_training_back_once_and_it_ends_with_other_draws(
    home: Path, often: None, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    _collapse_at(monkeypatch, {0: {6, 7, 8}})
    with StopSignals() as stop:
        (published,) = run_training(tiny_plan(0.64), Session(stop))
    assert published.card["attempts"] == 2
    said = "9 collapsed to a few pictures at 0.3 thousand images: back to 0.1, on with other draws"
    assert said in capsys.readouterr().err
    folder = tiny_plan(0.64).folder
    (event,) = [json.loads(x) for x in (folder / "events.jsonl").read_text().splitlines()]
    assert (event["event"], event["step"]) == ("lost", 16)
    steps = [json.loads(x)["step"] for x in (folder / "metrics.jsonl").read_text().splitlines()]
    assert steps == list(range(2, 41, 2))
    assert (folder / "grids" / "lost-00000.256.png").exists()


def test_a_second_collapse_ends_with_code_5_and_a_picture(
    home: Path, often: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    _collapse_at(monkeypatch, {0: {6, 7, 8}, 1: {11, 12, 13}})
    with StopSignals() as stop, pytest.raises(Diverged, match="again.*9 collapsed") as error:
        run_training(tiny_plan(0.64), Session(stop))
    assert error.value.code == 5
    pictures = sorted(path.name for path in (tiny_plan(0.64).folder / "grids").glob("lost-*"))
    assert len(pictures) == 2


def test_a_stop_off_the_rhythm_changes_nothing_of_what_alarms_and_a_rollback_know(
    home: Path, often: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    # The fifth log is that of the end of the first budget, at 9 steps.
    _collapse_at(monkeypatch, {0: {5, 6, 7}})
    with StopSignals() as stop:
        run_training(tiny_plan(kimg=0.144), Session(stop))
        kept = [path.name for path in (tiny_plan(0.64).folder / "kept").iterdir()]
        (published,) = run_training(tiny_plan(0.64), Session(stop))
    assert kept == ["step-000000008"]
    assert "attempts" not in published.card


def test_on_collapse_go_on_only_warns(
    home: Path, often: None, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    _collapse_at(monkeypatch, {0: set(range(6, 20))})
    plan = tiny_plan(0.64, on_collapse="go-on")
    with StopSignals() as stop:
        (published,) = run_training(plan, Session(stop))
    assert "attempts" not in published.card
    said = capsys.readouterr().err
    # Once each, when it begins: flat at the sixth log, collapsed with the third in a row.
    assert said.count("alarm at 0.2 thousand images: little but one picture is drawn of 9") == 1
    assert said.count("alarm at 0.3 thousand images: 9 collapsed to a few pictures") == 1
    assert said.count("alarm at") == 2
    logged = (plan.folder / "metrics.jsonl").read_text().splitlines()
    assert [len(json.loads(one)["alarms"]) for one in logged[:9]] == [0, 0, 0, 0, 0, 1, 1, 2, 2]


@pytest.mark.parametrize("kept", [False, True])
def test_a_weight_that_breaks_just_before_a_log_takes_the_training_back(
    home: Path, often: None, monkeypatch: pytest.MonkeyPatch, kept: bool
) -> None:
    step, broke_at = loop.train_step, 9 if kept else 1
    broken = []

    def breaks(state: Any, *rest: Any) -> Any:
        facts = step(state, *rest)
        if state.step == broke_at + 1 and not broken:  # of the log's step itself
            broken.append(state.step)
            next(state.average.parameters()).fill_(float("nan"))
        return facts

    monkeypatch.setattr(loop, "train_step", breaks)
    with StopSignals() as stop:
        (published,) = run_training(tiny_plan(0.64), Session(stop))
    assert published.card["attempts"] == 2
    event = json.loads((tiny_plan(0.64).folder / "events.jsonl").read_text())
    assert event["step"] == broke_at + 1
    assert event["reason"] == "a weight is not a finite number"


def test_many_classes_share_the_samples_of_a_log() -> None:
    assert [loop.samples_each(classes) for classes in (1, 10, 25, 50, 100, 120)] == [
        *(64, 64, 64, 32, 16, 16)
    ]


def test_a_log_and_a_card_leave_out_the_classes_that_nobody_watches(
    home: Path, often: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    every = class_grid.shown_classes
    monkeypatch.setattr(
        class_grid, "shown_classes", lambda counts, most=2: every(counts, min(most, 4))
    )
    with StopSignals() as stop:
        (published,) = run_training(tiny_plan(0.64), Session(stop))
    log = (tiny_plan(0.64).folder / "metrics.jsonl").read_text().splitlines()
    line = json.loads(log[-1])
    for values in (
        line["diversity"],
        line["w_spread"],
        line["copies"],
        published.card["diversity"],
    ):
        assert [label for label, value in enumerate(values) if value is not None] == [0, 3, 6, 9]


@pytest.mark.parametrize(
    ("error", "said", "next_command"),
    [
        (torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 9 GiB"), "16", "--batch 8"),
        (RuntimeError("CUDA error: uncorrectable ECC error\nmore"), "ECC error", "checkpoints"),
    ],
)
def test_a_failing_device_ends_with_code_4_and_training_goes_on_from_what_was_saved(
    home: Path,
    often: None,
    monkeypatch: pytest.MonkeyPatch,
    error: RuntimeError,
    said: str,
    next_command: str,
) -> None:
    step = loop.train_step

    def fails(state: Any, *rest: Any) -> Any:
        if state.step == 20:
            raise error
        return step(state, *rest)

    monkeypatch.setattr(loop, "train_step", fails)
    with StopSignals() as stop, pytest.raises(MissingEnvironment, match=said) as ended:
        run_training(tiny_plan(0.64), Session(stop))
    assert ended.value.code == 4
    assert "goes on from 0.256 thousand images" in str(ended.value.remedy)
    assert next_command in str(ended.value.remedy)
    monkeypatch.setattr(loop, "train_step", step)
    with StopSignals() as stop:
        (published,) = run_training(tiny_plan(0.64), Session(stop))
    assert published.card["kimg"] == 0.64


@pytest.mark.parametrize("graphs", [True, False])
def test_every_attempt_has_a_player_of_its_own_that_knows_its_draws(
    home: Path, often: None, monkeypatch: pytest.MonkeyPatch, graphs: bool
) -> None:
    asked: list[tuple[int, bool]] = []

    def noted(game: Any, graphs: bool, _say: Any) -> Any:
        asked.append((game.attempt, graphs))
        return play

    monkeypatch.setattr(loop, "player_of", noted)
    _collapse_at(monkeypatch, {0: {6, 7, 8}})
    with StopSignals() as stop:
        run_training(tiny_plan(0.64), Session(stop), graphs=graphs)
    # at the start, from the kept state, and on with other draws
    assert asked == [(0, graphs), (0, graphs), (1, graphs)]
