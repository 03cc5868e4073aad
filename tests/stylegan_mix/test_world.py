"""Training in several processes is training in one, but for the order of sums."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from stylegan_mix import checkpoint
from stylegan_mix.errors import MissingEnvironment, UsageFailure
from stylegan_mix.generators.store import GENERATOR_KIND
from stylegan_mix.world import World, joined

PATIENCE = 600  # seconds after which a process hangs, on the slowest machine

# Everything that looks across the batch: minibatch-std, twins, path length, LeCam, averages.
EVERYTHING = [
    *("--kimg", "0.32", "--augment", "color,translation,cutout", "--twins", "0.01"),
    *("--gsr", "0.5", "--lecam", "0.1", "--path-weight", "2", "--path-interval", "4"),
    *("--style-mixing", "0.9", "--more-ema", "2", "--r1-interval", "3"),
]


def _train(
    home: Path, repo_root: Path, processes: int, *extra: str
) -> subprocess.CompletedProcess[str]:
    launcher = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(processes)]
    command = [
        *(sys.executable, *(launcher if processes > 1 else []), "-m", "stylegan_mix", "train"),
        *("--dataset", "digits_lt", "--threads", "1", "--json", *EVERYTHING, *extra),
    ]
    environment = {
        **os.environ,
        "PYTHONPATH": str(repo_root),
        "STYLEGAN_MIX_HOME": str(home),
        "KERNELS": "reference",
    }
    return subprocess.run(command, env=environment, capture_output=True, text=True)


def _outcome(home: Path, printed: str) -> tuple[dict[str, Any], dict[str, torch.Tensor]]:
    folder = Path(json.loads(printed)["folder"])
    weights, card = checkpoint.load(folder, kind=GENERATOR_KIND)
    (log,) = (home / "training" / card["training"]).glob("metrics.jsonl")
    (line,) = log.read_text().splitlines()
    return json.loads(line), weights


@pytest.mark.slow
def test_two_processes_train_what_one_trains(tmp_path: Path, repo_root: Path) -> None:
    lines, weights = [], []
    for processes in (1, 2):
        home = tmp_path / str(processes)
        done = _train(home, repo_root, processes)
        assert done.returncode == 0, done.stderr
        assert done.stderr.count("preset tiny8") == 1
        line, state = _outcome(home, done.stdout)
        lines.append(line)
        weights.append(state)
    for name in ("loss_g", "loss_d", "r1", "twins", "gsr", "path_length"):
        assert lines[1][name] == pytest.approx(lines[0][name], rel=1e-4), name
    for name, value in weights[0].items():
        # Adam divides by the size of a gradient: where that is nearly 0, sums in another order
        # may move a weight another way. Most must agree closely.
        apart = (value - weights[1][name]).abs()
        assert float(apart.quantile(0.9)) <= 1e-4 * max(float(value.abs().max()), 1.0), name


@pytest.mark.slow
def test_a_killed_process_ends_the_others_with_code_4(tmp_path: Path, repo_root: Path) -> None:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        port = one.getsockname()[1]
    environment = {
        **os.environ,
        "PYTHONPATH": str(repo_root),
        "KERNELS": "reference",
        "WORLD_SIZE": "2",
        "STYLEGAN_MIX_HOME": str(tmp_path),
        "MASTER_ADDR": "127.0.0.1",
    }
    command = [sys.executable, "-m", "stylegan_mix", "train", "--dataset", "digits_lt"]
    command += ["--threads", "1", "--kimg", "40"]
    first, second = (
        subprocess.Popen(
            command,
            env={**environment, "MASTER_PORT": str(port), "RANK": rank, "LOCAL_RANK": rank},
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in "01"
    )
    patience = time.monotonic() + PATIENCE
    while not list(tmp_path.glob("training/*/metrics.jsonl")) and first.poll() is None:
        assert time.monotonic() < patience, "two processes did not begin to train"
        time.sleep(0.2)
    second.kill()
    _, said = first.communicate(timeout=PATIENCE)
    second.communicate()
    assert first.returncode == 4, said
    assert "process 0 of 2 no longer hears the others" in said


def _launched(
    tmp_path: Path, repo_root: Path, script: str, *words: str, **environment: str
) -> subprocess.Popen[str]:
    """A script that torchrun has started in two processes."""
    path = tmp_path / "script.py"
    path.write_text(script)
    launcher = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    return subprocess.Popen(
        [sys.executable, *launcher, str(path), *words],
        env={**os.environ, "PYTHONPATH": str(repo_root), **environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


_BREAKS = """
import os, sys
from stylegan_mix import cli
from stylegan_mix.training import losses

whole, calls = losses.spot_real_loss, 0

def broken(logits):
    global calls
    calls += 1
    lost = os.environ["RANK"] == "1" and calls >= 8
    return whole(logits) * (float("nan") if lost else 1.0)

losses.spot_real_loss = broken
cli.main()
"""


_STOPS = """
import os, signal
from stylegan_mix import cli
from stylegan_mix.training import loop

step, steps = loop.train_step, 0

def stopping(*words):
    global steps
    steps += 1
    if os.environ["RANK"] == "0" and steps == 3:
        os.kill(os.getpid(), signal.SIGTERM)
    return step(*words)

loop.train_step = stopping
cli.main()
"""


@pytest.mark.slow
def test_processes_stop_together_and_go_on(tmp_path: Path, repo_root: Path) -> None:
    home = tmp_path / "store"
    store = {"STYLEGAN_MIX_HOME": str(home), "KERNELS": "reference"}
    train = ("train", "--dataset", "digits_lt", "--threads", "1", *EVERYTHING, "--kimg", "1")
    _, said = _launched(tmp_path, repo_root, _STOPS, *train, **store).communicate(timeout=PATIENCE)
    # The leader answers for all, with code 75, which torchrun turns into its own.
    assert said.count("stopped (") == 1, said
    # Whether another has left by then, or torchrun ends it on its way out, is a matter of time.
    assert said.count("exitcode  : 75") == 1, said
    _, _, cause = said.partition("Root Cause")
    assert re.search(r"rank +: 0 .*\n +exitcode +: 75 ", cause), said
    (folder,) = (home / "training").glob("*/checkpoints")
    assert len(list(folder.glob("step-*"))) >= 1
    done = _train(home, repo_root, 2, "--kimg", "1")
    assert done.returncode == 0, done.stderr
    assert "going on from" in done.stderr


@pytest.mark.slow
@pytest.mark.parametrize(
    ("number", "word"),
    [
        (signal.SIGHUP, "stopped (SIGHUP)"),
        (signal.SIGQUIT, "stopped (SIGQUIT)"),
        (signal.SIGINT, "interrupted"),
    ],
)
def test_a_signal_to_torchrun_saves_and_is_told_once(
    tmp_path: Path, repo_root: Path, number: signal.Signals, word: str
) -> None:
    home = tmp_path / "store"
    store = {"STYLEGAN_MIX_HOME": str(home), "KERNELS": "reference"}
    train = ("train", "--dataset", "digits_lt", "--threads", "1", "--channel-max", "8")
    train += ("--kimg", "2000", "--save-minutes", "1000")  # only the signal saves
    code = "from stylegan_mix import cli; cli.main()"
    running = _launched(tmp_path, repo_root, code, *train, **store)
    until = time.monotonic() + PATIENCE
    while not list(home.glob("training/*/plan.json")) and running.poll() is None:
        assert time.monotonic() < until, "two processes did not begin to train"
        time.sleep(0.2)
    assert not list(home.glob("training/*/checkpoints/step-*"))
    running.send_signal(number)
    _, said = running.communicate(timeout=PATIENCE)
    assert said.count(f"{word}: at ") == 1, said
    assert said.count("  run the same command to go on") == 1, said
    assert list(home.glob("training/*/checkpoints/step-*")), said


@pytest.mark.slow
def test_a_loss_that_is_no_number_in_one_process_ends_all_with_code_5(
    tmp_path: Path, repo_root: Path
) -> None:
    store = {"STYLEGAN_MIX_HOME": str(tmp_path / "store"), "KERNELS": "reference"}
    train = ("train", "--dataset", "digits_lt", "--threads", "1", "--kimg", "20")
    _, err = _launched(tmp_path, repo_root, _BREAKS, *train, **store).communicate(timeout=PATIENCE)
    _, _, cause = err.partition("Root Cause")
    assert re.search(r"rank +: 0 .*\n +exitcode +: 5 ", cause), err
    assert err.count("again, after it had been taken back once") == 1, err
    log = next((tmp_path / "store").glob("training/*/events.jsonl"))
    assert [json.loads(line)["event"] for line in log.read_text().splitlines()].count("lost") == 2


@pytest.mark.parametrize(
    "call",
    [
        lambda world: world.sum(torch.ones(2)),
        lambda world: world.barrier(),
        lambda world: world.all_rows(torch.ones(2, 1)),
        lambda world: world.check_same([("w", torch.ones(2))]),
        lambda world: world.reduce_gradients([_with_gradient()]),
    ],
)
def test_a_process_that_no_longer_answers_is_no_bug_of_ours(
    call: Callable[[World], object], monkeypatch: pytest.MonkeyPatch
) -> None:
    def silent(*_: object, **__: object) -> None:
        raise RuntimeError("Connection closed by peer\nand more")

    for name in ("all_reduce", "all_gather", "barrier"):
        monkeypatch.setattr(torch.distributed, name, silent)
    with pytest.raises(MissingEnvironment, match=r"process 1 of 2 no longer.*closed by peer$"):
        call(World(1, 2))


_APART = """
import math, os, sys, torch
from stylegan_mix.errors import Failure
from stylegan_mix.world import joined

with joined("cpu") as world:
    own = torch.arange(4.0)
    none = torch.full((2,), math.nan)
    world.check_same([("a", torch.ones(3)), ("none", none), ("b", own)])
    for changed in (own + 1e-6 * world.rank, own if world.rank else none):
        try:
            world.check_same([("a", torch.ones(3)), ("b", changed), ("none", none)])
        except Failure as error:
            print(error)
"""


def test_processes_that_hold_other_weights_are_told_apart_by_name(
    tmp_path: Path, repo_root: Path
) -> None:
    running = _launched(tmp_path, repo_root, _APART)
    out, err = running.communicate()
    assert running.returncode == 0, err
    said = "the 2 processes of this training hold different weights, in 1 of 3 tensors, first b"
    assert out.count(said) == 4, out


_LEAVES = """
from pathlib import Path
import torch
from stylegan_mix.world import joined

def threads():
    return [path.read_text().strip() for path in Path("/proc/self/task").glob("*/comm")]

with joined("cpu") as world:
    world.barrier()
    inside = threads()
    weight = torch.nn.Parameter(torch.ones(3))
    weight.grad = torch.ones(3)
    torch.optim.Adam([weight]).step()
print(sum("gloo" in one for one in inside) > 0, [one for one in threads() if "gloo" in one])
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="Linux names the threads")
def test_nothing_of_the_others_is_left_behind(tmp_path: Path, repo_root: Path) -> None:
    """A thread of theirs at the end of the interpreter could abort what has finished."""
    out, err = _launched(tmp_path, repo_root, _LEAVES).communicate()
    assert out.count("True []") == 2, out + err


_WAITS = """
from datetime import timedelta
from stylegan_mix.errors import Failure
from stylegan_mix.stopping import StopSignals
from stylegan_mix import world

world._START = timedelta(seconds=SECONDS)
try:
    with StopSignals() as stop, world.joined("cpu", stop):
        print("joined")
except Failure as error:
    print(type(error).__name__, error)
"""


def alone(tmp_path: Path, repo_root: Path, rank: int, patience: int) -> subprocess.Popen[str]:
    """Process `rank` of four that waits for the others."""
    script = tmp_path / "waits.py"
    script.write_text(_WAITS.replace("SECONDS", f"{patience}"))
    with socket.socket() as free:
        free.bind(("localhost", 0))
        port = free.getsockname()[1]
    place = {"RANK": f"{rank}", "WORLD_SIZE": "4", "MASTER_ADDR": "localhost"}
    return subprocess.Popen(
        [sys.executable, str(script)],
        env={**os.environ, **place, "MASTER_PORT": f"{port}", "PYTHONPATH": str(repo_root)},
        stdout=subprocess.PIPE,
        text=True,
    )


@pytest.mark.parametrize(
    ("rank", "said"),
    [
        (0, "process 0 of 4 waited 2 s for others that never came: 1, 2, 3"),
        (2, "process 2 of 4 waited 2 s for process 0 at localhost:"),
    ],
)
def test_processes_that_never_come_are_named(
    tmp_path: Path, repo_root: Path, rank: int, said: str
) -> None:
    told, _ = alone(tmp_path, repo_root, rank, patience=2).communicate(timeout=PATIENCE)
    assert told.startswith(f"MissingEnvironment {said}")


@pytest.mark.parametrize("rank", [0, 2])
def test_a_signal_ends_the_wait_for_the_others(tmp_path: Path, repo_root: Path, rank: int) -> None:
    waiting = alone(tmp_path, repo_root, rank, patience=3600)
    status = Path(f"/proc/{waiting.pid}/status")
    until = time.monotonic() + PATIENCE
    while not _handles(status, signal.SIGUSR1) and time.monotonic() < until:
        time.sleep(0.05)
    waiting.send_signal(signal.SIGTERM)
    told, _ = waiting.communicate(timeout=PATIENCE)
    assert told.startswith("Interrupted interrupted: the processes had not met")


def _handles(status: Path, number: int) -> bool:
    """Whether the process handles a signal, by what Linux says of it."""
    caught = re.search(r"SigCgt:\s*([0-9a-f]+)", status.read_text())
    return caught is not None and bool(int(caught[1], 16) >> (number - 1) & 1)


_LEFT = """
import os, signal, sys, time
from pathlib import Path
from stylegan_mix.world import joined

def note(number, frame):
    Path(sys.argv[1], os.environ["RANK"]).touch()
    os._exit(0)

with joined("cpu"):
    signal.signal(signal.SIGTERM, note)
    Path(sys.argv[1], "ready" + os.environ["RANK"]).touch()
    time.sleep(3600)
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="Linux tells a process so")
def test_processes_whose_torchrun_is_killed_are_told_to_stop(
    tmp_path: Path, repo_root: Path
) -> None:
    running = _launched(tmp_path, repo_root, _LEFT, str(tmp_path))
    _wait_for(tmp_path / "ready0", tmp_path / "ready1")
    running.kill()
    _wait_for(tmp_path / "0", tmp_path / "1")
    running.communicate()


def _wait_for(*paths: Path) -> None:
    until = time.monotonic() + PATIENCE
    while not all(path.exists() for path in paths):
        assert time.monotonic() < until, f"{paths} never came"
        time.sleep(0.05)


def test_a_rank_that_is_none_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setenv("RANK", "2")
    with pytest.raises(UsageFailure, match="RANK=2 is no process of WORLD_SIZE=2"), joined("cpu"):
        pass


def test_the_number_of_processes_must_be_a_number(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORLD_SIZE", "two")
    wanted = pytest.raises(UsageFailure, match="WORLD_SIZE must be a whole number, got 'two'")
    with wanted, joined("cpu"):
        pass


def _with_gradient() -> torch.nn.Parameter:
    parameter = torch.nn.Parameter(torch.ones(2))
    parameter.grad = torch.ones(2)
    return parameter


def test_a_batch_that_does_not_fit_the_processes_is_refused() -> None:
    World(0, 2).check_batch(64, 32)
    with pytest.raises(UsageFailure, match="must be a multiple of 96"):
        World(0, 3).check_batch(64, 32)
    World(0, 2).check_batch(8, 4)


def test_the_rows_of_all_processes_are_the_batch_and_groups_stay_whole() -> None:
    batch, size, group = 32, 2, 4
    rows = torch.arange(batch)
    own = [World(rank, size).own(rows) for rank in range(size)]
    assert torch.equal(torch.stack(own, dim=1).flatten(), rows)
    whole = {frozenset(rows[i :: batch // group].tolist()) for i in range(batch // group)}
    local = batch // size // group
    parts = {frozenset(part[i::local].tolist()) for part in own for i in range(local)}
    assert parts == whole


def test_alone_nothing_is_exchanged(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("RANK", raising=False)
    with joined("cpu") as world:
        assert (world.rank, world.size, world.leads) == (0, 1, True)
        rows = torch.randn(4, 2)
        assert world.all_rows(rows) is rows
        assert world.mean(rows) is rows
        assert world.own(rows) is rows
