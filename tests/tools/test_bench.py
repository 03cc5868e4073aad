"""The benchmark of the operators in miniature: that it runs, and that another project fits in."""

from __future__ import annotations

import importlib
import json
import math
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from torch.autograd import DeviceType

from kernels import NativeUnavailable, native

# The plain composition, as another project might write it; it has no epilogue.
PEER = """
from torch.nn import functional

def bias_act(x, b, *, act, clamp):
    y = functional.leaky_relu(x + b[None, :, None, None], 0.2) * 2**0.5
    return y.clamp(-clamp, clamp)
"""


@pytest.fixture
def bench(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """tools/bench/kernels.py, which changes the path when it is imported."""
    monkeypatch.setattr(sys, "path", list(sys.path))
    return importlib.import_module("tools.bench.kernels")


def case_of(bench: ModuleType, name: str, shape: tuple[int, ...]) -> Any:
    cpu = torch.device("cpu")
    return bench.Case(bench.OPERATORS[name], shape, torch.float32, "nchw", cpu)


def benchmark(repo_root: Path, *options: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "tools/bench/kernels.py", "--threads", "1", "--rounds", "1", *options],
        cwd=repo_root,
        env={**os.environ, "PYTHONPATH": str(repo_root)},
        capture_output=True,
        text=True,
    )


@pytest.mark.slow
def test_a_peer_is_timed_in_every_pass_that_it_has(tmp_path: Path, repo_root: Path) -> None:
    try:
        native.library("cpu")
    except NativeUnavailable as error:
        pytest.skip(f"no compiled operators here: {error}")
    peer, out = tmp_path / "peer.py", tmp_path / "out.json"
    peer.write_text(PEER)
    done = benchmark(
        repo_root,
        *("--shape", "1x16x4x4", "--operator", "bias_act", "epilogue", "--processes", "2"),
        "--beside",
        *("--peer", str(peer), "--out", str(out)),
    )
    assert done.returncode == 0, done.stderr
    result = json.loads(out.read_text())
    if sys.platform.startswith("linux") and "GLIBC_TUNABLES" not in os.environ:
        assert result["allocator"] == "glibc.malloc.tcache_count=0"
    timed = {(row["operator"], row["pass"]): row["times"] for row in result["rows"]}
    for name in ("forward", "backward", "double backward"):
        assert set(timed["bias_act", name]) == {"native", "peer"}
        assert all(one["ms"] > 0 for one in timed["bias_act", name].values())
        assert set(timed["epilogue", name]) == {"native"}
        assert set(timed["epilogue", name]["native"]) == {"ms", "clean", "rounds"}
    assert all("floor_device_ms" not in row for row in result["rows"])
    assert result["left_out"] == []
    assert out.with_suffix(".png").stat().st_size > 0


def test_a_peer_that_is_not_there_is_named(tmp_path: Path, repo_root: Path) -> None:
    done = benchmark(repo_root, "--peer", str(tmp_path / "absent.py"))
    assert done.returncode != 0
    assert "absent.py: no such Python file" in done.stderr


def test_a_case_that_raises_takes_no_other_along(
    bench: ModuleType, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def broken(*arguments: Any, **more: Any) -> torch.Tensor:
        raise RuntimeError("an illegal instruction")

    out = tmp_path / "out.json"
    monkeypatch.setattr(bench.kernels, "modulated_bias_act", broken)
    monkeypatch.setattr(bench, "_one_block_for_one_output", lambda: None)
    monkeypatch.setattr(bench, "_alone", bench._measured)  # here, where it is replaced
    monkeypatch.setattr(bench, "_plot", lambda *rest: None)
    options = ["--rounds", "1", "--round-seconds", "0.001", "--beside", "--out", str(out)]
    cases = ["--shape", "1x2x4x4", "--operator", "epilogue", "bias_act"]
    monkeypatch.setattr(sys, "argv", ["kernels.py", *options, *cases])
    assert bench.main() == 1
    result = json.loads(out.read_text())
    assert result["failed"] == {
        "epilogue 1x2x4x4 float32 nhwc": "RuntimeError: an illegal instruction"
    }
    assert {row["operator"] for row in result["rows"]} == {"bias_act"}


def test_what_is_left_out_for_want_of_time_is_told(
    bench: ModuleType, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    out = tmp_path / "out.json"
    clock = iter(range(0, 600, 40))
    monkeypatch.setattr(bench.time, "monotonic", lambda: float(next(clock)))
    monkeypatch.setattr(bench, "_one_block_for_one_output", lambda: None)
    monkeypatch.setattr(bench, "_plot", lambda *rest: None)
    monkeypatch.setattr(bench, "_alone", lambda *rest: [])
    options = ["--minutes", "1", "--shape", "1x2x4x4", "--operator", "up2", "blur", "down2"]
    monkeypatch.setattr(sys, "argv", ["kernels.py", *options, "--out", str(out)])
    assert bench.main() == 0
    left_out = ["blur 1x2x4x4 float32 nhwc", "down2 1x2x4x4 float32 nhwc"]
    assert json.loads(out.read_text())["left_out"] == left_out


def test_the_medians_over_processes_count(bench: ModuleType) -> None:
    def row(native: float, floor: float) -> dict[str, Any]:
        return {
            "pass": "forward",
            "floor_ms": floor,
            "times": {"native": {"ms": native, "clean": 3, "rounds": 3}},
            "native_over_floor": native / floor,
        }

    found = bench._median((row(0.2, 0.1), row(0.4, 0.11), row(0.21, 0.3)))
    assert found == {**row(0.21, 0.11), "native_over_floor": 1.91}


# --------------------------------------------------------------------- what must be moved

FEWEST = {
    "bias_act": (2, 3, 3),
    "epilogue": (2, 3, 5),
    "up2": (5, 5, 5),
    "down2": (1.25, 1.25, 1.25),
    "blur": (2, 2, 2),
    # Of a period of 70 pixels: 128 up-sampled ones; and of 74 samples 32 pixels.
    "ada_up2": (1 + (128 / 70) ** 2,) * 3,
    "ada_down2": (1 + (32 / 74) ** 2,) * 3,
}


@pytest.mark.parametrize("name", FEWEST)
def test_the_floor_moves_every_input_and_output_once(name: str, bench: ModuleType) -> None:
    assert FEWEST.keys() == bench.OPERATORS.keys()
    side = {"ada_up2": 70, "ada_down2": 74}.get(name, 16)
    case = case_of(bench, name, (2, 3, side, side))
    whole = math.prod(case.shape)
    moved = [case.operator.elements(case.shape, number) for number in range(3)]
    assert moved == [round(whole * share) for share in FEWEST[name]]
    if case.operator.filter is not None:
        y = bench._prepared(case, bench._plain(case), 0)()
        assert y.shape == case.operator.filtered(case.shape)


@pytest.mark.parametrize("name", ["ada_up2", "ada_down2"])
def test_the_plain_form_of_the_pipes_filter_is_the_operator(name: str, bench: ModuleType) -> None:
    case = case_of(bench, name, (1, 3, 14, 17))
    x, operator = case.image(), case.operator
    plain = bench._plain(case)(x, operator.filter, **operator.arguments)
    torch.testing.assert_close(
        bench.kernels.upfirdn2d(x, operator.filter, **operator.arguments), plain
    )


# --------------------------------------------------------------------- time on a GPU


@dataclass
class Event:
    """What the profiler tells of one kind of event."""

    device_type: DeviceType
    self_device_time_total: float  # microseconds
    is_user_annotation: bool = False
    key: str = ""


class Watching:
    """A profiler that answers with `events`."""

    events: tuple[Event, ...] = ()

    def __init__(self, *, activities: list[torch.profiler.ProfilerActivity]) -> None:
        assert torch.profiler.ProfilerActivity.CUDA in activities

    def __enter__(self) -> Watching:
        return self

    def __exit__(self, *rest: object) -> None: ...

    def key_averages(self) -> tuple[Event, ...]:
        return self.events


def test_time_on_a_gpu_is_that_of_its_kernels_for_a_call(
    bench: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    timing, calls = bench.timing, []
    monkeypatch.setattr(timing, "profile", Watching)
    monkeypatch.setattr(torch.cuda, "synchronize", lambda device: None)
    kernel, copy = Event(DeviceType.CUDA, 900.0), Event(DeviceType.CUDA, 100.0)
    launch, mark = Event(DeviceType.CPU, 1000.0), Event(DeviceType.CUDA, 7.0, True)
    taken = {"native": timing.Measured(0.002, 3, 3)}  # ten calls fill the time

    def measured(device: str) -> dict[str, float]:
        variants = {"native": lambda: calls.append(1)}
        return timing.on_device(variants, taken, device=torch.device(device))

    monkeypatch.setattr(Watching, "events", (kernel, launch, copy, mark))
    assert measured("cuda") == {"native": pytest.approx(1e-3 / 10)}
    assert len(calls) == 10
    monkeypatch.setattr(Watching, "events", (launch,))
    assert measured("cuda") == {}, "a time of nothing is none"
    assert measured("cpu") == {}
    assert len(calls) == 20


def test_the_share_of_an_operator_has_the_time_of_its_kernels_once(
    bench: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    generator = importlib.import_module("tools.bench.generator")
    monkeypatch.setattr(generator, "profile", Watching)
    events = (
        Event(DeviceType.CPU, 60.0, key="aten::cudnn_convolution"),
        Event(DeviceType.CUDA, 60.0, key="sm90_xmma_fprop_implicit_gemm"),
        Event(DeviceType.CPU, 40.0, key="kernels::epilogue"),
        Event(DeviceType.CUDA, 40.0, key="epilogue_kernel"),
    )
    monkeypatch.setattr(Watching, "events", events)
    shares = generator._shares(lambda: None, torch.device("cuda"))
    assert shares == {"convolution": 0.6, "ours": 0.4, "matrix product": 0.0, "rest": 0.0}


@pytest.mark.parametrize("seen", [True, False])
def test_on_a_gpu_the_floor_is_that_of_kernels_and_never_of_the_host(
    seen: bool, bench: ModuleType
) -> None:
    taken = {name: bench.timing.Measured(1e-4, 3, 3) for name in ("copy", "native", "plain")}
    busy = {"copy": 2e-6, "native": 3e-6, "plain": 8e-6} if seen else {"plain": 8e-6}
    row = bench._times(taken, busy, torch.device("cuda"))
    assert row["floor_ms"] == 0.1
    assert row["times"]["native"]["ms"] == 0.1
    assert row["floor_device_ms"] == (0.002 if seen else None)
    assert row["times"]["native"]["device_ms"] == (0.003 if seen else None)
    assert row["native_over_floor"] == (1.5 if seen else None)
    row |= {"shape": [1], "dtype": "float32", "layout": "nhwc", "pass": "forward"}
    told = "1.50 of the floor" if seen else "unknown: the profiler saw no kernels"
    assert told in bench._line("up2", row)
    assert bench._times(taken, {}, torch.device("cpu"))["native_over_floor"] == 1.0


def only_row(script: str, *options: str, out: Path, repo_root: Path) -> Any:
    """Runs a benchmark for one round, and returns the one row that it writes."""
    words = [f"tools/bench/{script}", "--rounds", "1", *options, "--out", str(out)]
    done = subprocess.run(
        [sys.executable, *words], cwd=repo_root, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    (row,) = json.loads(out.read_text())["rows"]
    return row


def test_what_fusing_could_win_is_a_share_of_the_generator(tmp_path: Path, repo_root: Path) -> None:
    out = tmp_path / "out.json"
    words = ("--threads", "1", "--channels", "8", "--batch", "1")
    row = only_row("fused_blur.py", *words, out=out, repo_root=repo_root)
    ms = {name: one["ms"] for name, one in row["times"].items()}
    saved = sum(ms[f"both {size}"] - ms[f"filter {size}"] for size in (8, 16, 32))
    assert row["share_saved_at_most"] == pytest.approx(saved / ms["generator"], abs=2e-4)


def test_the_ways_to_read_a_bank_are_compared(tmp_path: Path, repo_root: Path) -> None:
    out = tmp_path / "out.json"
    words = ("--side", "4", "--rows", "32", "--batch", "16")
    row = only_row("bank_rows.py", *words, out=out, repo_root=repo_root)
    assert set(row["times"]) == set(row["share"]) == {"map", "nothing", "rows", "loader", "hybrid"}
    assert row["share"]["map"] == 1.0
