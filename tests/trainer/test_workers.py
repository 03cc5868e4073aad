"""Runs of a sweep side by side: the results of one worker, stops, failures, lost parents."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from stylegan_mix.errors import Busy, Diverged, MissingEnvironment, Stopped
from stylegan_mix.session import Session
from stylegan_mix.stopping import StopSignals
from trainer import workers
from trainer.execute import How
from trainer.plan import Asked, Plan, decide

HOW = How("cpu", 1, {})
TINY = Asked(dataset="digits_lt", epochs=1, bn_refresh_batches=1)
GRID = """
[base]
dataset = "digits_lt"
epochs = 2
bn-refresh-batches = 1

[[runs]]
aug = ["none", "mixup"]
"""


def plans(*asked: Asked, out: Path) -> list[Plan]:
    return [decide(replace(one, out=str(out))) for one in asked]


def results(folder: Path) -> dict[str, Any]:
    """What every record holds besides clocks and machine, by its run."""
    found = {}
    for path in sorted(folder.rglob("result.json")):
        record = json.loads(path.read_text())
        kept = {name: record[name] for name in ("accuracy", "confusion", "config", "command")}
        kept["weights"] = record["diagnostics"]["weights_sha256"]
        found[path.parent.parent.name] = kept
    return found


def test_two_workers_give_the_results_of_one(home: Path, tmp_path: Path, trainer: Any) -> None:
    Path("grid.toml").write_text(GRID)
    words = ("sweep", "grid.toml", "--threads", "1", "--device", "cpu")
    assert trainer(*words, "--out", "one")[0] == 0
    code, _, err = trainer(*words, "--out", "two", "--workers", "2", "--results", "kept")
    assert code == 0
    assert "[mixup ce seed 0] seed 0: overall" in err
    assert err.count("kept: ") == 2
    assert results(Path("two")) == results(Path("one"))
    assert len(results(Path("one"))) == 2
    assert "2 have a result" in trainer(*words, "--workers", "2", "--results", "kept")[2]


def test_a_stop_is_handed_on_and_the_same_command_goes_on(home: Path, tmp_path: Path) -> None:
    long = [replace(TINY, epochs=5000, aug=aug) for aug in ("none", "mixup", None)]
    planned = plans(*long[:2], replace(TINY, seed=1), out=tmp_path / "runs")
    with StopSignals() as stop:
        work = workers.side_by_side(planned, workers=2, how=HOW, session=Session(stop))
        ended: list[int] = []

        def saved() -> bool:
            return len(list((tmp_path / "runs").rglob("metrics.jsonl"))) == 2

        # The generator looks at `stop` ten times a second: this stop comes once both have begun.
        monitor = _When(saved, lambda: os.kill(os.getpid(), signal.SIGTERM))
        with monitor, pytest.raises(Stopped, match="1 runs have not begun") as end:
            ended += [plan.spec.seed for plan, _ in work]
    assert ended == [] and end.value.code == 75
    notes = [json.loads(path.read_text()) for path in (tmp_path / "runs").rglob("run.json")]
    assert [(note["status"], note["exit_code"]) for note in notes] == [("stopped", 75)] * 2


class _When:
    """Does `act` in a thread once `ready` holds."""

    def __init__(self, ready: Any, act: Any) -> None:
        import threading

        def watch() -> None:
            while not ready():
                time.sleep(0.05)
            act()

        self._thread = threading.Thread(target=watch, daemon=True)

    def __enter__(self) -> None:
        self._thread.start()

    def __exit__(self, *_: object) -> None:
        self._thread.join(timeout=600)


def test_a_failure_comes_back_with_its_kind_and_words(home: Path, tmp_path: Path) -> None:
    wild, plain = plans(
        replace(TINY, lr=1000.0, warmup_epochs=0.0, epochs=30), TINY, out=tmp_path / "runs"
    )
    with StopSignals() as stop:
        work = workers.side_by_side([wild, plain], workers=2, how=HOW, session=Session(stop))
        ended = {plan.spec.lr: failure for plan, failure in work}
    assert ended[0.1] is None
    assert isinstance(ended[1000.0], Diverged)
    assert "none ce seed 0 (exit code 5): the loss was not finite at step" in str(ended[1000.0])


def test_a_failure_of_the_machine_ends_the_sweep_with_its_code(
    home: Path, tmp_path: Path, trainer: Any
) -> None:
    Path("grid.toml").write_text(GRID)
    code, _, err = trainer("sweep", "grid.toml", "--device", "cuda:99", "--workers", "2")
    assert code == MissingEnvironment.code
    assert "(exit code 4): --device cuda:99, but torch finds" in err


def test_runs_end_when_the_process_that_started_them_is_killed(home: Path, tmp_path: Path) -> None:
    code = (
        "import sys\nfrom pathlib import Path\nfrom trainer import workers\n"
        "from trainer.execute import How\nfrom trainer.plan import Asked, decide\n"
        "from stylegan_mix.session import Session\nfrom stylegan_mix.stopping import StopSignals\n"
        "asked = Asked(dataset='digits_lt', epochs=5000, bn_refresh_batches=1, out=sys.argv[1])\n"
        "with StopSignals() as stop:\n"
        "    list(workers.side_by_side([decide(asked)], workers=2, how=How('cpu', 1, {}), "
        "session=Session(stop)))\n"
    )
    parent = subprocess.Popen(
        [sys.executable, "-c", code, str(tmp_path / "runs")], stderr=subprocess.DEVNULL
    )
    note = (
        _await(lambda: next((tmp_path / "runs").rglob("metrics.jsonl"), None)).parent / "run.json"
    )
    parent.kill()
    parent.wait()
    _await(lambda: json.loads(note.read_text())["status"] == "stopped")
    assert json.loads(note.read_text())["exit_code"] == 75


def _await(found: Any, seconds: float = 600.0) -> Any:
    """The first true answer of `found`; fails after `seconds`, which only a hang takes."""
    until = time.monotonic() + seconds
    while not (answer := found()):
        assert time.monotonic() < until, "waited in vain"
        time.sleep(0.05)
    return answer


def test_threads_are_shared_by_the_workers_unless_asked_for(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(8)))
    assert [workers.threads_each(count, None) for count in (1, 2, 3, 16)] == [8, 4, 2, 1]
    assert workers.threads_each(2, 5) == 5


def test_runs_are_spread_over_the_gpus(
    home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import torch

    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    begun: list[str] = []
    start = workers.new_process

    def started(words: list[str], **named: Any) -> Any:
        begun.append(words[words.index("--device") + 1])
        return start(words, **named)

    monkeypatch.setattr(workers, "_START", "")
    monkeypatch.setattr(workers, "new_process", started)
    planned = plans(*(replace(TINY, seed=seed) for seed in range(3)), out=tmp_path / "runs")
    for asked, expected in (
        ("auto", ["cuda:0", "cuda:1", "cuda:0"]),
        ("cuda:1", ["cuda:1"] * 3),
        ("cpu", ["cpu"] * 3),
    ):
        begun.clear()
        how = replace(HOW, device=asked)
        list(workers.side_by_side(planned, workers=3, how=how, session=Session()))
        assert begun == expected


def test_a_run_that_the_system_ends_leaves_the_others_alone(
    home: Path, tmp_path: Path, trainer: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    Path("grid.toml").write_text(GRID)
    ends = "import os, sys\nif 'none' in sys.argv:\n    os.kill(os.getpid(), 9)\nsys.exit(5)"
    monkeypatch.setattr(workers, "_START", ends)
    code, _, err = trainer("sweep", "grid.toml", "--device", "cpu", "--workers", "2")
    assert code in (MissingEnvironment.code, Diverged.code)  # that of the first to end
    _, _, told = err.partition("2 of 2 runs failed:\n")
    assert "exit code 4: none ce seed 0 was ended by SIGKILL, as the system does if memory" in told
    assert "exit code 5: mixup ce seed 0" in told


@pytest.mark.parametrize(
    ("runs", "threads", "device", "gib", "expected"),
    [
        (20, None, "cpu", 64, 8),  # a run a core
        (3, None, "cpu", 64, 3),  # no more than there are
        (20, 4, "cpu", 64, 2),  # each with as many threads as asked for
        (20, 16, "cpu", 64, 1),
        (20, None, "cpu", 7, 3),  # no more than the memory holds
        (20, None, "cpu", 1, 1),
        (20, None, "cuda", 64, 1),  # a GPU is not shared
    ],
)
def test_without_a_number_of_workers_a_cpu_has_one_run_a_core(
    runs: int,
    threads: int | None,
    device: str,
    gib: int,
    expected: int,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda process: set(range(8)))
    monkeypatch.setattr(workers, "memory_bytes", lambda: gib << 30)
    assert workers.workers_for(runs, threads, device) == expected


@pytest.mark.parametrize(
    ("said", "kind"),
    [
        ("trainer: runs/x is being worked on by process 7 on vm", Busy),
        ("trainer: stopped (SIGTERM): at step 3", Stopped),
    ],
)
def test_a_run_that_another_process_had_is_busy_even_if_it_was_let_go_since(
    home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, said: str, kind: type
) -> None:
    monkeypatch.setattr(
        workers, "_START", f"import sys; print({said!r}, file=sys.stderr); sys.exit(75)"
    )
    (planned,) = plans(TINY, out=tmp_path / "runs")
    work = workers.side_by_side([planned], workers=1, how=HOW, session=Session())
    assert [type(failure) for _, failure in work] == [kind]
