"""Generation and a training step: compiled operators against the fallback, and where time goes.

    python tools/bench/generator.py --threads 2 --out tools/results/kernels/generator-cpu.json

For each number of channels and each precision, on synthetic 32-pixel images: images a second of
generation (batch 64) and of a training step (batch 32, R1 at its true share), with the compiled
operators and with KERNELS=reference, alternated; and how the time divides among convolutions, our
operators and the rest, by PyTorch's profiler.
"""

from __future__ import annotations

import argparse
import dataclasses
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.profiler import ProfilerActivity, profile

# The root in place of this folder, where kernels.py is not the package of that name.
sys.path[0] = str(Path(__file__).resolve().parents[2])

from kernels import native
from stylegan_mix import console
from stylegan_mix.presets import PRESETS, Preset
from stylegan_mix.training.augment import augmentation_named
from stylegan_mix.training.batches import RealImages
from stylegan_mix.training.state import TrainState
from stylegan_mix.training.step import Game, train_step
from tools.bench import timing

CLASSES = 10
GENERATION_BATCH = 64


def main() -> None:
    """Measures what the options ask for, prints a table, writes JSON."""
    options = _options()
    console.set_up_process(options.threads)
    device = torch.device(options.device)
    rows = []
    for channels in options.channels:
        for precision in options.precision:
            preset = dataclasses.replace(
                PRESETS["cpu32"],
                channel_base=32 * channels,
                channel_max=channels,
                precision=precision,
            )
            for name, batch, call in _jobs(preset, device):
                rows.append(_row(name, batch, call, preset, device, options.rounds))
                print(_line(rows[-1]), flush=True)
    if options.out:
        facts = {"machine": timing.machine(device), "operators": native.identity(device)}
        timing.write_json(options.out, {"schema": "bench-generator/1", **facts, "rows": rows})


def _jobs(preset: Preset, device: torch.device) -> list[tuple[str, int, Callable[[], object]]]:
    state = TrainState.fresh(
        preset, resolution=32, channels=3, counts=np.full(CLASSES, 20), seed=0, device=device
    )
    game = game_of_noise(preset, device)
    ws = torch.randn(GENERATION_BATCH, state.generator.synthesis.num_ws, preset.w_dim).to(device)

    def generate() -> object:
        with torch.no_grad():
            return state.generator.synthesis(ws)

    def train() -> None:
        for _ in range(preset.r1_interval):
            train_step(state, game)

    return [
        ("generation", GENERATION_BATCH, generate),
        ("training", preset.batch * preset.r1_interval, train),
    ]


def game_of_noise(preset: Preset, device: torch.device) -> Game:
    """The game of a preset on 200 images of noise."""
    images = np.random.default_rng(0).integers(0, 256, (200, 32, 32, 3), dtype=np.uint8)
    part = _Part(images, np.arange(200) % CLASSES)
    return Game(
        preset=preset,
        reals=RealImages(part, classes=CLASSES, power=1.0, device=device),
        seed=0,
        device=device,
        augmentation=augmentation_named(preset.augment),
        groups=torch.zeros(CLASSES, dtype=torch.int64, device=device),
    )


@dataclasses.dataclass(frozen=True)
class _Part:
    """A training part made of noise."""

    images: np.ndarray
    labels: np.ndarray


def _row(
    name: str,
    batch: int,
    call: Callable[[], object],
    preset: Preset,
    device: torch.device,
    rounds: int,
) -> dict[str, Any]:
    variants = {setting: _with(setting, call) for setting in ("native", "reference")}
    taken = timing.alternate(variants, device=device, rounds=rounds, round_seconds=0.5)
    rates = {setting: round(batch / one.seconds, 1) for setting, one in taken.items()}
    return {
        "job": name,
        "channels": preset.channel_max,
        "precision": preset.precision,
        "images_per_second": rates,
        "native_over_reference": round(rates["native"] / rates["reference"], 3),
        "share_of_time": {setting: _shares(one, device) for setting, one in variants.items()},
        "clean_rounds": {setting: one.clean for setting, one in taken.items()},
    }


def _with(setting: str, call: Callable[[], object]) -> Callable[[], object]:
    def run() -> object:
        os.environ["KERNELS"] = setting
        return call()

    return run


def _shares(call: Callable[[], object], device: torch.device) -> dict[str, float]:
    """Shares of the time in convolutions, in our operators, in matrix products, in the rest."""
    kinds = {"convolution": 0.0, "ours": 0.0, "matrix product": 0.0, "rest": 0.0}
    activities = [ProfilerActivity.CPU]
    activities += [ProfilerActivity.CUDA] if device.type == "cuda" else []
    with profile(activities=activities) as watched:
        call()
    for event in watched.key_averages():
        cuda = device.type == "cuda"
        took = event.self_device_time_total if cuda else event.self_cpu_time_total
        kinds[_kind(event.key)] += took
    total = sum(kinds.values()) or 1.0
    return {name: round(took / total, 3) for name, took in kinds.items()}


def _kind(name: str) -> str:
    if "kernels" in name or name.startswith(("_UpFirDn", "_PiecewiseLinear", "_Slope")):
        return "ours"
    if "conv" in name:
        return "convolution"
    if name in ("aten::mm", "aten::addmm", "aten::bmm"):
        return "matrix product"
    return "rest"


def _line(row: dict[str, Any]) -> str:
    rates, shares = row["images_per_second"], row["share_of_time"]["native"]
    return (
        f"{row['job']:10} {row['channels']:4} channels {row['precision']:8}  "
        f"native {rates['native']:8.1f}  reference {rates['reference']:8.1f} images/s  "
        f"({row['native_over_reference']:.2f}x)  time now: "
        + ", ".join(f"{name} {share:.0%}" for name, share in shares.items())
    )


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--device", default="cpu")
    add("--threads", type=int, default=2)
    add("--channels", type=int, nargs="+", default=[64, 128])
    add("--precision", nargs="+", default=["float32", "bfloat16"])
    add("--rounds", type=int, default=9)
    add("--out", type=Path)
    return parser.parse_args()


if __name__ == "__main__":
    main()
