"""Benchmark of the 3x3 convolution against PyTorch's: forward and the gradients of x and filter.

    python tools/bench/convolution.py --threads 2 --out tools/results/kernels/convolution-cpu.json
    python tools/bench/convolution.py --table tools/results/kernels/convolution-cpu.json

Channels last, as many channels out as in, alternated in one run. The error of each is the root mean
square against float64, as a share of the standard deviation of the float64 result. PyTorch's
convolution has its filter in the dtype and layout of the images; ours takes it in float32.
Operations are counted as those of the sum over the taps, for every way of computing it.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

# The root replaces this folder, whose kernels.py is not the package of that name.
sys.path[0] = str(Path(__file__).resolve().parents[2])

from kernels import conv3x3, dispatch
from stylegan_mix import process
from tools.bench import timing

PASSES = ("forward", "gradient of x", "gradient of the filter")
Function = Callable[[Tensor, Tensor], Tensor]


def torchs(x: Tensor, weight: Tensor) -> Tensor:
    """Computes PyTorch's convolution: [N,I,H,W], [O,I,3,3] -> [N,O,H,W]."""
    return functional.conv2d(x, weight, padding=1)


FUNCTIONS: dict[str, Function] = {"ours": conv3x3, "torch": torchs}


def main() -> None:
    """Measures the cases of the options, prints a line for each, writes JSON."""
    options = _options()
    if options.table:
        print(table(json.loads(options.table.read_text())["rows"]))
        return
    process.set_up_process(options.threads)
    device = torch.device("cpu")
    rows = []
    for dtype in options.dtype:
        for channels in options.channels:
            for size in options.size:
                shape = (options.batch, channels, size, size)
                rows += measured(shape, getattr(torch, dtype), options.rounds, device)
    print(table(rows))
    if options.out:
        facts = {"machine": timing.machine(device), "operators": dispatch.identity(device)}
        timing.write_json(options.out, {"schema": "bench-convolution/1", **facts, "rows": rows})


def measured(
    shape: tuple[int, int, int, int], dtype: torch.dtype, rounds: int, device: torch.device
) -> list[dict[str, Any]]:
    """Measures a row for each pass: times, operations a second, errors."""
    n, channels, height, width = shape
    generator = torch.Generator().manual_seed(0)

    def drawn(*sizes: int) -> Tensor:
        return torch.randn(sizes, generator=generator)

    x, dy = (drawn(*shape).to(dtype, memory_format=torch.channels_last) for _ in range(2))
    weight = drawn(channels, channels, 3, 3) / (9 * channels) ** 0.5
    narrow = weight.to(dtype, memory_format=torch.channels_last)
    truth = passes(torchs, x.double(), weight.double(), dy.double())
    calls = {
        "ours": passes(conv3x3, x, weight, dy),
        "torch": passes(torchs, x, narrow, dy),
    }
    named = {f"{who} {one}": call for who, own in calls.items() for one, call in own.items()}
    taken = timing.alternate(named, device=device, rounds=rounds)
    work = 2.0 * n * height * width * 9 * channels**2
    return [
        {
            "pass": one,
            "shape": list(shape),
            "dtype": str(dtype).removeprefix("torch."),
            "times": {who: taken[f"{who} {one}"].plain() for who in calls},
            "gflops": {who: round(work / taken[f"{who} {one}"].seconds / 1e9) for who in calls},
            "error": {who: _short(off(own[one](), truth[one]())) for who, own in calls.items()},
            "torch_over_ours": round(
                taken[f"torch {one}"].seconds / taken[f"ours {one}"].seconds, 2
            ),
        }
        for one in PASSES
    ]


def passes(
    function: Function, x: Tensor, weight: Tensor, dy: Tensor
) -> dict[str, Callable[[], Tensor]]:
    """Makes the three passes as calls; a gradient runs backward through a graph that is kept."""

    def forward() -> Tensor:
        with torch.no_grad():
            return function(x, weight)

    def gradient(number: int) -> Callable[[], Tensor]:
        inputs = [x.detach(), weight.detach()]
        of = inputs[number].requires_grad_()
        y = function(*inputs)
        return lambda: torch.autograd.grad(y, of, dy, retain_graph=True)[0]

    return dict(zip(PASSES, (forward, gradient(0), gradient(1)), strict=True))


def off(value: Tensor, truth: Tensor) -> float:
    """Computes the root mean square error, as a share of the standard deviation of the truth."""
    return float((value.double() - truth).square().mean().sqrt() / truth.std())


def _short(value: float) -> float:
    return float(f"{value:.2e}")


def table(rows: list[dict[str, Any]]) -> str:
    """Renders Markdown: operations a second and errors, forward / of x / of the filter."""
    lines = ["| | GFLOP/s | PyTorch's | × as fast | error | PyTorch's |", "| --- " * 6 + "|"]
    cases = [rows[at : at + len(PASSES)] for at in range(0, len(rows), len(PASSES))]
    for case in cases:
        _, channels, size, _ = case[0]["shape"]
        cells = [f"{case[0]['dtype']}, {channels} channels, {size} pixels"]
        for name in FUNCTIONS:
            cells.append(" / ".join(f"{row['gflops'][name]:,}" for row in case))
        cells.append(" / ".join(f"{row['torch_over_ours']:.1f}" for row in case))
        for name in FUNCTIONS:
            cells.append(" / ".join(f"{row['error'][name]:.1e}" for row in case))
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--threads", type=int, default=2)
    add("--batch", type=int, default=32)
    add("--channels", type=int, nargs="+", default=[64, 128])
    add("--size", type=int, nargs="+", default=[32, 16, 8])
    add("--dtype", nargs="+", default=["float32", "bfloat16"])
    add("--rounds", type=int, default=15)
    add("--out", type=Path)
    add("--table", type=Path, help="print this earlier file as Markdown, and stop")
    return parser.parse_args()


if __name__ == "__main__":
    main()
