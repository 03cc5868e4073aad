"""The scripts for a GPU, in miniature on the CPU, so that no lease is spent on a typo."""

from __future__ import annotations

import argparse
import dataclasses
import importlib
import io
import json
import os
import subprocess
import sys
import tarfile
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch
from PIL import Image

from stylegan_mix import datasets
from stylegan_mix.errors import Stopped
from stylegan_mix.generators import store as generator_store
from stylegan_mix.presets import PRESETS
from stylegan_mix.training.plan import TrainPlan
from stylegan_mix.training.state import TrainState
from tools.bench.timing import Measured

JOBS = ("generation", "step", "step with R1")


@pytest.mark.slow
def test_the_generator_script_trains_and_brings_everything_back(
    tmp_path: Path, shared_data: Path, repo_root: Path
) -> None:
    out = tmp_path / "out"
    command = [sys.executable, "tools/gpu/generator.py", "--data", str(shared_data / "data")]
    options = [
        *("--preset", "cpu32", "--device", "cpu", "--batch", "8"),
        *("--kimg", "0.1", "--steps", "2", "--threads", "1"),
    ]
    # As on a bare machine, where nothing says where the project lies.
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    done = subprocess.run(
        [*command, *options, "--out", str(out)],
        cwd=repo_root,
        env=environment,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert "airplane" in done.stdout
    record = json.loads((out / "generator.json").read_text())
    assert record["images_per_second"] > 0
    assert record["kimg"] == 0.1
    assert len(record["diversity"]) == 10
    for name in ("MANIFEST.json", "data.h5", "grid.png", "GENERATOR_CARD.md", "metrics.jsonl"):
        assert (out / name).stat().st_size > 0


@pytest.fixture
def script(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """tools/gpu/generator.py, which changes the path when it is imported."""
    monkeypatch.setattr(sys, "path", list(sys.path))
    return importlib.import_module("tools.gpu.generator")


def test_a_generator_in_pieces_is_the_same_but_for_rounding(
    script: ModuleType, home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    preset = dataclasses.replace(PRESETS["tiny8"], channel_base=64, channel_max=8)
    counts = np.full(3, 9)
    state = TrainState.fresh(
        preset, resolution=8, channels=1, counts=counts, seed=0, device=torch.device("cpu")
    )
    card = {"dataset": "digits", "split_id": "x", "classes": ["a", "b", "c"], "counts": [9, 9, 9]}
    card |= {
        "resolution": 8,
        "channels": 1,
        "preset": {**preset.plain(), "kimg": 1},
        "diversity": [None] * 3,
    }
    card |= {"training": "0" * 64, "kimg": 1.0, "seed": 0, "imbalance": 1.0, "profile": "exp"}
    card |= {"split_seed": 0, "test_id": "y", "operators": "reference", "command": "python x"}
    grid = Image.new("L", (8, 8))
    whole = generator_store.publish(state.average.state_dict(), card, grid)
    out = tmp_path / "out"
    out.mkdir()
    script._pack(whole, out, 0.01)
    assert [one.hash for one in generator_store.find()] == [whole.hash]
    pieces = sorted(out.glob("generator.tar.gz.*"))
    assert len(pieces) > 1
    assert max(piece.stat().st_size for piece in pieces) <= 0.01 * 2**20
    monkeypatch.setenv("STYLEGAN_MIX_HOME", str(tmp_path / "elsewhere"))
    into = tmp_path / "elsewhere" / "generators"
    into.mkdir(parents=True)
    packed = b"".join(piece.read_bytes() for piece in pieces)
    with tarfile.open(fileobj=io.BytesIO(packed)) as archive:
        archive.extractall(into, filter="data")
    (brought,) = generator_store.find()
    rounded = generator_store.network(brought).state_dict()
    for name, value in state.average.state_dict().items():
        assert torch.equal(rounded[name], value.bfloat16().to(value.dtype)), name


def test_a_stopped_training_leaves_its_log_and_last_grids(
    script: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stopped(plan: TrainPlan, stop: object) -> None:
        (plan.folder / "grids").mkdir(parents=True)
        for name in ("metrics.jsonl", "grids/1.png", "grids/2.png", "grids/3.png"):
            (plan.folder / name).write_text(name)
        raise Stopped("the minutes are over")

    out, kept = tmp_path / "out", tmp_path / "kept"
    preset = dataclasses.replace(PRESETS["tiny8"], batch=8)
    plan = TrainPlan(datasets.load("digits_lt"), preset, 1.0, 0, "cpu", "python x")
    monkeypatch.setenv("STYLEGAN_MIX_HOME", "")
    monkeypatch.setattr(script, "_prepare", lambda data: None)
    monkeypatch.setattr(script, "_plan", lambda options: plan)
    monkeypatch.setattr(script, "_throughput", lambda *rest, **more: {"images_per_second": 1.0})
    monkeypatch.setattr(script, "run_training", stopped)
    options = ["--data", "none", "--out", str(out), "--store", str(kept), "--minutes", "0.1"]
    monkeypatch.setattr(sys, "argv", ["generator.py", *options])
    with pytest.raises(SystemExit) as end:
        script.main()
    assert end.value.code == Stopped.code
    assert {path.name for path in out.iterdir()} == {"metrics.jsonl", "2.png", "3.png"}
    assert (kept / "budget.json").exists()


def test_the_budget_is_what_three_quarters_of_the_minutes_give(script: ModuleType) -> None:
    assert script._kimg_in(4.0, 1000.0) == 180.0
    assert script._kimg_in(4.0, 0.1) == 0.1, "some training, however slow"


def test_what_prepares_the_data_sees_the_modules_that_were_brought_along(
    script: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    paths: list[str] = []
    monkeypatch.setattr(sys, "path", ["/project", *sys.path])
    monkeypatch.setenv("PYTHONPATH", "/brought/along")
    monkeypatch.setattr(
        script.subprocess, "run", lambda *rest, env, **more: paths.append(env["PYTHONPATH"])
    )
    script._prepare(Path("data"))
    assert paths == ["/project:/brought/along"]


@pytest.mark.slow
def test_the_throughput_script_measures_every_setting(tmp_path: Path, repo_root: Path) -> None:
    out = tmp_path / "throughput.json"
    done = subprocess.run(
        [
            *(sys.executable, "tools/gpu/throughput.py", "--device", "cpu", "--channels", "8"),
            *("--presets", "cifar-lt", "half", "--precision", "float32", "--peak-rows", "64"),
            *("--rounds", "1", "--round-seconds", "0.01", "--minutes", "inf"),
            *("--threads", "1", "--out", str(out)),
        ],
        cwd=repo_root,
        env={**os.environ, "PYTHONPATH": str(repo_root)},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    result = json.loads(out.read_text())
    assert result["left_out"] == []
    rows = result["rows"]
    settings = [(row["preset"], row["operators"], row["graphs"]) for row in rows]
    assert settings == [
        (preset, operators, False)
        for preset in ("cifar-lt", "half")
        for operators in ("native", "reference")
    ]
    for row in rows:
        assert min(row["images_per_second"].values()) > 0


@pytest.fixture
def throughput(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """tools/gpu/throughput.py where a generation takes 2 s, a step 1 s, one with R1 1.8 s."""
    monkeypatch.setattr(sys, "path", list(sys.path))  # which the script changes
    script = importlib.import_module("tools.gpu.throughput")

    def timed(named: dict[str, object], **options: object) -> dict[str, Measured]:
        seconds = {"generation": 2.0, "step": 1.0, "step with R1": 1.8}
        seconds |= {"product": 0.5, "convolution": 4.0}
        return {name: Measured(seconds[name.partition(": ")[2]], 3, 3) for name in named}

    work = {"generation": 1e12, "training": 3e12}
    peaks = {"product": (None, 40e12), "convolution": (None, 80e12)}
    monkeypatch.setattr(script.timing, "alternate", timed)
    monkeypatch.setattr(script, "work_of_jobs", lambda *rest: work)
    monkeypatch.setattr(script, "_peak_calls", lambda *rest: peaks)
    monkeypatch.setattr(script, "_jobs", lambda *rest: dict.fromkeys(JOBS))
    return script


def test_throughput_is_work_over_time_and_its_share_is_of_the_faster_peak(
    throughput: ModuleType,
) -> None:
    options = argparse.Namespace(rounds=1, round_seconds=0.1, peak_rows=8)
    preset = throughput.PRESETS["cifar"]
    for row in throughput._rows(preset, torch.device("cpu"), options):
        # 64 images in 2 s; 64 in 1 s and a sixteenth of 0.8 s more
        training = 64 / (1 + 0.8 / 16)
        assert row["images_per_second"] == {"generation": 32.0, "training": round(training, 1)}
        assert row["tflops"] == {"generation": 32.0, "training": round(3 * training, 3)}
        assert row["peak_tflops"] == 80
        assert row["share_of_peak"]["generation"] == 0.4
        assert row["share_of_peak"]["training"] == pytest.approx(3 * training / 80, abs=1e-3)


def test_a_setting_that_fails_is_told_and_the_others_are_measured(
    throughput: ModuleType, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def broken(preset: object, device: object, operators: str, graphs: bool) -> dict[str, object]:
        if operators == "native":
            raise RuntimeError("no CUDA graphs: a number was read")
        return dict.fromkeys(JOBS)

    def no_memory(preset: object, dtype: object, *rest: object) -> dict[str, object]:
        if preset.precision == "bfloat16":  # type: ignore[attr-defined]
            raise RuntimeError("out of memory")
        return {"product": (None, 40e12)}

    monkeypatch.setattr(throughput, "_jobs", broken)
    monkeypatch.setattr(throughput, "_peak_calls", no_memory)
    out = tmp_path / "throughput.json"
    command = ["throughput.py", "--device", "cpu", "--presets", "cifar", "--out", str(out)]
    monkeypatch.setattr(sys, "argv", command)
    assert throughput.main() == 1
    rows = json.loads(out.read_text())["rows"]
    told = [(row["precision"], row.get("operators"), row.get("failure")) for row in rows]
    assert told == [
        ("float32", "native", "no CUDA graphs: a number was read"),
        ("float32", "reference", None),
        ("bfloat16", None, "out of memory"),
    ]


def test_pairs_that_there_was_no_time_for_are_named(
    throughput: ModuleType, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    out, clock = tmp_path / "throughput.json", iter(range(0, 600, 50))
    monkeypatch.setattr(throughput.time, "monotonic", lambda: float(next(clock)))
    command = ["throughput.py", "--device", "cpu", "--presets", "cifar", "half", "--minutes", "1"]
    monkeypatch.setattr(sys, "argv", [*command, "--out", str(out)])
    assert throughput.main() == 0
    result = json.loads(out.read_text())
    assert {(row["preset"], row["precision"]) for row in result["rows"]} == {("cifar", "float32")}
    assert result["left_out"] == ["cifar bfloat16", "half float32", "half bfloat16"]
