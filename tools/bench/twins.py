"""Benchmark of generation and training, against slow twins and against the convolution's peak.

    python tools/bench/twins.py --threads 2 --out tools/results/kernels/twins-cpu.json

On synthetic 32-pixel images, for each number of channels: images a second of generation (batch 64)
and of training (batch 32, R1 at its share of one step in sixteen), all alternated in one run:

* `bfloat16`, `float32`: ours, channels last, compiled operators, replayed steps;
* `unfused`: float32, channels first, the operators of `kernels.reference`, one shared weight with
  scaled input and output: the composition with which the published code trains;
* `grouped`: the same with its own weights for every sample, in one grouped convolution: the
  composition with which the published code generates.

The peak is a 3x3 convolution, channels last, of as many channels at 32 pixels, in the same rounds.
The share is of its multiply-adds a second, counting those of convolutions alone.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import resource
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

# The root replaces this folder, whose kernels.py is not the package of that name.
sys.path[0] = str(Path(__file__).resolve().parents[2])

from kernels import dispatch, reference
from stylegan_mix import process
from stylegan_mix.networks import layers, synthesis
from stylegan_mix.networks.layers import convolve, demodulation
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

VARIANTS = {"bfloat16": "bfloat16", "float32": "float32", "unfused": "float32"}
VARIANTS["grouped"] = "float32"
OURS = ("bfloat16", "float32")


def unfused(
    x: Tensor, weight: Tensor, style: Tensor, resample_filter: Tensor, *, up: int = 1
) -> tuple[Tensor, Tensor]:
    """Scales the input, convolves with one shared weight: y [N,O,H',W'], output scales [N,O]."""
    y = convolve(x * style[:, :, None, None], weight, resample_filter, up=up)
    return y, demodulation(weight, style)


def grouped(
    x: Tensor, weight: Tensor, style: Tensor, resample_filter: Tensor, *, up: int = 1
) -> tuple[Tensor, Tensor]:
    """Convolves every sample with its own weights, as one grouped convolution; the scale is 1."""
    (n, _, height, width), (outs, ins, k, _) = x.shape, weight.shape
    weights = weight * style[:, None, :, None, None]
    weights = weights * demodulation(weight, style)[:, :, None, None, None]
    x = x.reshape(1, n * ins, height, width)
    if up == 1:
        y = functional.conv2d(x, weights.reshape(n * outs, ins, k, k), padding=k // 2, groups=n)
    else:
        turned = weights.transpose(1, 2).reshape(n * ins, outs, k, k)
        y = functional.conv_transpose2d(x, turned, stride=2, groups=n)
        y = _upfirdn2d(y, resample_filter, padding=1, gain=4)
    y = y.reshape(n, outs, *y.shape[2:])
    return y, torch.ones(n, outs)


def to_rgb(x: Tensor, weight: Tensor, style: Tensor) -> Tensor:
    """Scales the input and applies one shared weight: [N,O,H,W]."""
    return functional.conv2d(x * style[:, :, None, None], weight)


def variant(name: str, preset: Preset) -> dict[str, Callable[[], object]]:
    """Makes the jobs of a variant, on networks of its own."""
    preset = dataclasses.replace(preset, precision=VARIANTS[name])
    device = torch.device("cpu")
    state, game = begun(preset, device), game_of_noise(preset, device)
    if name in OURS:
        return replayed_jobs(state, game, nullcontext)
    for network in (state.generator, state.discriminator):
        _slow(network, unfused if name == "unfused" else grouped)
    return jobs(state, game, composed)


@contextmanager
def composed() -> Iterator[None]:
    """Replaces the fast form of every operator by its specification."""
    names = {
        "bias_act": reference.bias_act,
        "modulated_bias_act": reference.modulated_bias_act,
        "upfirdn2d": _upfirdn2d,
    }
    replaced = [
        (module, name, getattr(module, name))
        for module in (layers, synthesis)
        for name in names
        if hasattr(module, name)
    ]
    try:
        for module, name, _ in replaced:
            setattr(module, name, names[name])
        yield
    finally:
        for module, name, before in replaced:
            setattr(module, name, before)


def _upfirdn2d(
    x: Tensor, f: Tensor, *, up: int = 1, down: int = 1, padding: Any = 0, gain: float = 1
) -> Tensor:
    """Calls the specification with the public arguments that the networks use."""
    sides = (padding,) * 4 if isinstance(padding, int) else tuple(padding)
    return reference.upfirdn2d(x, f, up=(up, up), down=(down, down), padding=sides, gain=gain)


def _slow(network: nn.Module, convolution: Callable[..., Any]) -> None:
    module: Any
    for module in network.modules():
        if hasattr(module, "layout"):
            module.layout = torch.contiguous_format
        if isinstance(module, synthesis.StyledConvolution):
            module.convolution = convolution
        if isinstance(module, synthesis.ToRGB):
            module.convolution = to_rgb


def measure(channels: int, rounds: int) -> dict[str, Any]:
    """Measures one number of channels: rates, ratios and shares."""
    preset = dataclasses.replace(PRESETS["cpu32"], channel_base=32 * channels, channel_max=channels)
    jobs_of = {name: variant(name, preset) for name in VARIANTS}
    calls = {(name, job): call for name, own in jobs_of.items() for job, call in own.items()}
    peaks, device = {}, torch.device("cpu")
    for dtype in OURS:
        for batch in (GENERATION_BATCH, preset.batch):
            call, work = peak_call(channels, getattr(torch, dtype), batch, device)
            calls["peak", f"{dtype} {batch}"] = call
            peaks[f"{dtype} {batch}"] = work
    named = {f"{name}: {job}": call for (name, job), call in calls.items()}
    taken = timing.alternate(named, device=device, rounds=rounds, round_seconds=0.3)
    seconds = {key: taken[f"{key[0]}: {key[1]}"].seconds for key in calls}
    peak = {name: work / seconds["peak", name] for name, work in peaks.items()}
    each = work_of_jobs(preset, device)
    found = {
        name: rates({job: seconds[name, job] for job in own}, preset)
        for name, own in jobs_of.items()
    }
    images = {job: {name: found[name][job] for name in VARIANTS} for job in each}
    batches = {"generation": GENERATION_BATCH, "training": preset.batch}
    return {
        "channels": channels,
        "images_per_second": _rounded(images, 1),
        "share_of_peak": _rounded(
            {
                job: {n: own[n] * each[job] / peak[f"{n} {batches[job]}"] for n in OURS}
                for job, own in images.items()
            },
            3,
        ),
        "over": _rounded(
            {
                job: {
                    f"{n} over {slow}": own[n] / own[slow]
                    for n in OURS
                    for slow in VARIANTS
                    if slow not in OURS
                }
                for job, own in images.items()
            },
            2,
        ),
        "peak_gflops": {name: round(value / 1e9, 1) for name, value in peak.items()},
        "gflop_per_image": {name: round(value / 1e9, 4) for name, value in each.items()},
        "clean_rounds": {name: one.clean for name, one in taken.items()},
        "peak_memory_mib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024,
    }


def _rounded(table: dict[str, dict[str, float]], digits: int) -> dict[str, dict[str, float]]:
    return {
        name: {one: round(value, digits) for one, value in row.items()}
        for name, row in table.items()
    }


def table(rows: list[dict[str, Any]]) -> str:
    """Renders images a second as Markdown; ours with the share of the peak."""
    lines = [f"| | {' | '.join(VARIANTS)} |", "| --- " * (len(VARIANTS) + 1) + "|"]
    for job in ("generation", "training"):
        for row in rows:
            shares = row["share_of_peak"][job]
            cells = [
                f"{rate:,.0f} ({shares[name]:.2f})" if name in shares else f"{rate:,.0f}"
                for name, rate in row["images_per_second"][job].items()
            ]
            lines.append(f"| {job}, {row['channels']} channels | {' | '.join(cells)} |")
    return "\n".join(lines)


def main() -> None:
    """Measures, prints a table, writes JSON."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--channels", type=int, nargs="+", default=[64, 128])
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--out", type=Path)
    parser.add_argument("--table", type=Path, help="print this earlier file as Markdown, and stop")
    options = parser.parse_args()
    if options.table:
        print(table(json.loads(options.table.read_text())["rows"]))
        return
    process.set_up_process(options.threads)
    rows = []
    for channels in options.channels:
        rows.append(measure(channels, options.rounds))
        for job, found in rows[-1]["images_per_second"].items():
            shares = rows[-1]["share_of_peak"][job]
            shown = ", ".join(f"{name} {rate:.0f}" for name, rate in found.items())
            of = ", ".join(f"{name} {share:.2f}" for name, share in shares.items())
            print(f"{channels:4} channels, {job:10} images/s: {shown}; of the peak: {of}")
            print("     " + ", ".join(f"{n} {v:.2f}x" for n, v in rows[-1]["over"][job].items()))
    if options.out:
        device = torch.device("cpu")
        facts = {"machine": timing.machine(device), "operators": dispatch.identity(device)}
        timing.write_json(options.out, {"schema": "bench-twins/1", **facts, "rows": rows})


if __name__ == "__main__":
    main()
