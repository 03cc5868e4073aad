"""Benchmark of generation and a training step: compiled operators against the fallback.

    python tools/bench/generator.py --threads 2 --out tools/results/kernels/generator-cpu.json

For each number of channels and each precision, on synthetic 32-pixel images: images a second of
generation (batch 64) and of training (batch 32, R1 in one step of sixteen). The compiled operators
and KERNELS=reference alternate. PyTorch's profiler divides the time among convolutions, our other
operators and the rest.
"""

from __future__ import annotations

import argparse
import dataclasses
import functools
import sys
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from torch.autograd import DeviceType
from torch.profiler import ProfilerActivity, profile

# The root replaces this folder, whose kernels.py is not the package of that name.
sys.path[0] = str(Path(__file__).resolve().parents[2])

from kernels import dispatch
from kernels.selfcheck import forced
from stylegan_mix import process
from stylegan_mix.datasets import Dataset, Part
from stylegan_mix.presets import PRESETS, Preset
from stylegan_mix.training.captured_steps import player_of
from stylegan_mix.training.state import TrainState
from stylegan_mix.training.step import Facts, play, train_step
from stylegan_mix.training.step_inputs import Game
from tools.bench import timing

CLASSES = 10
GENERATION_BATCH = 64
# Steps of a kind before it is replayed; the fourth is captured.
WARM = 5


def main() -> None:
    """Measures the cases of the options, prints a table, writes JSON."""
    options = _options()
    process.set_up_process(options.threads)
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
            for row in _rows(preset, device, options.rounds):
                rows.append(row)
                print(_line(row), flush=True)
    if options.out:
        facts = {"machine": timing.machine(device), "operators": dispatch.identity(device)}
        timing.write_json(options.out, {"schema": "bench-generator/1", **facts, "rows": rows})


def jobs(
    state: TrainState,
    game: Game,
    within: Callable[[], AbstractContextManager[object]],
    player: Callable[[TrainState, Game], Facts] = play,
) -> dict[str, Callable[[], object]]:
    """Makes a generation of 64 images, a step without and one with R1, each inside `within()`.

    The steps have no path length. `player` plays them.
    """
    ws = torch.randn(GENERATION_BATCH, state.generator.num_ws, game.preset.w_dim).to(game.device)

    def generate() -> None:
        with torch.no_grad(), within():
            state.generator.synthesis(ws)

    def step(number: int) -> Callable[[], object]:
        def run() -> None:
            state.step = number
            with within():
                train_step(state, game, player)

        return run

    return {"generation": generate, "step": step(1), "step with R1": step(0)}


def replayed_jobs(
    state: TrainState, game: Game, within: Callable[[], AbstractContextManager[object]]
) -> dict[str, Callable[[], object]]:
    """Makes the jobs with a player that replays their steps from now on.

    RuntimeError if they cannot be replayed on this device.
    """
    player = player_of(game, graphs=True)
    made = jobs(state, game, within, player)
    for _ in range(WARM):
        for name in ("step", "step with R1"):
            made[name]()
    failure = getattr(player, "failure", None)
    if failure:
        raise RuntimeError(f"steps are not replayed: {failure}")
    return made


def rates(seconds: dict[str, float], preset: Preset) -> dict[str, float]:
    """Computes images a second of generation and of training from the seconds of the jobs."""
    plain, with_r1 = seconds["step"], seconds["step with R1"]
    whole = plain + (with_r1 - plain) / preset.r1_interval
    return {
        "generation": GENERATION_BATCH / seconds["generation"],
        "training": preset.batch / whole,
    }


def begun(preset: Preset, device: torch.device) -> TrainState:
    """Begins a fresh training of the preset on 32-pixel images."""
    counts = np.full(CLASSES, 20)
    return TrainState.fresh(preset, resolution=32, channels=3, counts=counts, seed=0, device=device)


def game_of_noise(preset: Preset, device: torch.device) -> Game:
    """Makes the game of a preset on 200 images of noise."""
    images = np.random.default_rng(0).integers(0, 256, (200, 32, 32, 3), dtype=np.uint8)
    noise = _Noise(Part(images, np.arange(200) % CLASSES), CLASSES, np.full(CLASSES, 20))
    return Game.of(preset, cast(Dataset, noise), seed=0, device=device)


@dataclasses.dataclass(frozen=True)
class _Noise:
    """A data set of noise, with the attributes that a game reads."""

    train: Part
    num_classes: int
    counts: np.ndarray


def _rows(preset: Preset, device: torch.device, rounds: int) -> list[dict[str, Any]]:
    state, game = begun(preset, device), game_of_noise(preset, device)
    settings = ("native", "reference")
    # Each variant replays its own operators, on the same networks.
    calls = {one: replayed_jobs(state, game, functools.partial(forced, one)) for one in settings}
    named = {f"{one}: {job}": call for one in settings for job, call in calls[one].items()}
    taken = timing.alternate(named, device=device, rounds=rounds, round_seconds=0.5)
    found = {
        one: rates({job: taken[f"{one}: {job}"].seconds for job in calls[one]}, preset)
        for one in settings
    }
    watched = {"generation": "generation", "training": "step"}
    return [
        {
            "job": job,
            "channels": preset.channel_max,
            "precision": preset.precision,
            "images_per_second": {one: round(found[one][job], 1) for one in settings},
            "native_over_reference": round(found["native"][job] / found["reference"][job], 3),
            "share_of_time": {one: _shares(calls[one][watched[job]], device) for one in settings},
            "clean_rounds": {one: taken[f"{one}: {watched[job]}"].clean for one in settings},
        }
        for job in watched
    ]


def _shares(call: Callable[[], object], device: torch.device) -> dict[str, float]:
    """Divides the time among convolutions, our other operators, matrix products, the rest."""
    kinds = {"convolution": 0.0, "ours": 0.0, "matrix product": 0.0, "rest": 0.0}
    activities = [ProfilerActivity.CPU]
    activities += [ProfilerActivity.CUDA] if device.type == "cuda" else []
    with profile(activities=activities) as watched:
        call()
    cuda = device.type == "cuda"
    for event in watched.key_averages():
        if event.device_type != DeviceType.CPU:
            continue  # a kernel: its time is also that of the operator that launched it
        took = event.self_device_time_total if cuda else event.self_cpu_time_total
        kinds[_kind(event.key)] += took
    total = sum(kinds.values()) or 1.0
    return {name: round(took / total, 3) for name, took in kinds.items()}


def _kind(name: str) -> str:
    if "conv" in name:
        return "convolution"
    if "kernels" in name or name.startswith(("_UpFirDn", "_PiecewiseLinear", "_Slope")):
        return "ours"
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
