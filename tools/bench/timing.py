"""Timing on shared machines: variants alternate, disturbed rounds are repeated, medians are kept.

If this process waits for a processor more than 4 % of a round, the round says nothing about the
code: with two OpenMP threads every such wait stalls both. On Linux the wait is read from the
scheduler's own statistics.

On a GPU this is the time of a loop in Python, which launches small kernels more slowly than they
run. `on_device` asks the profiler for the time of the kernels.
"""

from __future__ import annotations

import json
import platform
import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch.autograd import DeviceType
from torch.profiler import ProfilerActivity, profile

DIRTY = 0.04
CLEAN_ROUNDS = 3
# The profiler watches as many calls of a variant as fill these seconds, within these bounds.
WATCHED_SECONDS, WATCHED_CALLS = 0.02, (3, 50)


@dataclass(frozen=True)
class Measured:
    """Seconds a call: the median of the clean rounds, or the minimum of all if few are clean."""

    seconds: float
    clean: int
    rounds: int

    def plain(self) -> dict[str, Any]:
        return {"ms": round(self.seconds * 1e3, 4), "clean": self.clean, "rounds": self.rounds}


def alternate(
    variants: Mapping[str, Callable[[], object]],
    *,
    device: torch.device,
    round_seconds: float = 0.1,
    rounds: int = 15,
) -> dict[str, Measured]:
    """Times every variant in turn, at most `rounds` times each, fewer once enough are clean."""
    counts = {name: _calls(call, device, round_seconds) for name, call in variants.items()}
    taken: dict[str, list[tuple[float, bool]]] = {name: [] for name in variants}
    for _ in range(rounds):
        for name, call in variants.items():
            taken[name].append(_round(call, counts[name], device))
        if all(sum(clean for _, clean in one) >= 2 * CLEAN_ROUNDS for one in taken.values()):
            break
    return {name: _summary(one) for name, one in taken.items()}


def on_device(
    variants: Mapping[str, Callable[[], object]],
    taken: Mapping[str, Measured],
    *,
    device: torch.device,
) -> dict[str, float]:
    """Measures seconds a call in kernels and copies of the GPU, for each variant, by the profiler.

    `taken` is the total time of a call. Empty on a CPU, which has only that time. A variant is
    missing if the profiler saw nothing of it.
    """
    if device.type != "cuda":
        return {}
    least, most = WATCHED_CALLS
    found = {}
    for name, call in variants.items():
        count = max(least, min(most, int(WATCHED_SECONDS / taken[name].seconds)))
        torch.cuda.synchronize(device)
        with profile(activities=[ProfilerActivity.CUDA]) as watched:
            for _ in range(count):
                call()
            torch.cuda.synchronize(device)
        # The operator that launches a kernel may carry its time again.
        microseconds = sum(
            event.self_device_time_total
            for event in watched.key_averages()
            if event.device_type == DeviceType.CUDA and not event.is_user_annotation
        )
        if microseconds > 0:
            found[name] = microseconds / 1e6 / count
    return found


def _calls(call: Callable[[], object], device: torch.device, seconds: float) -> int:
    """Counts the calls that fill a round, after one that warms up."""
    _round(call, 1, device)
    return max(1, min(1000, int(seconds / max(_round(call, 1, device)[0], 1e-6))))


def _round(call: Callable[[], object], count: int, device: torch.device) -> tuple[float, bool]:
    """Times a round: (seconds a call, True if the round was clean)."""
    waited = _run_queue_delay()
    began = _now(device)
    for _ in range(count):
        call()
    took = _now(device) - began
    return took / count, _run_queue_delay() - waited <= DIRTY * took


def _now(device: torch.device) -> float:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter()


def _run_queue_delay() -> float:
    """Reads the seconds that this process's threads have waited for a processor so far."""
    waited = 0
    for one in Path("/proc/self/task").glob("*/schedstat"):
        try:
            waited += int(one.read_text().split()[1])
        except (OSError, IndexError):  # a thread has ended
            continue
    return waited / 1e9


def _summary(rounds: list[tuple[float, bool]]) -> Measured:
    clean = [seconds for seconds, good in rounds if good]
    if len(clean) >= CLEAN_ROUNDS:
        return Measured(statistics.median(clean), len(clean), len(rounds))
    return Measured(min(seconds for seconds, _ in rounds), len(clean), len(rounds))


def copy_call(elements: int, dtype: torch.dtype, device: torch.device) -> Callable[[], object]:
    """Makes a plain copy of that many elements: the ceiling of all that moves memory."""
    source = torch.ones(elements, dtype=dtype, device=device)
    target = torch.empty_like(source)
    return lambda: target.copy_(source)


def machine(device: torch.device) -> dict[str, Any]:
    """Describes the machine of the measurement."""
    facts = {
        "torch": torch.__version__,
        "python": platform.python_version(),
        "threads": torch.get_num_threads(),
        "processor": _processor(),
    }
    if device.type == "cuda":
        facts["gpu"] = torch.cuda.get_device_name(device)
        facts["cuda"] = torch.version.cuda
    return facts


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor()
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return f"{names[0]}, {len(names)} cores" if names else platform.machine()


def write_json(path: Path, data: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(data, indent=1) + "\n")
