"""Speed of training and generation on a GPU, against its matrix peak: one JSON file.

    python tools/gpu/throughput.py --out tools/results/gpu/throughput.json

NOT YET RUN ON A GPU: there was none where this was written. The test runs it in miniature on a CPU.

On noise of 32 pixels: images a second of training (R1 at its share of the steps) and of generation
(batch 64). The presets are `cifar`, `cifar-lt` and `cifar` at half the width, in float32 and
bfloat16, with the compiled operators and with KERNELS=reference, with and without CUDA graphs. All
settings of a preset and precision alternate. TFLOP/s counts convolutions alone. The peak is that of
a matrix product of 8,192 rows or of a 3x3 convolution of as many channels, the faster of the two.

A setting that fails has a row with the reason, and the others are measured; the status is then 1.
After --minutes no further preset and precision begins, and the file lists those left out.
"""

from __future__ import annotations

import argparse
import dataclasses
import functools
import itertools
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

# The root replaces this folder, for the benchmarks' parts.
sys.path[0] = str(Path(__file__).resolve().parents[2])

from kernels import dispatch
from kernels.selfcheck import forced
from stylegan_mix import process
from stylegan_mix.presets import PRESETS, Preset
from tools.bench import timing
from tools.bench.generator import (
    GENERATION_BATCH,
    begun,
    game_of_noise,
    jobs,
    rates,
    replayed_jobs,
)
from tools.bench.work import peak_call, work_of_jobs

SHAPES = ("cifar", "cifar-lt", "half")
PRECISIONS = ("float32", "bfloat16")
OPERATORS = ("native", "reference")


def main() -> int:
    """Measures, prints a line for each row, writes JSON; returns 1 if a setting failed."""
    options, began = _options(), time.monotonic()
    process.set_up_process(options.threads)
    device = torch.device(options.device)
    rows: list[dict[str, Any]] = []
    facts: dict[str, Any] = {"schema": "gpu-throughput/1", "machine": timing.machine(device)}
    facts |= {"operators": dispatch.identity(device), "seed": 0}
    facts["command"] = " ".join(["python tools/gpu/throughput.py", *sys.argv[1:]])
    presets = _presets(options.presets, options.channels)
    left = list(itertools.product(presets, options.precision))
    while left and time.monotonic() - began < 60 * options.minutes:
        name, precision = left.pop(0)
        try:
            found = _rows(dataclasses.replace(presets[name], precision=precision), device, options)
        except RuntimeError as error:
            found = [{"failure": str(error)}]
        for row in found:
            rows.append({"preset": name, "precision": precision, **row})
            print(_line(rows[-1]), flush=True)
        # After every pair: a run that is stopped leaves those it has.
        left_out = [" ".join(pair) for pair in left]
        timing.write_json(options.out, {**facts, "rows": rows, "left_out": left_out})
    for pair in left:
        print(f"{' '.join(pair)} left out: {options.minutes} minutes are over")
    return 1 if any("failure" in row for row in rows) else 0


def _presets(names: list[str], channels: int | None) -> dict[str, Preset]:
    """Selects presets by name; `half` is `cifar` at half the width, `channels` narrows all."""
    found = {}
    for name in names:
        preset = PRESETS["cifar" if name == "half" else name]
        most = (channels or preset.channel_max) // (2 if name == "half" else 1)
        base = min(preset.channel_base, 64 * most)
        found[name] = dataclasses.replace(preset, channel_max=most, channel_base=base)
    return found


def _rows(preset: Preset, device: torch.device, options: argparse.Namespace) -> list[dict]:
    """Measures a row for each setting: rates, TFLOP/s and shares of the peak, timed in turn."""
    each = work_of_jobs(preset, device)
    settings = [
        (operators, graphs)
        for operators in OPERATORS
        for graphs in ((True, False) if device.type == "cuda" else (False,))
    ]
    calls: dict[tuple[str, bool], dict[str, Callable[[], object]]] = {}
    rows: list[dict] = []
    for operators, graphs in settings:
        try:
            calls[operators, graphs] = _jobs(preset, device, operators, graphs)
        except RuntimeError as error:
            rows.append({"operators": operators, "graphs": graphs, "failure": str(error)})
    peaks = _peak_calls(preset, device, options.peak_rows)
    named: dict[str, Callable[[], object]] = {
        f"{operators} {graphs}: {job}": call
        for (operators, graphs), own in calls.items()
        for job, call in own.items()
    }
    named |= {f"peak: {name}": call for name, (call, _) in peaks.items()}
    taken = timing.alternate(
        named, device=device, rounds=options.rounds, round_seconds=options.round_seconds
    )
    peak = max(work / taken[f"peak: {name}"].seconds for name, (_, work) in peaks.items())
    for operators, graphs in calls:
        key = f"{operators} {graphs}"
        found = rates(
            {job: taken[f"{key}: {job}"].seconds for job in calls[operators, graphs]}, preset
        )
        speed = {job: found[job] * each[job] for job in found}
        rows.append(
            {
                "operators": operators,
                "graphs": graphs,
                "images_per_second": {job: round(rate, 1) for job, rate in found.items()},
                "tflops": {job: round(value / 1e12, 3) for job, value in speed.items()},
                "share_of_peak": {job: round(value / peak, 3) for job, value in speed.items()},
                "peak_tflops": round(peak / 1e12, 2),
            }
        )
    return rows


def _jobs(
    preset: Preset, device: torch.device, operators: str, graphs: bool
) -> dict[str, Callable[[], object]]:
    """Makes the jobs of a setting on networks of its own; graphs are made before the timing.

    RuntimeError if they cannot be made.
    """
    within = functools.partial(forced, operators)
    state, game = begun(preset, device), game_of_noise(preset, device)
    return (replayed_jobs if graphs else jobs)(state, game, within)


def _peak_calls(
    preset: Preset, device: torch.device, rows: int
) -> dict[str, tuple[Callable[[], object], float]]:
    """Makes calls that keep the matrix units busy, each with its operations."""
    dtype = getattr(torch, preset.precision)
    one, two = (torch.randn(rows, rows, device=device).to(dtype) for _ in range(2))
    return {
        "product": (lambda: one @ two, 2.0 * rows**3),
        "convolution": peak_call(preset.channel_max, dtype, GENERATION_BATCH, device),
    }


def _line(row: dict[str, Any]) -> str:
    graphs = "graphs" if row.get("graphs") else "no graphs"
    setting = f"{row['preset']:9} {row['precision']:8} {row.get('operators', ''):9} {graphs:9}"
    if "failure" in row:
        return f"{setting} FAILED: {row['failure']}"
    cells = [
        f"{job} {row['images_per_second'][job]:,.0f} images/s, {row['tflops'][job]:.2f} TFLOP/s "
        f"({row['share_of_peak'][job]:.2f})"
        for job in ("training", "generation")
    ]
    return f"{setting} {'; '.join(cells)}; peak {row['peak_tflops']:.1f}"


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--out", type=Path, required=True)
    add("--device", default="cuda")
    add("--presets", nargs="+", choices=SHAPES, default=list(SHAPES))
    add("--precision", nargs="+", choices=PRECISIONS, default=list(PRECISIONS))
    add("--channels", type=int, help="narrower than the presets, for a trial")
    add("--peak-rows", type=int, default=8192, help="of the matrix product")
    add("--rounds", type=int, default=5)
    add("--round-seconds", type=float, default=0.2)
    add("--minutes", type=float, default=3, help="no further pair is begun after that")
    add("--threads", type=int)
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
