"""Runs that are gone on with from damaged or odd states, and on machines that fail or changed."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from stylegan_mix import checkpoint
from stylegan_mix.errors import InvalidInput, MissingEnvironment, Stopped
from stylegan_mix.session import Session
from trainer.engine import loop
from trainer.engine.folder import CHECKPOINT
from trainer.engine.run import run_recipe
from trainer.spec import DataSpec, RunSpec

SPEC = RunSpec(
    data=DataSpec("digits_lt", imbalance=20.0, profile="exp"),
    model="resnet8",
    epochs=2,
    bn_refresh_batches=1,
)


class Said:
    """A reporter that keeps what is said."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    def say(self, text: str) -> None:
        self.lines.append(text)

    def track(self, *given: Any, **named: Any) -> Any:
        from stylegan_mix.progress import SILENT

        return SILENT.track(*given, **named)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that was stopped after four of its six steps; tests work on copies."""

    class AfterFour:
        looks = 4

        @property
        def requested(self) -> str | None:
            self.looks -= 1
            return "minutes" if self.looks < 0 else None

        def failure(self, *, saved: bool, what: str) -> Stopped:
            return Stopped(what)

    folder = tmp_path_factory.mktemp("made") / "run"
    with pytest.raises(Stopped):
        run_recipe(SPEC, folder, session=Session(AfterFour()), checkpoint_seconds=0)
    return folder


@pytest.fixture
def stopped(made: Path, home: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(made, tmp_path / "run"))


def saved(folder: Path) -> list[Path]:
    """The checkpoints of a run, the newest first."""
    return sorted((folder / "checkpoints").glob("step-*"), reverse=True)


def flip(folder: Path) -> None:
    """Changes one byte in the middle of a checkpoint's numbers."""
    path = max(folder.iterdir(), key=lambda one: one.stat().st_size)
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.chmod(0o644)
    path.write_bytes(content)


def go_on(folder: Path, spec: RunSpec = SPEC) -> tuple[dict[str, Any], list[str]]:
    said = Said()
    found = run_recipe(spec, folder, session=Session(reporter=said))
    return found, said.lines


def test_a_damaged_checkpoint_gives_way_to_the_one_before(stopped: Path, tmp_path: Path) -> None:
    whole, _ = go_on(Path(shutil.copytree(stopped, tmp_path / "whole")))
    flip(saved(stopped)[0])
    found, said = go_on(stopped)
    assert [line for line in said if "damaged checkpoint, trying the one before" in line]
    for name in ("accuracy", "confusion", "diagnostics"):
        assert found[name] == whole[name]


def test_if_every_checkpoint_is_damaged_the_remedy_is_named(stopped: Path) -> None:
    for one in saved(stopped):
        flip(one)
    with pytest.raises(InvalidInput, match=r"every checkpoint in .* is damaged") as error:
        go_on(stopped)
    assert "move that folder away" in str(error.value.remedy)
    shutil.move(stopped / "checkpoints", stopped / "aside")
    assert go_on(stopped)[0]["accuracy"]


def altered(folder: Path, change: Callable[[dict[str, Any], dict[str, Any]], Any]) -> None:
    """Replaces the checkpoints by one of the same hash rules that holds something else."""
    newest, before = saved(folder)
    state, facts = checkpoint.load(newest, kind=CHECKPOINT)
    change(state, facts)
    shutil.rmtree(before)
    shutil.rmtree(newest)
    checkpoint.save(newest, state, kind=CHECKPOINT, facts=facts)


def first(state: dict[str, Any]) -> str:
    return next(iter(state["model"]))


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (lambda state, facts: state["model"].pop(first(state)), 'Missing key(s) in state_dict: "'),
        (
            lambda state, facts: state["model"].update(more=torch.ones(1)),
            'Unexpected key(s) in state_dict: "more"',
        ),
        (
            lambda state, facts: state["model"].update({first(state): torch.ones(2)}),
            "size mismatch for stem.weight",
        ),
        (lambda state, facts: state.pop("momentum"), "momentum"),
        (lambda state, facts: state["momentum"].update({999: torch.ones(1)}), "999"),
        (
            lambda state, facts: state.update(epoch_sums=torch.zeros(1, 2, dtype=torch.float64)),
            "a tensor has shape [1, 2], not [2, 2]",
        ),
        (lambda state, facts: state.pop("history"), "history"),
        (lambda state, facts: facts.update(step=7), "step 7 of 6"),
        (lambda state, facts: facts.update(step="4"), "step"),
    ],
    ids=["missing", "more", "shape", "no momentum", "momentum", "sums", "history", "step", "type"],
)
def test_a_checkpoint_that_does_not_fit_is_refused_by_what_does_not(
    change: Any, told: str, stopped: Path
) -> None:
    altered(stopped, change)
    with pytest.raises(InvalidInput, match="is not one of this run") as error:
        go_on(stopped)
    assert told in str(error.value)
    assert "move" in str(error.value.remedy)
    assert json.loads((stopped / "run.json").read_text())["status"] == "failed"


@pytest.mark.parametrize("name", ["torch", "device"])
def test_another_environment_is_told_and_gone_on_in(name: str, stopped: Path) -> None:
    path = stopped / "env.json"
    environment = json.loads(path.read_text())
    path.write_text(json.dumps({**environment, name: "another"}))
    _, said = go_on(stopped)
    (line,) = [one for one in said if "begun with other" in one]
    assert f"{name} (another, now {environment[name]})" in line
    assert json.loads(path.read_text())[name] == environment[name]


@pytest.mark.parametrize("content", ["[]", "{"])
def test_a_damaged_note_of_the_environment_stops_nothing(content: str, stopped: Path) -> None:
    (stopped / "env.json").write_text(content)
    assert go_on(stopped)[0]["accuracy"]


def test_the_same_environment_is_not_spoken_of(stopped: Path) -> None:
    assert not [one for one in go_on(stopped)[1] if "begun with" in one]


@pytest.mark.skipif(not Path("/sys/kernel").is_dir(), reason="nothing here refuses root a folder")
def test_checkpoints_that_cannot_be_written_end_the_run_with_code_4(
    home: Path, tmp_path: Path
) -> None:
    """The kernel's own folder takes no file of any user, root too."""
    folder = tmp_path / "run"
    folder.mkdir()
    (folder / "checkpoints").symlink_to("/sys/kernel")
    with pytest.raises(MissingEnvironment, match="checkpoints"):
        run_recipe(SPEC, folder, checkpoint_seconds=0)
    assert json.loads((folder / "run.json").read_text())["status"] == "failed"
    assert not (folder / "result.json").exists()


def failing(monkeypatch: pytest.MonkeyPatch, error: Exception, at: int) -> None:
    """Lets the step number `at` of a training fail."""
    whole, steps = loop.one_step, iter(range(1, 1000))

    def step(*given: Any) -> Any:
        if next(steps) == at:
            raise error
        return whole(*given)

    monkeypatch.setattr(loop, "one_step", step)


@pytest.mark.parametrize(
    ("error", "told", "remedy"),
    [
        (
            torch.OutOfMemoryError("CUDA out of memory. Tried 9 GiB\nand more"),
            "out of memory, with batches of 128 in 1 process(es): CUDA out of memory. Tried 9 GiB",
            "--batch 64",
        ),
        (
            RuntimeError("CUDA error: an illegal memory access was encountered\nCompile with"),
            "the GPU failed: CUDA error: an illegal memory access was encountered",
            "the same command goes on from the saved state, on a sound GPU",
        ),
    ],
    ids=["memory", "device"],
)
def test_a_machine_that_fails_ends_the_run_with_code_4_and_it_goes_on(
    error: Exception,
    told: str,
    remedy: str,
    home: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    folder = tmp_path / "run"
    with monkeypatch.context() as patch:
        failing(patch, error, 4)
        with pytest.raises(MissingEnvironment) as found:
            run_recipe(SPEC, folder, checkpoint_seconds=0)
    assert str(found.value) == told
    assert remedy in str(found.value.remedy)
    note = json.loads((folder / "run.json").read_text())
    assert (note["status"], note["exit_code"]) == ("failed", 4)
    assert saved(folder)[0].name == "step-000000003"
    assert run_recipe(SPEC, folder)["accuracy"]


def test_an_error_of_ours_stays_one(
    home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    failing(monkeypatch, RuntimeError("shapes do not match"), 2)
    with pytest.raises(RuntimeError, match="shapes do not match"):
        run_recipe(SPEC, tmp_path / "run")


# Surroundings that must not change a number

_KEPT = """
import json, sys
from pathlib import Path
import torch
torch.set_num_threads(1)
from trainer.engine.run import run_recipe
from trainer.spec import RunSpec
found = run_recipe(RunSpec.from_plain(json.loads(sys.argv[1])), Path(sys.argv[2]))
kept = ("accuracy", "confusion", "config", "diagnostics", "dataset")
print(json.dumps([found[name] for name in kept]))
"""


def test_hash_seed_locale_and_time_zone_change_no_number(
    home: Path, tmp_path: Path, repo_root: Path
) -> None:
    """Sets and dictionaries are in another order in each of the two processes."""
    places = [
        {"PYTHONHASHSEED": "1", "TZ": "UTC", "LC_ALL": "C.UTF-8"},
        {"PYTHONHASHSEED": "4242", "TZ": "Asia/Kathmandu", "LC_ALL": "de_DE.UTF-8"},
    ]
    running = [
        subprocess.Popen(
            [sys.executable, "-c", _KEPT, json.dumps(SPEC.plain()), str(tmp_path / str(number))],
            env={**os.environ, "PYTHONPATH": str(repo_root), **place},
            stdout=subprocess.PIPE,
            text=True,
        )
        for number, place in enumerate(places)
    ]
    first, second = (one.communicate(timeout=600)[0] for one in running)
    assert first and first == second
