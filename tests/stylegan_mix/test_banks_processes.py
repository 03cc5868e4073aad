"""`generate` as processes: killed, stopped, side by side, on a full disk, and at once when done."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

Start = Callable[..., subprocess.Popen[str]]
SLOWLY = (
    "import time; from stylegan_mix.banks.blocks import Partial; land = Partial.land; "
    "Partial.land = lambda self, *block: (time.sleep(0.05), land(self, *block))"
)
COMMAND = ("generate", "--dataset", "digits_lt", "--threads", "1")


def card_of(data: Any, preset: Any) -> dict[str, Any]:
    """What a training would say about its generator."""
    return {
        "dataset": data.name,
        "split_id": data.split_id,
        "test_id": data.test_id,
        "profile": data.profile,
        "imbalance": data.imbalance,
        "split_seed": data.split_seed,
        "classes": list(data.classes),
        "counts": [int(count) for count in data.counts],
        "resolution": 8,
        "channels": 1,
        "training": "0" * 64,
        "preset": {**preset.plain(), "kimg": preset.kimg},
        "kimg": 0.5,
        "seed": 0,
        "diversity": [1.0] * 10,
        "command": "stylegan-mix train",
    }


@pytest.fixture
def start(home: Path, repo_root: Path, tmp_path: Path) -> Iterator[Start]:
    """Starts the command in a store that holds one untrained generator of digits_lt."""
    import torch
    from PIL import Image

    from stylegan_mix import datasets
    from stylegan_mix.generators import store as generator_store
    from stylegan_mix.networks.build import build_generator
    from stylegan_mix.presets import PRESETS

    data, preset = datasets.load("digits_lt"), PRESETS["tiny8"]
    torch.manual_seed(0)
    network = build_generator(preset, resolution=8, channels=1, classes=10)
    generator_store.publish(network.state_dict(), card_of(data, preset), Image.new("RGB", (4, 4)))

    running: list[subprocess.Popen[str]] = []

    def starting(*words: str, before: str = "pass", processes: int = 0) -> subprocess.Popen[str]:
        code = f"import sys; {before}; from stylegan_mix.cli import main; main()"
        launched = [sys.executable, "-c", code]
        if processes:
            script = tmp_path / f"generate-{len(running)}.py"
            script.write_text(code)
            launcher = ("-m", "torch.distributed.run", "--standalone", "--nproc-per-node")
            launched = [sys.executable, *launcher, str(processes), str(script)]
        process = subprocess.Popen(
            [*launched, *COMMAND, *words],
            env={**os.environ, "PYTHONPATH": str(repo_root)},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        running.append(process)
        return process

    yield starting
    for process in running:
        process.kill()
        process.communicate()


def ended(process: subprocess.Popen[str], code: int = 0) -> str:
    """What the process printed, once it has ended with this code."""
    out, err = process.communicate(timeout=600)
    assert process.returncode == code, err
    assert "Traceback" not in err
    return out if code == 0 else err


def wait_for_blocks(home: Path, count: int) -> None:
    """Returns when that many blocks have landed."""
    deadline = time.monotonic() + 600
    while time.monotonic() < deadline:
        if len(list((home / "banks").glob(".partial/*/blocks/*"))) >= count:
            return
        time.sleep(0.002)
    raise AssertionError("no blocks landed within ten minutes")


def content(process: subprocess.Popen[str]) -> str:
    return str(json.loads(ended(process))["content_sha256"])


def moved_away(home: Path, place: Path) -> None:
    """Takes the banks out of the store."""
    place.mkdir()
    for path in (home / "banks").iterdir():
        path.rename(place / path.name)


@pytest.mark.slow
def test_work_killed_twice_ends_in_the_bytes_of_undisturbed_work(
    start: Start, home: Path, tmp_path: Path
) -> None:
    plain = content(start("--n", "2500", "--json"))
    moved_away(home, tmp_path / "plain")
    for blocks in (8, 20):
        process = start("--n", "2500", before=SLOWLY)
        wait_for_blocks(home, blocks)
        process.kill()
        process.communicate()
        assert process.returncode == -signal.SIGKILL
        assert [path.name for path in (home / "banks").iterdir()] == [".partial"]
    assert content(start("--n", "2500", "--json")) == plain
    assert list((home / "banks/.partial").iterdir()) == []


@pytest.mark.parametrize(
    ("number", "code"),
    [(signal.SIGTERM, 75), (signal.SIGINT, 130), (signal.SIGHUP, 75), (signal.SIGQUIT, 75)],
)
def test_a_signal_stops_after_a_block_and_says_how_to_go_on(
    start: Start, home: Path, number: int, code: int
) -> None:
    process = start("--n", "200000")
    wait_for_blocks(home, 3)
    process.send_signal(number)
    error = ended(process, code)
    assert "blocks of bank" in error
    assert "run the same command to go on" in error


def test_minutes_stop_in_the_same_way(start: Start, home: Path) -> None:
    error = ended(start("--n", "200000", "--minutes", "0.0001"), 75)
    assert "stopped (minutes)" in error


@pytest.mark.slow
def test_of_processes_side_by_side_one_is_killed_and_the_others_make_its_blocks(
    start: Start, home: Path, tmp_path: Path
) -> None:
    plain = content(start("--n", "2500", "--json"))
    moved_away(home, tmp_path / "plain")
    team = [start("--n", "2500", "--json", before=SLOWLY) for _ in range(3)]
    wait_for_blocks(home, 10)
    team[0].kill()
    assert [content(process) for process in team[1:]] == [plain, plain]
    assert len([path for path in (home / "banks").iterdir() if path.name != ".partial"]) == 1
    assert list((home / "banks/.partial").iterdir()) == []


DIES = (
    "import os, signal; from stylegan_mix.banks.blocks import Partial; step = Partial.{step}; "
    "Partial.{step} = lambda *words: (step(*words), os.kill(os.getpid(), signal.SIGKILL))"
)


@pytest.mark.slow
@pytest.mark.parametrize("step", ["land", "fill", "seal", "publish"])
def test_a_shard_that_is_killed_at_any_step_goes_on(
    start: Start, home: Path, tmp_path: Path, step: str
) -> None:
    plain = content(start("--n", "640", "--json"))
    moved_away(home, tmp_path / "plain")
    ended(start("--n", "640", "--shard", "1/2"))
    process = start("--n", "640", "--shard", "2/2", before=DIES.format(step=step))
    process.communicate(timeout=600)
    assert process.returncode == -signal.SIGKILL
    assert content(start("--n", "640", "--shard", "2/2", "--json")) == plain


@pytest.mark.slow
@pytest.mark.parametrize("processes", [1, 2, 3])
def test_the_processes_of_torchrun_make_the_bytes_of_one(
    start: Start, home: Path, tmp_path: Path, processes: int
) -> None:
    plain = content(start("--n", "2500", "--json"))
    moved_away(home, tmp_path / "plain")
    words = ("--num-images", "2500", "--json")
    launched = start(*words, processes=processes, before=SLOWLY)
    out, err = launched.communicate(timeout=600)
    assert launched.returncode == 0, err
    assert json.loads(out)["content_sha256"] == plain
    assert err.count("images of digits_lt") == 1
    out, err = start(*words, processes=processes).communicate(timeout=600)
    assert json.loads(out)["state"] == "exists"


KILLED = (
    "import os, signal, time; from stylegan_mix.banks.blocks import Partial; land = Partial.land; "
    "calls = []; "
    "Partial.land = lambda self, *block: (time.sleep(0.05), land(self, *block), calls.append(1), "
    "os.environ['RANK'] == '{rank}' and len(calls) == 5 and os.kill(os.getpid(), signal.SIGKILL))"
)


@pytest.mark.slow
@pytest.mark.parametrize("rank", [0, 1])
def test_torchrun_goes_on_after_a_process_was_killed(
    start: Start, home: Path, tmp_path: Path, rank: int
) -> None:
    plain = content(start("--n", "2500", "--json"))
    moved_away(home, tmp_path / "plain")
    words = ("--num-images", "2500", "--json")
    launched = start(*words, processes=2, before=KILLED.format(rank=rank))
    _, err = launched.communicate(timeout=600)
    assert launched.returncode == 1, err
    assert "Signal 9 (SIGKILL)" in err
    (folder,) = (home / "banks/.partial").glob("*/blocks")
    assert len(list(folder.iterdir())) >= 5
    assert content(start(*words, processes=2)) == plain


@pytest.mark.slow
def test_torchrun_trains_a_missing_generator_once(
    start: Start, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.rmtree(home)
    short = (
        "import dataclasses; from stylegan_mix import presets; "
        "presets.PRESETS['tiny8'] = dataclasses.replace(presets.PRESETS['tiny8'], kimg=0.5)"
    )
    words = ("--num-images", "640", "--json")
    launched = start(*words, processes=2, before=short)
    out, err = launched.communicate(timeout=600)
    assert launched.returncode == 0, err
    assert json.loads(out)["state"] == "written"
    assert len(list((home / "generators").iterdir())) == 1


def test_a_file_size_limit_is_error_4_and_leaves_no_bank(start: Start, home: Path) -> None:
    limit = "import resource; resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 20, 1 << 20))"
    error = ended(start("--n", "50000", before=limit), 4)
    assert "full" in error
    assert [path.name for path in (home / "banks").iterdir()] == [".partial"]
    ended(start("--n", "1000"))


def test_a_bank_that_exists_is_given_unread_and_without_torch(start: Start) -> None:
    ended(start("--n", "100"))
    check = (
        "import atexit; opened = set(); "
        "sys.addaudithook(lambda event, words: event == 'open' and opened.add(str(words[0]))); "
        "atexit.register(lambda: print("
        "{'torch', 'h5py', 'sklearn', 'matplotlib'} & set(sys.modules), "
        "{path.rpartition('/')[2] for path in opened} & {'MANIFEST.json', 'bank.h5'}, "
        "file=sys.stderr))"
    )
    out, err = start("--n", "100", before=check).communicate()
    assert "exists" in out
    assert err.endswith("set() {'MANIFEST.json'}\n")
