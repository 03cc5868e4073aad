"""Trains the best generator preset there is on CIFAR-10-LT for some minutes of one GPU.

Measures the speed of a few steps, sets the budget that fits the minutes, trains, and leaves in
--out: the published generator (moving average of the weights, with its card and class grid), the
training log, the last sample grids, and `generator.json` with throughput, hardware, versions, the
command and the seed. The same command goes on where it was stopped. In miniature, as the test
runs it, on a CPU:

    python tools/gpu/generator.py --data ../shared/data --preset cpu32 --device cpu \\
        --batch 8 --minutes 0.2 --out /tmp/miniature
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import platform
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import torch

# The root in place of this folder: a machine on loan has no installed copy.
sys.path[0] = str(Path(__file__).resolve().parents[2])

from stylegan_mix import console, datasets, store
from stylegan_mix.generators import Published
from stylegan_mix.training import command
from stylegan_mix.training.game import begin
from stylegan_mix.training.graphs import player_of
from stylegan_mix.training.step import train_step


def main() -> None:
    """Prepares, measures, trains, collects; prints a short table last."""
    options, began = _options(), time.monotonic()
    os.environ["STYLEGAN_MIX_HOME"] = str(options.out / "store")
    options.out.mkdir(parents=True, exist_ok=True)
    console.set_up_process(options.threads)
    _prepare(options.data)
    plan = _plan(options)
    budget = options.out / "budget.json"
    if budget.exists():
        facts = store.read_json(budget)
    else:
        facts = _throughput(plan, options.steps, graphs=True)
        if plan.device == "cuda":
            alone = _throughput(plan, options.steps, graphs=False)
            facts["images_per_second_without_graphs"] = alone["images_per_second"]
        # Of what is left of the minutes, a quarter is for logs, pictures and checkpoints.
        left = max(options.minutes - (time.monotonic() - began) / 60, 0.1 * options.minutes)
        facts["kimg"] = round(max(facts["images_per_second"] * left * 0.045, 0.1), 1)
        store.write_json(budget, facts)
    plan = dataclasses.replace(plan, kimg=facts["kimg"])
    # Stopped in time it loses nothing: the same command goes on.
    left = max(options.minutes * 1.1 - (time.monotonic() - began) / 60, 0.1 * options.minutes)
    began = time.monotonic()
    try:
        with console.StopSignals(left) as stop:
            published = command.run_training(plan, stop)[0]
    except console.Failure as end:
        print(end, end.remedy or "", sep="\n", file=sys.stderr)
        raise SystemExit(end.code) from end
    facts["training_seconds"] = round(time.monotonic() - began, 1)
    _collect(options.out, plan, published, facts)


def _options() -> Any:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, required=True, help="folder of the CIFAR-10 draw")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--minutes", type=float, default=7.0, help="all in all, about")
    parser.add_argument("--preset", default="cifar")
    parser.add_argument("--precision", choices=["float32", "bfloat16"], default="bfloat16")
    parser.add_argument("--imbalance", type=float, default=100.0)
    parser.add_argument("--batch", type=int)
    parser.add_argument("--steps", type=int, default=20, help="steps that measure the speed")
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--threads", type=int)
    parser.add_argument("--seed", type=int, default=0)
    return parser.parse_args()


def _plan(options: Any) -> command.TrainPlan:
    changes = {"batch": options.batch, "precision": options.precision}
    return command.plan_training(
        datasets.load("cifar10_lt", imbalance=options.imbalance),
        preset=options.preset,
        kimg=None,
        seed=options.seed,
        device=options.device,
        command=" ".join(["python", *sys.argv]),
        changes={name: value for name, value in changes.items() if value is not None},
    )


def _prepare(data: Path) -> None:
    subprocess.run(
        [
            *(sys.executable, "-m", "stylegan_mix", "dataset", "prepare", "cifar10_lt"),
            *("--from", str(data / "cifar10-if10-webp.zip")),
            *("--index", str(data / "cifar10-if10-webp.index.csv")),
        ],
        check=True,
        env={**os.environ, "PYTHONPATH": sys.path[0]},
    )


def _throughput(plan: command.TrainPlan, steps: int, *, graphs: bool) -> dict[str, Any]:
    """Images a second over `steps` steps after a warm-up, R1 at its true share, and memory."""
    device = torch.device(plan.device)
    dataset, preset = plan.dataset, plan.preset
    state, game = begin(preset, dataset, seed=plan.seed, device=device)
    player = player_of(game, graphs)
    # Every kind of step must have become a graph, that of R1 too.
    warm = 5 * preset.r1_interval if device.type == "cuda" else max(steps // 4, 2)
    for _ in range(warm):
        train_step(state, game, player)
    _wait(device)
    began = time.monotonic()
    for _ in range(steps):
        train_step(state, game, player)
    _wait(device)
    rate = steps * preset.batch / (time.monotonic() - began)
    memory = torch.cuda.max_memory_allocated() if device.type == "cuda" else None
    return {"images_per_second": round(rate, 1), "steps_measured": steps, "peak_bytes": memory}


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize()


def _collect(
    out: Path, plan: command.TrainPlan, published: Published, facts: dict[str, Any]
) -> None:
    for path in published.folder.iterdir():
        shutil.copyfile(path, out / path.name)
    shutil.copyfile(plan.folder / "metrics.jsonl", out / "metrics.jsonl")
    for path in sorted((plan.folder / "grids").iterdir())[-2:]:
        shutil.copyfile(path, out / path.name)
    last = json.loads((plan.folder / "metrics.jsonl").read_text().splitlines()[-1])
    cuda = plan.device == "cuda"
    record = {
        **facts,
        "generator": published.hash,
        "preset": published.card["preset"],
        "seed": plan.seed,
        "diversity": published.card["diversity"],
        "last_log": last,
        "hardware": torch.cuda.get_device_name(0) if cuda else platform.processor() or "cpu",
        "torch": torch.__version__,
        "cuda": torch.version.cuda if cuda else None,
        "command": published.card["command"],
    }
    store.write_json(out / "generator.json", record)
    print(f"{'images/s':<14}{facts['images_per_second']:>12,.1f}")
    print(f"{'kimg':<14}{facts['kimg']:>12,.1f}")
    print(f"{'seconds':<14}{facts['training_seconds']:>12,.1f}")
    for name, ratio in zip(published.card["classes"], published.card["diversity"], strict=True):
        print(f"{name:<14}{'n/a' if ratio is None else format(ratio, '12.2f')}")


if __name__ == "__main__":
    main()
