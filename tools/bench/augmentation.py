"""Cost of data preparation: the share of a training step that each policy of augmentation takes.

    python tools/bench/augmentation.py --threads 1 --out tools/results/kernels/augmentation-cpu.json
    python tools/bench/augmentation.py --table tools/results/kernels/augmentation-cpu.json

A batch is gathered, augmented and normalised. A step is one of the training loop: cross-entropy and
the plain policy. Images are noise of 32 pixels and three channels. The share of a policy is the
time of its batch, divided by the time of a step with that batch. Batches of all policies and steps
alternate. On one thread of a CPU, the time is that of the processor, so neighbours on a busy
machine do not count.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import torch

# The root replaces this folder, whose kernels.py is not the package of that name.
sys.path[0] = str(Path(__file__).resolve().parents[2])

from stylegan_mix import process
from stylegan_mix.datasets import Dataset
from stylegan_mix.rng import Draws, stream, torch_generator
from tools.bench import timing
from trainer import models
from trainer.engine import loop
from trainer.engine.augmentation.policies import FORMS
from trainer.engine.batches import Batches
from trainer.engine.features import Plain
from trainer.objectives import CrossEntropy, Task
from trainer.recipes.stage import Stage
from trainer.spec import RunSpec

POLICIES = tuple(form for form in FORMS if "-N-M" not in form)
CLASSES, IMAGES = 10, 5000
STEPS = 100_000  # of the training: more than any measurement takes
WARM = 2  # rounds
STAGE = Stage("train", CrossEntropy())


def main() -> None:
    """Measures the policies of the options, prints a table, writes JSON."""
    options = _options()
    if options.table:
        print(table(json.loads(options.table.read_text())))
        return
    process.set_up_process(options.threads)
    device = torch.device(options.device)
    data = noise()
    variants: dict[str, Callable[[], object]] = {
        name: preparation(RunSpec(augment=name, batch=options.batch), data, device)
        for name in options.policies
    }
    variants["step"] = training(RunSpec(model=options.model, batch=options.batch), data, device)
    if device.type == "cpu" and options.threads == 1:
        taken = processor_ms(variants, options.rounds)
    else:
        measured = timing.alternate(variants, device=device, rounds=options.rounds)
        taken = {name: one.seconds * 1e3 for name, one in measured.items()}
    found = {
        "schema": "bench-augmentation/1",
        "machine": timing.machine(device),
        "model": options.model,
        "batch": options.batch,
        "rows": shares(taken),
    }
    print(table(found))
    if options.out:
        timing.write_json(options.out, found)


def noise() -> Dataset:
    """Makes a data set of noise, with the attributes that batches read."""
    images = np.random.default_rng(0).integers(0, 256, (IMAGES, 32, 32, 3), "u1")
    made = SimpleNamespace(
        train=SimpleNamespace(images=images, labels=np.arange(IMAGES) % CLASSES),
        counts=np.full(CLASSES, IMAGES // CLASSES),
        num_classes=CLASSES,
        channels=3,
        resolution=32,
        mean=(0.5,) * 3,
        std=(0.29,) * 3,
        flip=True,
    )
    return cast(Dataset, made)


def batches_of(spec: RunSpec, data: Dataset, device: torch.device) -> Batches:
    """Makes the batches of a run of the plain arm."""
    return Batches(spec, data, stage=STAGE, number=0, bank=None, steps=STEPS, device=device)


def preparation(spec: RunSpec, data: Dataset, device: torch.device) -> Callable[[], object]:
    """Makes the call that prepares the next batch."""
    made = batches_of(spec, data, device)
    number = iter(range(STEPS))
    return lambda: made(next(number))


def training(spec: RunSpec, data: Dataset, device: torch.device) -> Callable[[], object]:
    """Makes the call that takes the next step of a training, its batch included."""
    model = models.build(spec.model, classes=CLASSES, channels=data.channels)
    models.initialise(model, spec.seed)
    model.to(device)
    task = Task(tuple(int(count) for count in data.counts))
    job = loop.Job(
        name=STAGE.name,
        steps=STEPS,
        steps_per_epoch=STEPS,
        batches=batches_of(spec, data, device),
        forward=Plain(),
        losses=loop.Losses.of(STAGE.objective, task, None),
        teachers=(),
        after_step=STAGE.objective.after_step,
        rate=lambda step: 0.01,
        noise=lambda step: Draws(torch_generator(0, "bench.noise", step, device=device)),
        streams=lambda step: lambda name: stream(0, name, step),
        norms_follow=True,
        precision=spec.precision,
    )
    optimiser = torch.optim.SGD(model.parameters(), lr=0.01, momentum=spec.momentum)
    state = loop.State(model, optimiser, loop.Tally(device))

    def step() -> None:
        loop.one_step(job, state)
        state.step += 1

    return step


def processor_ms(variants: dict[str, Callable[[], object]], rounds: int) -> dict[str, float]:
    """Measures milliseconds of the processor that a call takes: the median of the rounds."""
    taken: dict[str, list[float]] = {name: [] for name in variants}
    for turn in range(WARM + rounds):
        for name, call in variants.items():
            began = time.process_time()
            call()
            if turn >= WARM:
                taken[name].append((time.process_time() - began) * 1e3)
    return {name: statistics.median(one) for name, one in taken.items()}


def shares(taken: dict[str, float]) -> list[dict[str, Any]]:
    """Makes a row for each policy, with its share of a step, and a last one for the step."""
    bare = taken["step"] - taken["plain"]
    rows = [
        {"name": name, "ms": round(ms, 3), "share": round(ms / (bare + ms), 4)}
        for name, ms in taken.items()
        if name != "step"
    ]
    return [*rows, {"name": "step", "ms": round(taken["step"], 3), "share": None}]


def table(found: dict[str, Any]) -> str:
    """Writes the measurement as Markdown."""
    machine = found["machine"]
    where = machine.get("gpu") or f"{machine['processor']}, {machine['threads']} thread(s)"
    lines = [
        "| policy | batch, ms | share of a step |",
        "| --- | ---: | ---: |",
        *(
            f"| `{row['name']}` | {row['ms']:.1f} | {row['share']:.1%} |"
            for row in found["rows"]
            if row["share"] is not None
        ),
    ]
    (step,) = (row["ms"] for row in found["rows"] if row["name"] == "step")
    about = f"{found['model']}, batch {found['batch']}, {step:,.0f} ms a step; {where}, torch"
    return "\n".join([*lines, "", f"{about} {machine['torch']}."])


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--threads", type=int, default=1)
    add("--device", default="cpu")
    add("--model", default="resnet32")
    add("--batch", type=int, default=128)
    add("--policies", nargs="+", default=POLICIES, help="'plain' must be one of them")
    add("--rounds", type=int, default=15)
    add("--out", type=Path)
    add("--table", type=Path, help="print this earlier file as Markdown, and stop")
    return parser.parse_args()


if __name__ == "__main__":
    main()
