"""Runs in processes of their own that are killed or terminated at any moment."""

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

import numpy as np
import pytest

from trainer.spec import BankRef, DataSpec, RunSpec, VoteSpec

SPEC = RunSpec(
    data=DataSpec("digits_lt", imbalance=20.0, profile="exp"),
    aug="hybrid",
    bank=BankRef("", "", "", "w", ""),
    model="resnet8",
    epochs=4,
    bn_refresh_batches=2,
)

CHILD = """
import sys, json, torch
from pathlib import Path
torch.set_num_threads(1)
from stylegan_mix.session import Session
from stylegan_mix.stopping import StopSignals
from trainer.engine.run import run_recipe
from trainer.spec import RunSpec
spec = RunSpec.from_plain(json.loads(sys.argv[1]))
with StopSignals() as stop:
    seconds = float(sys.argv[3])
    run_recipe(spec, Path(sys.argv[2]), session=Session(stop), checkpoint_seconds=seconds)
"""


PATIENCE = 600  # seconds after which a process hangs, on the slowest machine


def child(spec: RunSpec, folder: Path, every: float) -> subprocess.Popen[bytes]:
    arguments = [json.dumps(spec.plain()), str(folder), str(every)]
    return subprocess.Popen(
        [sys.executable, "-c", CHILD, *arguments],
        cwd=Path(__file__).resolve().parents[3],
        stderr=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": "."},
    )


def newest_step(folder: Path) -> int:
    steps = (folder / "checkpoints").glob("step-*")
    return max((int(path.name.removeprefix("step-")) for path in steps), default=0)


def kill_at(spec: RunSpec, folder: Path, step: int) -> None:
    """Starts or resumes the run and kills it when a checkpoint of `step` or later is there."""
    process = child(spec, folder, every=0)
    limit = time.monotonic() + PATIENCE
    while newest_step(folder) < step:
        assert process.poll() is None, process.stderr.read().decode()  # type: ignore[union-attr]
        assert time.monotonic() < limit
        time.sleep(0.001)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    assert process.returncode == -signal.SIGKILL


def survives(spec: RunSpec, tmp_path: Path, steps: list[int], require_same: Any) -> None:
    for step in steps:
        kill_at(spec, tmp_path / "killed", step)
    for name in ("killed", "whole"):
        process = child(spec, tmp_path / name, every=1e9)
        _, errors = process.communicate(timeout=PATIENCE)
        assert process.returncode == 0, errors.decode()
    require_same(tmp_path / "killed", tmp_path / "whole")


def test_a_killed_run_ends_with_the_bytes_of_an_undisturbed_one(
    bank: BankRef, home: Path, require_same: Any, tmp_path: Path
) -> None:
    draws = np.random.default_rng()  # any moment: a failure prints them
    steps = sorted(int(step) for step in draws.integers(1, 11, 2))
    print("killed at steps", steps)
    survives(replace(SPEC, bank=bank), tmp_path, steps, require_same)


@pytest.mark.slow
def test_a_killed_run_of_many_stages_ends_with_the_same_bytes(
    bank: BankRef, home: Path, require_same: Any, tmp_path: Path
) -> None:
    draws = np.random.default_rng()
    steps = sorted(int(step) for step in draws.integers(1, 23, 6))
    print("killed at steps", steps)
    spec = replace(SPEC, recipe="patched-one-hot", votes=VoteSpec(views=4), bank=bank)
    survives(spec, tmp_path, steps, require_same)


def test_sigterm_saves_and_the_same_command_goes_on(
    bank: BankRef, home: Path, tmp_path: Path
) -> None:
    spec = replace(SPEC, bank=bank, epochs=60)
    process = child(spec, tmp_path / "run", every=0)
    limit = time.monotonic() + PATIENCE
    while newest_step(tmp_path / "run") < 3 and time.monotonic() < limit:
        time.sleep(0.01)
    process.terminate()
    _, errors = process.communicate(timeout=PATIENCE)
    assert b"Stopped" in errors and b"step" in errors
    note = json.loads((tmp_path / "run/run.json").read_text())
    assert (note["status"], note["exit_code"]) == ("stopped", 75)
    assert newest_step(tmp_path / "run") >= 3
