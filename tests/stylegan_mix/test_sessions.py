"""Long work is stopped and followed from outside, in any thread, by what it is given."""

from __future__ import annotations

import json
import sys
import threading
from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from tiny_training import StopAfter, tiny_plan

from stylegan_mix import datasets
from stylegan_mix.banks.reader import open_bank
from stylegan_mix.datasets.prepare import Request, prepare
from stylegan_mix.errors import MissingEnvironment, Stopped, UsageFailure
from stylegan_mix.generators import store as generator_store
from stylegan_mix.generators.store import Published
from stylegan_mix.metrics import plan as metrics
from stylegan_mix.metrics.make import make
from stylegan_mix.progress import SILENT, Both, JsonLines, Terminal
from stylegan_mix.session import Session
from stylegan_mix.stopping import NEVER, StopEvent
from stylegan_mix.training.run import run_training

Run = Callable[..., tuple[int, str, str]]


def lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def labels(path: Path) -> set[str]:
    return {line["label"] for line in lines(path) if "label" in line}


def in_a_thread(work: Callable[[], Any]) -> Any:
    """The result of work in a thread that is not the main one; its error is raised here."""
    outcome: list[Any] = []

    def run() -> None:
        try:
            outcome.extend((work(), None))
        except BaseException as error:  # noqa: BLE001
            outcome.extend((None, error))

    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    result, error = outcome
    if error is not None:
        raise error
    return result


# Reporters


def test_progress_is_lines_of_json_that_are_read_back(tmp_path: Path) -> None:
    file = tmp_path / "progress.jsonl"
    reporter = JsonLines(file)
    reporter.say("one line\nand another")
    track = reporter.track(200, "images", "bank", start=40)
    track.update(60, loss="0.5", classes=3, share=float("nan"))
    track.update(64)  # within a second: kept back
    track.update(200)
    track.close()
    track.close()
    said, first, last = lines(file)
    assert said.keys() == {"time", "say"}
    assert said["say"] == "one line\nand another"
    assert first.keys() == {"time", "label", "unit", "done", "total", "rate", "facts"}
    assert (first["label"], first["unit"], first["done"], first["total"]) == (
        "bank",
        "images",
        60,
        200,
    )
    assert first["facts"] == {"loss": "0.5", "classes": 3, "share": "nan"}
    assert (last["done"], last["facts"]) == (200, {})
    # 20 and 160 images since the start, the second later: what was done before is no speed.
    assert first["rate"] > 0
    assert datetime.fromisoformat(first["time"]) <= datetime.fromisoformat(last["time"])


def test_several_writers_of_one_file_tear_no_line(tmp_path: Path) -> None:
    file = tmp_path / "progress.jsonl"

    def write(name: str) -> None:
        reporter = JsonLines(file)
        for number in range(50):
            reporter.say(f"{name} {number} " + "x" * 5000)

    threads = [threading.Thread(target=write, args=(name,)) for name in "abc"]
    for one in threads:
        one.start()
    for one in threads:
        one.join()
    found = [line["say"].split()[:2] for line in lines(file)]
    assert sorted(found) == sorted([name, str(number)] for name in "abc" for number in range(50))


def test_a_file_that_cannot_be_written_is_told_before_the_work(
    tmp_path: Path, home: Path, run: Run
) -> None:
    with pytest.raises(UsageFailure, match="cannot write progress to .*: No such file"):
        JsonLines(tmp_path / "nowhere" / "progress.jsonl")
    words = ("train", "--dataset", "digits_lt", "--kimg", "0.02", "--progress")
    code, _, err = run(*words, tmp_path / "nowhere" / "progress.jsonl")
    assert code == 2, err
    assert not (home / "training").exists()


def test_a_file_that_is_no_file_any_more_ends_the_work_as_a_full_disk_does(tmp_path: Path) -> None:
    reporter = JsonLines(tmp_path / "progress.jsonl")
    (tmp_path / "progress.jsonl").unlink()
    (tmp_path / "progress.jsonl").mkdir()
    with pytest.raises(MissingEnvironment, match="cannot write progress"):
        reporter.say("more")


def test_both_tell_both_and_silence_tells_nobody(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "progress.jsonl"
    for reporter in (Both(Terminal(), JsonLines(file)), SILENT):
        reporter.say("hello")
        track = reporter.track(10, "rows", "work")
        track.update(5)
        track.close()
    assert capsys.readouterr().err == "hello\n"
    assert [line.get("say", line.get("label")) for line in lines(file)] == ["hello", "work"]


def test_a_line_on_a_terminal_clears_the_progress_before_it(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True, raising=False)
    terminal = Terminal()
    terminal.track(10, "rows", "work").update(5)
    terminal.say("alarm")
    terminal.say("again")
    _, shown, after = capsys.readouterr().err.split("\r\x1b[K")
    assert shown.startswith("work: 5 of 10 rows")
    assert after == "alarm\nagain\n"


# Requests to stop


def test_a_request_of_another_thread_is_seen_and_named() -> None:
    stop = StopEvent()
    assert stop.requested is None
    in_a_thread(lambda: stop.set("cancelled"))
    assert stop.requested == "cancelled"
    failure = stop.failure(saved=True, what="at 3 of 5")
    assert (failure.code, str(failure)) == (75, "stopped (cancelled): at 3 of 5")
    assert StopEvent(minutes=0.0).requested == "minutes"


def test_nobody_stops_what_never_stops() -> None:
    with pytest.raises(ValueError, match="StopEvent"):
        NEVER.set()
    assert NEVER.requested is None


# Work in a thread


def test_a_bank_is_written_in_a_thread_stopped_and_finished(
    write: Callable[..., Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "progress.jsonl"
    with pytest.raises(Stopped, match="of 4 blocks of bank"):
        in_a_thread(lambda: write(n=200, session=Session(StopAfter(2), JsonLines(file))))
    stopped = lines(file)[-1]
    assert 0 < stopped["done"] < stopped["total"] == 200
    folder = in_a_thread(lambda: write(n=200, session=Session(StopEvent(), JsonLines(file))))
    assert len(open_bank(folder)) == 200
    assert lines(file)[-1]["done"] == 200
    assert labels(file) == {"bank"}
    assert capsys.readouterr().err == ""


def test_a_generator_is_trained_in_a_thread_stopped_and_finished(
    home: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "progress.jsonl"
    plan = tiny_plan(kimg=0.16)
    with pytest.raises(Stopped, match="of 0.16 thousand images"):
        in_a_thread(lambda: run_training(plan, Session(StopAfter(4), JsonLines(file))))
    (published,) = in_a_thread(lambda: run_training(plan, Session(StopEvent(), JsonLines(file))))
    assert generator_store.find() == [published]
    assert labels(file) == {"training"}
    assert lines(file)[0]["total"] == 0.16
    said = [line["say"] for line in lines(file) if "say" in line]
    assert "going on from 0.1 thousand images" in said
    assert any(text.startswith("trained in ") for text in said)
    assert capsys.readouterr().err == ""


@pytest.mark.usefixtures("short")
def test_a_report_is_made_in_a_thread_and_stopped_at_any_of_its_steps(
    generator: Published, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "progress.jsonl"
    plan = metrics.decide(metrics.Asked(n=60))
    capsys.readouterr()
    for looks, place in {3: "probe stood at step 3 of 20", 22: "distances to"}.items():
        with pytest.raises(Stopped, match=place):
            in_a_thread(
                lambda looks=looks: make(
                    plan, torch.device("cpu"), Session(StopAfter(looks), JsonLines(file))
                )
            )
    assert metrics.decide(metrics.Asked(n=60)).found is None
    found = in_a_thread(
        lambda: make(plan, torch.device("cpu"), Session(StopEvent(), JsonLines(file)))
    )
    assert found.report["key"] == plan.request.key
    assert found.report["command"] == "stylegan-mix metrics --n 60"
    wanted = {"probe", "samples of seed 0", "classifier of the samples of seed 0"}
    assert labels(file) == wanted
    assert capsys.readouterr().err == ""


def test_a_data_set_is_prepared_in_a_thread_and_stopped(
    home: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "progress.jsonl"
    for place in ("train/ant", "train/bee", "test/ant", "test/bee"):
        (tmp_path / "source" / place).mkdir(parents=True)
        for number in range(2):
            shade = 10 * len(place) + 5 * number
            Image.new("L", (8, 8), shade).save(tmp_path / "source" / place / f"{number}.png")
    request = Request(name="pictures", source=tmp_path / "source")
    with pytest.raises(Stopped, match="was being read"):
        in_a_thread(lambda: prepare(request, session=Session(StopAfter(3), JsonLines(file))))
    assert not datasets.available("pictures")
    done = in_a_thread(lambda: prepare(request, session=Session(StopEvent(), JsonLines(file))))
    assert done.facts["train_images"] > 0
    assert labels(file) == {"checking", "decoding"}
    assert capsys.readouterr().err == ""


# Commands


def test_a_command_writes_its_progress_to_a_file_too(
    home: Path, tmp_path: Path, run: Run, generator: Published
) -> None:
    file = tmp_path / "progress.jsonl"
    code, _, err = run("generate", "--n", "100", "--progress", file)
    assert code == 0, err
    last = lines(file)[-1]
    assert (last["label"], last["done"], last["total"], last["unit"]) == (
        "bank",
        100,
        100,
        "images",
    )
