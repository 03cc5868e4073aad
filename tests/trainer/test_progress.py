"""Runs are followed and stopped from outside: in any thread, and by a file of JSON lines."""

from __future__ import annotations

import json
import threading
from pathlib import Path
from typing import Any

import pytest

from stylegan_mix.errors import Failure, Stopped
from stylegan_mix.progress import JsonLines
from stylegan_mix.session import Session
from stylegan_mix.stopping import StopEvent
from trainer.execute import How, execute
from trainer.plan import Asked, decide

TINY = Asked(dataset="digits_lt", epochs=1, bn_refresh_batches=1)
WORDS = ("--dataset", "digits_lt", "--epochs", "1", "--bn-refresh-batches", "1")


def lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


class Halfway(StopEvent):
    """Asks for a stop at its second look."""

    looks = 0

    @property
    def requested(self) -> str | None:
        self.looks += 1
        return "halfway" if self.looks > 1 else None


def test_a_run_is_executed_in_a_thread_stopped_and_finished(
    home: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file, plan = tmp_path / "progress.jsonl", decide(TINY)
    outcome: list[Any] = []

    def work(stop: StopEvent) -> None:
        try:
            outcome.append(execute(plan, Session(stop, JsonLines(file)), How("cpu", 1, {})))
        except Failure as error:
            outcome.append(error)

    capsys.readouterr()
    for stop in (Halfway(), StopEvent()):
        thread = threading.Thread(target=work, args=(stop,))
        thread.start()
        thread.join()
    stopped, (result,) = outcome
    assert isinstance(stopped, Stopped)
    assert "stopped (halfway)" in str(stopped)
    last = [line for line in lines(file) if "label" in line][-1]
    assert last["label"] == "none ce seed 0"
    assert last["done"] == last["total"] == 3
    assert any("seed 0: overall" in line.get("say", "") for line in lines(file))
    assert result.spec == plan.spec
    assert capsys.readouterr().err == ""


def test_a_command_writes_its_progress_to_a_file_too(home: Path, trainer: Any) -> None:
    code, _, err = trainer("run", *WORDS, "--device", "cpu", "--progress", "run.jsonl")
    assert code == 0, err
    assert lines(Path("run.jsonl"))[-2]["unit"] == "steps"
    assert "seed 0: overall" in lines(Path("run.jsonl"))[-1]["say"]


def test_all_runs_of_a_sweep_share_a_file(home: Path, trainer: Any) -> None:
    Path("grid.toml").write_text(
        "[base]\ndataset = 'digits_lt'\nepochs = 1\nbn-refresh-batches = 1\n"
        "[[runs]]\naug = ['none', 'mixup']\n"
    )
    words = ("sweep", "grid.toml", "--device", "cpu", "--threads", "1", "--workers", "2")
    code, _, err = trainer(*words, "--progress", "sweep.jsonl")
    assert code == 0, err
    labels = {line["label"] for line in lines(Path("sweep.jsonl")) if "label" in line}
    assert labels == {"none ce seed 0", "mixup ce seed 0"}
