"""Progress on stderr: the time left is told once enough was done to know it."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path

import pytest

from stylegan_mix import progress
from stylegan_mix.progress import JsonLines, Progress

Line = Callable[[float], str]


class Clock:
    """A clock that a test moves."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = 1000.0
        monkeypatch.setattr(progress.time, "monotonic", lambda: self.now)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    return Clock(monkeypatch)


def steps(clock: Clock, each: float, count: int, track: Progress, *, first: float) -> None:
    """Takes steps of one unit that last `each` seconds, the first one longer."""
    for step in range(1, count + 1):
        clock.now += first if step == 1 else each
        track.update(step)


def test_an_estimate_from_a_few_steps_is_not_printed(
    clock: Clock, capsys: pytest.CaptureFixture[str]
) -> None:
    steps(clock, 10.0, 10, Progress(10_000, "kimg", "training"), first=60.0)
    lines = capsys.readouterr().err.splitlines()
    assert lines[0] == "training: 1 of 10,000 kimg, time left not known yet"
    assert len(lines) > 2
    assert all(line.endswith("time left not known yet") for line in lines)


def test_the_estimate_counts_from_the_first_step_which_is_slow(
    clock: Clock, capsys: pytest.CaptureFixture[str]
) -> None:
    steps(clock, 10.0, 40, Progress(1040, "kimg", "training"), first=4000.0)
    last = capsys.readouterr().err.splitlines()[-1]
    assert re.fullmatch(r"training: (38|39|40) of 1,040 kimg, 0.1 kimg/s, 2:4[67]:\d\d left", last)


def test_a_part_of_the_whole_is_enough(clock: Clock, capsys: pytest.CaptureFixture[str]) -> None:
    steps(clock, 40.0, 4, Progress(20, "steps", "bank"), first=40.0)
    lines = capsys.readouterr().err.splitlines()
    assert "not known yet" in lines[0]
    assert lines[-1] == "bank: 4 of 20 steps, 0.025 steps/s, 10:40 left"


def test_work_that_was_resumed_counts_only_its_own_steps(
    clock: Clock, capsys: pytest.CaptureFixture[str]
) -> None:
    track = Progress(2000, "steps", "training", start=1000)
    for step in range(1001, 1031):
        clock.now += 2.0
        track.update(step)
    assert "0.5 steps/s, 32:" in capsys.readouterr().err.splitlines()[-1]


def test_work_that_does_not_move_has_no_time_left(
    clock: Clock, capsys: pytest.CaptureFixture[str]
) -> None:
    track = Progress(10, "steps", "training")
    for _ in range(30):
        clock.now += 31.0
        track.update(0)
    assert capsys.readouterr().err.splitlines()[-1].endswith("time left not known yet")


def test_a_file_of_progress_keeps_its_rate_as_a_number(clock: Clock, tmp_path: Path) -> None:
    written = tmp_path / "progress.jsonl"
    track = JsonLines(written).track(100, "steps", "training")
    for step in range(1, 5):
        clock.now += 50.0 if step == 1 else 2.0
        track.update(step)
    rates = [json.loads(line)["rate"] for line in written.read_text().splitlines()]
    assert rates == [0.02, 0.5, 0.5, 0.5]


@pytest.mark.parametrize("columns", [20, 60])
def test_a_line_on_a_narrow_terminal_fits_and_is_overwritten(
    columns: int, clock: Clock, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(progress.sys.stderr, "isatty", lambda: True)
    monkeypatch.setattr(progress, "_columns", lambda: columns)
    track = Progress(1000, "steps", "balanced-softmax mixup seed 0")
    steps(clock, 10.0, 20, track, first=60.0)
    track.close()
    told = capsys.readouterr().err
    assert "\n" not in told
    drawn = told.split("\r\x1b[K")
    assert len(drawn) == 22 and drawn[0] == drawn[-1] == ""
    assert all(20 <= len(line) <= columns for line in drawn[1:-1])
