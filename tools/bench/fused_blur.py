"""Upper bound on the gain from fusing the up-convolution's filter with the epilogue behind it.

    python tools/bench/fused_blur.py --threads 2 --out tools/results/kernels/fused-blur.json

A fused operator reads and writes as much as the filter alone, and computes more. So the filter's
time is a lower bound on its own time, and the epilogue's time an upper bound on the saving. That is
compared with the time of the whole generator, without gradients, and of its up-sampling layers.
"""

from __future__ import annotations

import argparse
import dataclasses
import sys
from pathlib import Path
from typing import Any

import torch

# The root replaces this folder, whose kernels.py is not the package of that name.
sys.path[0] = str(Path(__file__).resolve().parents[2])

from kernels import dispatch, modulated_bias_act, setup_filter, upfirdn2d
from stylegan_mix import process
from stylegan_mix.presets import PRESETS
from tools.bench import timing
from tools.bench.generator import begun

FILTER = setup_filter([1, 3, 3, 1])
SIZES = (8, 16, 32)  # output sizes of the up-sampling layers


def main() -> None:
    """Measures the cases of the options, prints a table, writes JSON."""
    options = _options()
    process.set_up_process(options.threads)
    device = torch.device("cpu")
    rows = []
    for channels in options.channels:
        for batch in options.batch:
            rows.append(_row(channels, batch, options.rounds, device))
            print(_line(rows[-1]), flush=True)
    if options.out:
        facts = {"machine": timing.machine(device), "operators": dispatch.identity(device)}
        timing.write_json(options.out, {"schema": "bench-fused-blur/1", **facts, "rows": rows})


def _row(channels: int, batch: int, rounds: int, device: torch.device) -> dict[str, Any]:
    preset = dataclasses.replace(
        PRESETS["cpu32"], channel_base=32 * channels, channel_max=channels, precision="float32"
    )
    synthesis = begun(preset, device).generator.synthesis
    ws = torch.randn(batch, synthesis.num_ws, preset.w_dim)
    variants = {"generator": lambda: synthesis(ws)}
    for size in SIZES:
        variants |= _layer(channels, batch, size)
    with torch.no_grad():
        taken = timing.alternate(variants, device=device, rounds=rounds, round_seconds=0.05)
    times = {name: one.plain() for name, one in taken.items()}
    saved = sum(taken[f"both {size}"].seconds - taken[f"filter {size}"].seconds for size in SIZES)
    return {
        "channels": channels,
        "batch": batch,
        "times": times,
        "share_saved_at_most": round(saved / taken["generator"].seconds, 4),
    }


def _layer(channels: int, batch: int, size: int) -> dict[str, Any]:
    """Makes the steps after the transposed convolution to `size` pixels: the filter, and both."""
    x = torch.randn(batch, channels, size + 1, size + 1).to(memory_format=torch.channels_last)
    d, b = torch.rand(batch, channels), torch.randn(channels)
    noise, strength = torch.randn(1, 1, size, size), torch.tensor(0.1)

    def filtered() -> torch.Tensor:
        return upfirdn2d(x, FILTER, padding=1, gain=4)

    def both() -> torch.Tensor:
        return modulated_bias_act(filtered(), d, b, noise=noise, strength=strength, clamp=256.0)

    return {f"filter {size}": filtered, f"both {size}": both}


def _line(row: dict[str, Any]) -> str:
    times = "  ".join(f"{name} {one['ms']:.3f}" for name, one in row["times"].items())
    return (
        f"{row['channels']:4} channels, batch {row['batch']:3}: {times} ms; "
        f"a fused operator saves less than {row['share_saved_at_most']:.1%} of the generator's time"
    )


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--threads", type=int, default=2)
    add("--channels", type=int, nargs="+", default=[64, 128])
    add("--batch", type=int, nargs="+", default=[32])
    add("--rounds", type=int, default=15)
    add("--out", type=Path)
    return parser.parse_args()


if __name__ == "__main__":
    main()
