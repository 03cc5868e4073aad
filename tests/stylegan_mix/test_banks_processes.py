"""`generate` as a process: killed, stopped, run twice, on a full disk, and at once when done."""

from __future__ import annotations

import json
import os
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
def start(home: Path, repo_root: Path) -> Iterator[Start]:
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

    def starting(*words: str, before: str = "pass") -> subprocess.Popen[str]:
        code = f"import sys; {before}; from stylegan_mix.cli import main; main()"
        process = subprocess.Popen(
            [sys.executable, "-c", code, *COMMAND, *words],
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
        for journal in (home / "banks").glob(".partial/*/blocks.jsonl"):
            if journal.read_bytes().count(b"\n") >= count:
                return
        time.sleep(0.002)
    raise AssertionError("no blocks landed within ten minutes")


def content(process: subprocess.Popen[str]) -> str:
    return str(json.loads(ended(process))["content_sha256"])


def test_work_killed_twice_ends_in_the_bytes_of_undisturbed_work(
    start: Start, home: Path, tmp_path: Path
) -> None:
    plain = content(start("--n", "6000", "--json"))
    for path in (home / "banks").iterdir():
        path.rename(tmp_path / path.name)
    for blocks in (20, 50):
        process = start("--n", "6000", before=SLOWLY)
        wait_for_blocks(home, blocks)
        process.kill()
        process.communicate()
        assert process.returncode == -signal.SIGKILL
        assert [path.name for path in (home / "banks").iterdir()] == [".partial"]
    assert content(start("--n", "6000", "--json")) == plain
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


def test_of_two_processes_one_works_and_the_other_waits_for_it(start: Start, home: Path) -> None:
    both = [start("--n", "10000", "--json") for _ in range(2)]
    said = [json.loads(ended(process)) for process in both]
    assert said[0]["key"] == said[1]["key"]
    assert sorted(path.name for path in (home / "banks").iterdir()) == [
        ".partial",
        said[0]["key"],
    ]
    assert list((home / "banks/.partial").iterdir()) == []


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
