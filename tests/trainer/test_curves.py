"""Events for TensorBoard: each epoch once, also after a stop, and never the end of a run."""

from __future__ import annotations

import builtins
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from stylegan_mix.errors import MissingEnvironment
from stylegan_mix.session import Session
from trainer import curves, workers
from trainer.curves import EventFile, of_books, of_scores, require_tensorboard
from trainer.engine import loop

GROUPS = ("many", "medium", "few")
RUN = ("run", "--dataset", "digits_lt", "--epochs", "3", "--bn-refresh-batches", "1")
RUN += ("--eval-every", "1", "--threads", "1", "--device", "cpu", "--tensorboard", "events")


@pytest.fixture
def library() -> Any:
    return pytest.importorskip("tensorboard", reason="the extra tensorboard is not installed")


class Said:
    """A reporter that keeps what is said."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    def say(self, text: str) -> None:
        self.lines.append(text)


def read(folder: Path) -> dict[str, list[tuple[int, float]]]:
    """The points of each curve, (step, value), as TensorBoard shows them."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    found = EventAccumulator(str(folder))
    found.Reload()
    tags = found.Tags()["scalars"]
    return {tag: [(one.step, one.value) for one in found.Scalars(tag)] for tag in tags}


def test_every_epoch_has_its_loss_its_rate_and_its_accuracies(
    library: Any, home: Path, trainer: Any
) -> None:
    code, _, err = trainer(*RUN, "--aug", "mixup")
    assert code == 0, err
    (run,) = Path("runs").glob("*/seed-0")
    found = read(Path("events", *run.parts[-2:]))
    events = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    steps = [event["step"] for event in events]
    names = ["accuracy/overall", "accuracy/balanced", *(f"accuracy/{name}" for name in GROUPS)]
    assert set(found) == {f"train/{name}" for name in ("lr", "loss", "loss/real", *names)}
    for tag, points in found.items():
        assert [step for step, _ in points] == steps, tag
    for name, key in (("loss", "loss"), ("loss/real", "loss_real"), ("lr", "lr")):
        assert [value for _, value in found[f"train/{name}"]] == pytest.approx(
            [event[key] for event in events]
        )
    record = json.loads((run / "result.json").read_text())
    for name in (*GROUPS, "overall", "balanced"):
        last = found[f"train/accuracy/{name}"][-1][1]
        assert last == pytest.approx(record["accuracy"][name])


def test_sources_and_stages_have_curves_of_their_own() -> None:
    event = {"stage": "student", "lr": 0.1, "loss": 2.0, "loss_real": 1.5, "loss_bank": 2.5}
    event |= {"epoch": 1, "step": 4, "accuracy": None, "loss_real-2": None}
    assert of_books(event) == {
        "student/lr": 0.1,
        "student/loss": 2.0,
        "student/loss/real": 1.5,
        "student/loss/bank": 2.5,
    }
    scores = {"overall": 50.0, "few": None, "per_class": [1.0]}
    assert of_scores("student", scores) == {"student/accuracy/overall": 50.0}


def test_what_is_done_again_after_a_stop_is_shown_once(library: Any, tmp_path: Path) -> None:
    for begun, last in ((0, 5), (3, 6), (4, 8)):  # twice it goes on from an older state
        one = EventFile(tmp_path, Session())
        one.begin(begun)
        for step in range(begun + 1, last + 1):
            one.add(step, {"train/loss": begun + step})
    expected = [
        *((step, step) for step in (1, 2, 3)),
        (4, 7.0),
        *((s, 4.0 + s) for s in (5, 6, 7, 8)),
    ]
    assert read(tmp_path)["train/loss"] == expected


def test_a_resumed_run_has_each_epoch_once(
    library: Any, home: Path, trainer: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole, steps = loop.one_step, iter(range(100))

    def broken(*given: Any) -> Any:
        if next(steps) == 4:
            raise KeyboardInterrupt
        return whole(*given)

    monkeypatch.setattr(loop, "one_step", broken)
    assert trainer(*RUN)[0] == 130
    monkeypatch.setattr(loop, "one_step", whole)
    assert trainer(*RUN)[0] == 0
    (run,) = Path("runs").glob("*/seed-0")
    folder = Path("events", *run.parts[-2:])
    assert len(list(folder.iterdir())) == 2
    assert [step for step, _ in read(folder)["train/loss"]] == [3, 6, 9]


@pytest.fixture
def unwritable(tmp_path: Path) -> Iterator[Path]:
    place = tmp_path / "file"
    place.write_text("")
    yield place


def test_a_folder_that_cannot_be_made_is_a_warning(
    library: Any, unwritable: Path, home: Path, trainer: Any
) -> None:
    words = ("--tensorboard", str(unwritable))
    code, _, err = trainer(*RUN[:-2], *words)
    assert code == 0
    assert err.count("warning: no more events for TensorBoard in") == 1
    assert "the run goes on without them" in err


def test_a_disk_that_fills_up_is_a_warning_once(library: Any, tmp_path: Path) -> None:
    """/dev/full takes nothing; TensorBoard's own writer would wait for it for ever."""
    if not Path("/dev/full").exists():
        pytest.skip("there is no /dev/full here")
    said = Said()
    one = EventFile(tmp_path, Session(reporter=said))  # type: ignore[arg-type]
    one.begin(0)
    one._file = Path("/dev/full")
    for step in (1, 2):
        one.add(step, {"train/loss": 1.0})
    (line,) = said.lines
    assert "No space left on device" in line


def test_an_error_inside_the_library_is_a_warning(
    home: Path, trainer: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = builtins.__import__

    def broken(name: str, *given: Any, **more: Any) -> Any:
        if name.startswith("tensorboard"):
            raise RuntimeError("its protocol buffers are of another age")
        return real(name, *given, **more)

    monkeypatch.setattr(curves, "find_spec", lambda name: object())
    monkeypatch.setattr(builtins, "__import__", broken)
    code, _, err = trainer(*RUN)
    assert code == 0, err
    assert err.count("RuntimeError: its protocol buffers are of another age") == 1


def test_without_the_library_the_extra_is_named(
    home: Path, tmp_path: Path, trainer: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(curves, "find_spec", lambda name: None)
    with pytest.raises(MissingEnvironment, match="tensorboard, which is not installed"):
        require_tensorboard()
    Path("grid.toml").write_text('[[runs]]\ndataset = "digits_lt"\n')
    for words in (RUN, ("sweep", "grid.toml", "--tensorboard", "events")):
        code, _, err = trainer(*words)
        assert code == 4
        assert "pip install 'stylegan-mix[tensorboard]'" in err
    assert not Path("runs").exists()


def test_the_runs_of_a_sweep_have_folders_of_their_own(
    library: Any, home: Path, trainer: Any
) -> None:
    text = (
        '[base]\ndataset = "digits_lt"\nepochs = 1\nbn-refresh-batches = 1\n[[runs]]\nseeds = 2\n'
    )
    Path("grid.toml").write_text(text)
    words = ("sweep", "grid.toml", "--device", "cpu", "--tensorboard", "events")
    code, _, err = trainer(*words)
    assert code == 0, err
    folders = sorted(path for path in Path("events").glob("*/*"))
    assert [path.name for path in folders] == ["seed-0", "seed-1"]
    assert all(read(path)["train/loss"] for path in folders)


def test_a_run_in_a_process_of_its_own_is_told_the_folder(
    home: Path, trainer: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    def started(words: list[str], **_: Any) -> Any:
        raise MissingEnvironment(" ".join(words))

    monkeypatch.setattr(curves, "find_spec", lambda name: object())
    monkeypatch.setattr(workers.subprocess, "Popen", started)
    Path("grid.toml").write_text('[[runs]]\ndataset = "digits_lt"\n')
    code, _, err = trainer("sweep", "grid.toml", "--workers", "2", "--tensorboard", "events")
    assert code == 4
    assert f"--tensorboard {Path('events').absolute()}" in err


def test_nothing_of_it_is_imported_unless_it_is_asked_for(
    home: Path, trainer: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, taken = builtins.__import__, []

    def noted(name: str, *given: Any, **more: Any) -> Any:
        taken.append(name)
        return real(name, *given, **more)

    monkeypatch.setattr(builtins, "__import__", noted)
    assert trainer(*RUN[:-2], "--epochs", "1")[0] == 0
    assert not [name for name in taken if "tensorboard" in name]
