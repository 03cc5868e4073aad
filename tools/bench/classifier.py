"""Benchmark of a classifier's training step, against the published pipeline and the convolutions.

    python tools/bench/classifier.py --threads 2 --out tools/results/classifier/steps-cpu.json
    python tools/bench/classifier.py --table tools/results/classifier/steps-cpu.json  # for Markdown

ResNet-32, 128 images of 32 x 32 pixels of noise, crop, flip and normalisation, SGD. All variants
alternate in one run, for each number of threads up to `--threads`:

* `ours`: a step of the trainer;
* `plain`: the same with KERNELS=reference, thus PyTorch's operators on channels-last images;
* `published`: PyTorch's operators channels first, in float32; every image is cropped, flipped and
  normalised by itself in the main process, with Pillow, as the published code does;
* `convolutions`: the convolutions of a step alone, PyTorch's on channels-last images: forward and
  both gradients. It is the ceiling that the machine sets to a step by these convolutions;
* `data`: the batch of `ours` alone.

A step is given in seconds of the wall clock and in CPU seconds. On a machine with other work the
second is the steadier, but with several threads it counts those that wait.

`--processes` measures runs side by side: as many processes as threads, with one thread each, then
one process with all threads, by turns. `profile` is the share of CPU time by kinds of operators.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import statistics
import sys
import time
from collections import defaultdict
from collections.abc import Callable, Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn
from torch.nn import functional
from torch.profiler import ProfilerActivity, profile

# The root replaces this folder, whose kernels.py is not the package of that name.
sys.path[0] = str(Path(__file__).resolve().parents[2])

from kernels import dispatch
from kernels.selfcheck import forced
from stylegan_mix import process
from stylegan_mix.rng import Draws, stream
from tools.bench import timing
from trainer import models
from trainer.engine import loop
from trainer.engine.batches import Batches
from trainer.engine.mixing import Streams
from trainer.models.classifier import Classifier
from trainer.objectives import Task
from trainer.recipes.catalogue import RECIPES
from trainer.spec import RunSpec

VARIANTS = ("ours", "plain", "published", "convolutions", "data")
CPU = torch.device("cpu")
# Kinds of operators -> words in the names that the profiler has for them.
KINDS = {
    "convolutions": ("conv3x3", "convolution"),
    "batch norm, addition, ReLU": (
        *("batch_norm", "batch_moments", "lerp", "clamp_min", "threshold", "aten::relu"),
        *("aten::add", "aten::fill_", "constant_pad"),
    ),
    "optimiser": ("SGD", "_foreach", "fused_sgd", "aten::mul_", "aten::zeros_like"),
}
Step = Callable[[], object]


def made_up(count: int, side: int) -> Any:
    """Makes a training set of noise with ten classes."""
    draws = np.random.default_rng(0)
    return SimpleNamespace(
        train=SimpleNamespace(
            images=draws.integers(0, 256, (count, side, side, 3), dtype=np.uint8),
            labels=np.arange(count) % 10,
        ),
        num_classes=10,
        counts=np.full(10, count // 10),
        resolution=side,
        channels=3,
        mean=(0.5, 0.5, 0.5),
        std=(0.25, 0.25, 0.25),
        flip=True,
    )


def network(name: str) -> Classifier:
    """Makes a network with weights of its own, ready for training."""
    model = models.build(name, classes=10, channels=3)
    models.initialise(model, 0)
    return model.train()


def sgd(model: nn.Module) -> torch.optim.SGD:
    """Makes the optimiser of the protocol."""
    return torch.optim.SGD(model.parameters(), lr=0.01, momentum=0.9, weight_decay=2e-4)


def batches_of(spec: RunSpec, data: Any) -> Batches:
    """Makes the trainer's batches of the recipe `ce`."""
    stage = RECIPES["ce"].stages[-1]
    return Batches(spec, data, stage=stage, number=0, bank=None, steps=10**6, device=CPU)


def trainers_step(spec: RunSpec, data: Any, operators: str) -> Step:
    """Makes a step of the trainer, with KERNELS as `operators`."""
    stage = RECIPES["ce"].stages[-1]
    model = network(spec.model)
    state = loop.State(model, sgd(model), loop.Tally(CPU))
    task = Task(tuple(int(count) for count in data.counts), None, model.width, 0)
    job = loop.Job(
        name="bench",
        steps=10**6,
        steps_per_epoch=10**6,
        batches=batches_of(spec, data),
        forward=stage.forward,
        losses=loop.Losses.of(stage.objective, task, None),
        teachers=(),
        after_step=stage.objective.after_step,
        rate=lambda step: 0.01,
        noise=lambda step: Draws(),
        streams=_streams,
        norms_follow=True,
        precision=spec.precision,
    )

    def step() -> None:
        with forced(operators):
            loop.one_step(job, state)
        state.step += 1

    return step


def _streams(step: int) -> Streams:
    return lambda name: stream(0, name, step)


def published_step(spec: RunSpec, data: Any) -> Step:
    """Makes a step of the published pipeline."""
    model = network(spec.model)
    for weight in model.parameters():
        weight.data = weight.data.contiguous()
    optimiser, draws = sgd(model), np.random.default_rng(0)
    mean, std = (torch.tensor(one)[:, None, None] for one in (data.mean, data.std))

    def step() -> None:
        rows = draws.integers(0, len(data.train.labels), spec.batch)
        images = torch.stack([one_image(data.train.images[row], draws, mean, std) for row in rows])
        labels = torch.from_numpy(data.train.labels[rows])
        with forced("reference"):
            loss = functional.cross_entropy(model(images).logits, labels)
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()

    return step


def one_image(pixels: np.ndarray, draws: np.random.Generator, mean: Tensor, std: Tensor) -> Tensor:
    """Crops, flips and normalises one image, [H,W,3] uint8 -> [3,H,W] float32."""
    side = pixels.shape[0]
    pad = side // 8
    wide = Image.new("RGB", (side + 2 * pad, side + 2 * pad))
    wide.paste(Image.fromarray(pixels), (pad, pad))
    left, top = (int(one) for one in draws.integers(0, 2 * pad + 1, 2))
    image = wide.crop((left, top, left + side, top + side))
    if draws.random() < 0.5:
        image = image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    planes = torch.from_numpy(np.array(image)).permute(2, 0, 1).to(torch.float32).div(255)
    return planes.sub(mean).div(std)


def convolutions(spec: RunSpec, side: int) -> Step:
    """Makes a call of all convolutions of a step alone, forward and both gradients."""
    model = network(spec.model)
    seen: list[tuple[Any, torch.Size, torch.Size]] = []

    def see(module: nn.Conv2d, inputs: tuple[Tensor], output: Tensor) -> None:
        seen.append((module, inputs[0].shape, output.shape))

    found = [part for part in model.modules() if isinstance(part, nn.Conv2d)]
    hooks = [part.register_forward_hook(see) for part in found]
    with torch.no_grad():
        called(model, torch.zeros(spec.batch, 3, side, side))
    for hook in hooks:
        hook.remove()
    images: dict[torch.Size, Tensor] = {}

    def image(shape: torch.Size) -> Tensor:
        if shape not in images:
            images[shape] = torch.randn(shape).contiguous(memory_format=torch.channels_last)
        return images[shape]

    def step() -> None:
        for place, (module, before, after) in enumerate(seen):
            x, weight = image(before), module.weight.detach()
            settings = list(module.stride), list(module.padding), list(module.dilation)
            functional.conv2d(x, weight, None, *settings)
            torch.ops.aten.convolution_backward(
                image(after), x, weight, None, *settings, False, [0, 0], 1, [place > 0, True, False]
            )

    return step


def called(model: Classifier, images: Tensor) -> None:
    """Runs a network so that its convolutions are called as modules, for hooks to see them."""
    from trainer.models import resnet

    before = resnet.convolved
    resnet.convolved = _as_module
    try:
        model(images.contiguous(memory_format=torch.channels_last))
    finally:
        resnet.convolved = before


def _as_module(convolution: nn.Conv2d, x: Tensor) -> Tensor:
    y: Tensor = convolution(x)
    return y


def variants(spec: RunSpec, side: int) -> dict[str, Step]:
    """Makes all variants, with networks of their own."""
    data = made_up(40 * spec.batch, side)
    batches, steps = batches_of(spec, data), iter(range(10**6))
    made: tuple[Step, ...] = (
        trainers_step(spec, data, "auto"),
        trainers_step(spec, data, "reference"),
        published_step(spec, data),
        convolutions(spec, side),
        lambda: batches(next(steps)),
    )
    return dict(zip(VARIANTS, made, strict=True))


def alternated(calls: Mapping[str, Step], rounds: int) -> dict[str, dict[str, float]]:
    """Times every variant in turn; returns medians of seconds of the wall clock and of CPUs."""
    taken: dict[str, list[tuple[float, float]]] = {name: [] for name in calls}
    for call in calls.values():
        call()
    for _ in range(rounds):
        for name, call in calls.items():
            wall, cpu = time.perf_counter(), time.process_time()
            call()
            taken[name].append((time.perf_counter() - wall, time.process_time() - cpu))
    return {
        name: {
            "wall": statistics.median(wall for wall, _ in each),
            "wall_least": min(wall for wall, _ in each),
            "cpu": statistics.median(cpu for _, cpu in each),
        }
        for name, each in taken.items()
    }


def summary(seconds: dict[str, dict[str, float]], batch: int) -> dict[str, Any]:
    """Makes the row of a number of threads: rates, and ratios by each clock."""
    row: dict[str, Any] = {
        "seconds": {n: {c: round(s, 5) for c, s in one.items()} for n, one in seconds.items()},
        "images_per_second": {n: round(batch / one["wall"], 1) for n, one in seconds.items()},
    }
    for clock in ("wall", "wall_least", "cpu"):
        of = {name: one[clock] for name, one in seconds.items()}
        row[f"ratios_{clock}"] = {
            "ours over published": round(of["published"] / of["ours"], 2),
            "ours over plain": round(of["plain"] / of["ours"], 2),
            "ours over the convolutions": round(of["convolutions"] / of["ours"], 2),
            "share of data": round(of["data"] / of["ours"], 4),
        }
    return row


def profiled(step: Step, steps: int) -> dict[str, float]:
    """Computes the share of CPU time in each kind of operator."""
    step()
    with profile(activities=[ProfilerActivity.CPU]) as watched:
        for _ in range(steps):
            step()
    shares: dict[str, float] = defaultdict(float)
    for event in watched.key_averages():
        kinds = [name for name, words in KINDS.items() if any(w in event.key for w in words)]
        shares[kinds[0] if kinds else "the rest"] += event.self_cpu_time_total
    whole = sum(shares.values())
    return {name: round(share / whole, 3) for name, share in sorted(shares.items())}


def side_by_side(spec: RunSpec, side: int, threads: int, rounds: int, seconds: float) -> Any:
    """Measures images a second of one process with all threads, and of one process a thread."""
    rates: dict[str, list[float]] = {"one process": [], "a process a thread": []}
    for _ in range(rounds):
        for name, count in (("one process", 1), ("a process a thread", threads)):
            rates[name].append(_rate_of(count, threads // count, spec, side, seconds))
    medians = {name: round(statistics.median(each), 1) for name, each in rates.items()}
    ratio = medians["a process a thread"] / medians["one process"]
    return {"images_per_second": medians, "processes over threads": round(ratio, 2)}


def _rate_of(processes: int, threads: int, spec: RunSpec, side: int, seconds: float) -> float:
    context = multiprocessing.get_context("spawn")
    ready = context.Barrier(processes)
    with context.Pool(processes, _remember, (ready,)) as pool:
        jobs = [(spec, side, threads, seconds)] * processes
        return sum(pool.starmap(_work, jobs, chunksize=1))


_shared: dict[str, Any] = {}


def _remember(ready: Any) -> None:
    _shared["ready"] = ready


def _work(spec: RunSpec, side: int, threads: int, seconds: float) -> float:
    """Trains for so long, once all processes are ready; returns images a second."""
    process.set_up_process(threads)
    step = trainers_step(spec, made_up(40 * spec.batch, side), "auto")
    step()
    _shared["ready"].wait()
    began, steps = time.perf_counter(), 0
    while time.perf_counter() - began < seconds:
        step()
        steps += 1
    return steps * spec.batch / (time.perf_counter() - began)


def table(found: dict[str, Any]) -> str:
    """Renders the ratios as Markdown."""
    names = list(found["rows"][0]["ratios_cpu"])
    lines = [f"| threads, clock | {' | '.join(names)} |", "| --- " * (len(names) + 1) + "|"]
    for row in found["rows"]:
        for clock in ("wall", "cpu") if row["threads"] == 1 else ("wall",):
            cells = [
                f"{value:.1%}" if name == "share of data" else f"{value:.2f}"
                for name, value in row[f"ratios_{clock}"].items()
            ]
            lines.append(f"| {row['threads']}, {clock} | {' | '.join(cells)} |")
    return "\n".join(lines)


def main() -> None:
    """Measures, prints a table, writes JSON."""
    options = _options()
    if options.table:
        print(table(json.loads(options.table.read_text())))
        return
    spec = RunSpec(model=options.model, batch=options.batch, precision=options.precision)
    process.set_up_process(1)
    rows = []
    for threads in sorted({1, options.threads}):
        torch.set_num_threads(threads)
        seconds = alternated(variants(spec, options.side), options.rounds)
        rows.append({"threads": threads, **summary(seconds, spec.batch)})
        print(f"{threads} threads: {json.dumps(rows[-1])}", flush=True)
    torch.set_num_threads(1)
    data = made_up(40 * spec.batch, options.side)
    found: dict[str, Any] = {
        "schema": "bench-classifier/1",
        "machine": {**timing.machine(CPU), "threads": options.threads},
        "operators": dispatch.identity(CPU),
        "model": spec.model,
        "batch": spec.batch,
        "side": options.side,
        "precision": spec.precision,
        "rounds": options.rounds,
        "rows": rows,
        "profile": {
            name: profiled(trainers_step(spec, data, choice), min(options.rounds, 3))
            for name, choice in (("ours", "auto"), ("plain", "reference"))
        },
    }
    if options.processes:
        found["side_by_side"] = side_by_side(
            spec, options.side, options.threads, options.processes, options.seconds
        )
    print(table(found))
    print(json.dumps({name: found[name] for name in ("profile", "side_by_side") if name in found}))
    if options.out:
        timing.write_json(options.out, found)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--model", default="resnet32")
    parser.add_argument("--batch", type=int, default=128)
    parser.add_argument("--side", type=int, default=32)
    parser.add_argument("--precision", choices=("float32", "bfloat16"), default="float32")
    parser.add_argument("--processes", type=int, default=0, help="rounds of runs side by side")
    parser.add_argument("--seconds", type=float, default=20, help="of each of those")
    parser.add_argument("--out", type=Path)
    parser.add_argument("--table", type=Path, help="print this earlier file as Markdown, and stop")
    return parser.parse_args()


if __name__ == "__main__":
    main()
