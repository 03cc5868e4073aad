"""The scripts for a GPU, in miniature on the CPU, so that no lease is spent on a typo."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from stylegan_mix.console import Stopped


@pytest.mark.slow
def test_the_generator_script_trains_and_brings_everything_back(
    tmp_path: Path, shared_data: Path, repo_root: Path
) -> None:
    out = tmp_path / "out"
    command = [sys.executable, "tools/gpu/generator.py", "--data", str(shared_data / "data")]
    options = [
        *("--preset", "cpu32", "--device", "cpu", "--batch", "8"),
        *("--minutes", "0.1", "--steps", "2", "--threads", "1"),
    ]
    environment = {**os.environ, "PYTHONPATH": str(repo_root)}
    for _ in range(5):
        done = subprocess.run(
            [*command, *options, "--out", str(out)],
            cwd=repo_root,
            env=environment,
            capture_output=True,
            text=True,
        )
        if done.returncode != Stopped.code:  # its minutes were over: the same command goes on
            break
    assert done.returncode == 0, done.stderr
    assert "airplane" in done.stdout
    record = json.loads((out / "generator.json").read_text())
    assert record["images_per_second"] > 0
    assert len(record["diversity"]) == 10
    for name in ("MANIFEST.json", "data.h5", "grid.png", "GENERATOR_CARD.md", "metrics.jsonl"):
        assert (out / name).stat().st_size > 0


def test_the_throughput_script_measures_every_setting(tmp_path: Path, repo_root: Path) -> None:
    out = tmp_path / "throughput.json"
    done = subprocess.run(
        [
            *(sys.executable, "tools/gpu/throughput.py", "--device", "cpu", "--channels", "8"),
            *("--presets", "cifar-lt", "half", "--precision", "float32", "--peak-rows", "64"),
            *("--rounds", "1", "--round-seconds", "0.01", "--threads", "1", "--out", str(out)),
        ],
        cwd=repo_root,
        env={**os.environ, "PYTHONPATH": str(repo_root)},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    rows = json.loads(out.read_text())["rows"]
    settings = [(row["preset"], row["operators"], row["graphs"]) for row in rows]
    assert settings == [
        (preset, operators, False)
        for preset in ("cifar-lt", "half")
        for operators in ("native", "reference")
    ]
    for row in rows:
        assert row["images_per_second"]["training"] > 0
        for job in ("training", "generation"):
            expected = row["tflops"][job] / row["peak_tflops"] if row["peak_tflops"] else 0
            assert row["share_of_peak"][job] == pytest.approx(expected, abs=0.2)
