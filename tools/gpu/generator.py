"""Training of the best generator preset on CIFAR-10-LT in some minutes of one GPU.

Measures the speed of a few steps and sets the budget that fits --minutes, or takes that of --kimg
for any time. Then it trains, and leaves in --out: the published generator (EMA of the weights, with
its card and class grid), the training log, the last sample grids, and `generator.json` with
throughput, hardware, versions, the command and the seed. The same command with the same --store
goes on after a stop. Log and grids are in --out after a stop, too.

With --pieces MIB, if only small files can be fetched, --out has weights rounded to bfloat16 in
place of the published folder, packed into files of at most so many MiB each:

    cat generator.tar.gz.* | tar xz -C $STYLEGAN_MIX_HOME/generators

In miniature, as the test runs it, on a CPU:

    python tools/gpu/generator.py --data ../shared/data --preset cpu32 --device cpu \\
        --batch 8 --kimg 0.1 --out /tmp/miniature
"""

from __future__ import annotations

import argparse
import dataclasses
import io
import json
import os
import platform
import shutil
import subprocess
import sys
import tarfile
import time
from pathlib import Path
from typing import Any

import torch
from PIL import Image

# The root replaces this folder: a borrowed machine has no installed copy.
sys.path[0] = str(Path(__file__).resolve().parents[2])

from stylegan_mix import checkpoint, datasets, errors, process, stopping, store
from stylegan_mix.generators import store as generator_store
from stylegan_mix.generators.store import Published
from stylegan_mix.session import Session
from stylegan_mix.training.captured_steps import player_of
from stylegan_mix.training.plan import TrainPlan, plan_training
from stylegan_mix.training.run import run_training
from stylegan_mix.training.step import train_step
from stylegan_mix.training.step_inputs import begin


def main() -> None:
    """Prepares, measures, trains, collects; prints a short table last."""
    options, began = _options(), time.monotonic()
    kept = options.store or options.out / "store"
    os.environ["STYLEGAN_MIX_HOME"] = str(kept)
    options.out.mkdir(parents=True, exist_ok=True)
    process.set_up_process(options.threads)
    _prepare(options.data)
    plan = _plan(options)
    budget = kept / "budget.json"
    if budget.exists():
        facts = store.read_json(budget)
    else:
        facts = _throughput(plan, options.steps, graphs=True)
        if plan.device.startswith("cuda"):
            alone = _throughput(plan, options.steps, graphs=False)
            facts["images_per_second_without_graphs"] = alone["images_per_second"]
        left = _left(options.minutes, began)
        facts["kimg"] = options.kimg or _kimg_in(left, facts["images_per_second"])
        store.write_json(budget, facts)
    plan = dataclasses.replace(plan, kimg=facts["kimg"])
    # A training stopped in time loses nothing: the same command goes on.
    minutes = None if options.kimg else _left(1.1 * options.minutes, began)
    began = time.monotonic()
    try:
        with stopping.StopSignals(minutes) as stop:
            published = run_training(plan, Session(stop))[0]
    except errors.Failure as end:
        _copy_log(plan.folder, options.out)
        print(end, end.remedy or "", sep="\n", file=sys.stderr)
        raise SystemExit(end.code) from end
    facts["training_seconds"] = round(time.monotonic() - began, 1)
    _copy_log(plan.folder, options.out)
    if options.pieces:
        _pack(published, options.out, options.pieces)
    else:
        for path in published.folder.iterdir():
            shutil.copyfile(path, options.out / path.name)
    _record(options.out, plan, published, facts)


def _left(minutes: float, began: float) -> float:
    """Computes the minutes left of `minutes` since `began`, at least a tenth of them."""
    return max(minutes - (time.monotonic() - began) / 60, 0.1 * minutes)


def _kimg_in(minutes: float, images_per_second: float) -> float:
    """Computes the budget that fits; a quarter of the time is for logs, grids, checkpoints."""
    return round(max(0.75 * minutes * 60 * images_per_second / 1000, 0.1), 1)


def _options() -> Any:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, required=True, help="folder of the CIFAR-10 draw")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--store", type=Path, help="what a stop leaves, in --out if not said")
    parser.add_argument("--pieces", type=float, metavar="MIB")
    budget = parser.add_mutually_exclusive_group()
    budget.add_argument("--minutes", type=float, default=7.0, help="all in all, about")
    budget.add_argument("--kimg", type=float, help="thousands of images, however long they take")
    parser.add_argument("--preset", default="cifar")
    parser.add_argument("--precision", choices=["float32", "bfloat16"], default="bfloat16")
    parser.add_argument("--imbalance", type=float, default=100.0)
    parser.add_argument("--batch", type=int)
    parser.add_argument("--steps", type=int, default=20, help="steps that measure the speed")
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--threads", type=int)
    parser.add_argument("--seed", type=int, default=0)
    return parser.parse_args()


def _plan(options: Any) -> TrainPlan:
    changes = {"batch": options.batch, "precision": options.precision}
    return plan_training(
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
        env={
            **os.environ,
            "PYTHONPATH": os.pathsep.join([sys.path[0], os.environ.get("PYTHONPATH", "")]),
        },
    )


def _throughput(plan: TrainPlan, steps: int, *, graphs: bool) -> dict[str, Any]:
    """Measures images a second over `steps` steps after a warm-up, with R1's share, and memory."""
    device = torch.device(plan.device)
    dataset, preset = plan.dataset, plan.preset
    state, game = begin(preset, dataset, seed=plan.seed, device=device)
    player = player_of(game, graphs)
    # Every kind of step must have become a graph, including that with R1.
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


def _copy_log(folder: Path, out: Path) -> None:
    """Copies the log of a training and its last two grids, as far as it came."""
    for path in (*folder.glob("metrics.jsonl"), *sorted(folder.glob("grids/*"))[-2:]):
        shutil.copyfile(path, out / path.name)


def _pack(published: Published, out: Path, mib: float) -> None:
    """Packs the generator in pieces, its weights rounded to bfloat16, whose zeros pack well."""
    weights, _ = checkpoint.load(published.folder, kind=generator_store.GENERATOR_KIND)
    rounded = {
        name: value.bfloat16().to(value.dtype) if value.is_floating_point() else value
        for name, value in weights.items()
    }
    grid = published.folder / "grid.png"
    # Not into the store, which would take it for the finished generator.
    before, os.environ["STYLEGAN_MIX_HOME"] = store.home(), str(store.home() / "rounded")
    with Image.open(grid) as picture:
        small = generator_store.publish(rounded, published.card, picture)
    os.environ["STYLEGAN_MIX_HOME"] = str(before)
    packed, most = io.BytesIO(), int(mib * 2**20)
    with tarfile.open(fileobj=packed, mode="w:gz") as archive:
        archive.add(small.folder, arcname=small.hash)
    for place, start in enumerate(range(0, len(packed.getvalue()), most)):
        piece = packed.getvalue()[start : start + most]
        (out / f"generator.tar.gz.{place:02}").write_bytes(piece)
    shutil.copyfile(grid, out / grid.name)


def _record(out: Path, plan: TrainPlan, published: Published, facts: dict[str, Any]) -> None:
    """Writes `generator.json` and prints the table."""
    last = json.loads((plan.folder / "metrics.jsonl").read_text().splitlines()[-1])
    cuda = plan.device.startswith("cuda")
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
