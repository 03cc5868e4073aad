"""The cost of a run before it starts: exact steps and images, a range of time from a few steps.

A step of the whole batch may take long, so the first steps that are timed have few images.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F

from stylegan_mix.datasets import Dataset
from stylegan_mix.estimates import Form, Span, measured
from stylegan_mix.process import one_thread_if_busy, resolve_device
from trainer import models
from trainer.engine.loop import autocast
from trainer.engine.run import budget, disk_bytes
from trainer.settings import check, method
from trainer.spec import FEWEST_IN_BATCH, RunSpec

__all__ = ["estimate", "step_seconds"]

TIMED_STEPS = 5
# Factors for fetching and augmenting batches, teachers and evaluations, beside network steps.
LEAST_MORE, MOST_MORE = 1.1, 1.5


def estimate(spec: RunSpec, data: Dataset, device: str) -> dict[str, Any]:
    """Estimates stages, steps, images, evaluations, bytes on disk and seconds of one run.

    `seconds` is a `Span`.
    """
    planned = budget(spec, data)
    place = torch.device(resolve_device(device))
    return {
        **planned,
        "device": str(place),
        "seconds": step_seconds(spec, data, place).times(planned["steps"]),
        "bytes": disk_bytes(spec, data),
    }


def step_seconds(spec: RunSpec, data: Dataset, device: torch.device) -> Span:
    """Estimates the seconds of a step, with its share of all other work."""
    rows = spec.most_rows * _showings(spec)
    batches = sorted({max(rows >> halvings, FEWEST_IN_BATCH) for halvings in (0, 2, 4, 6)})
    forms = [
        Form(batch, partial(_steps, spec, data, batch, device), runs=TIMED_STEPS)
        for batch in batches
    ]
    with one_thread_if_busy() as threads:
        step = measured(forms)
    return step.in_threads(threads).stretched(LEAST_MORE, MOST_MORE)


def _showings(spec: RunSpec) -> int:
    """Counts how often a step shows each image to the network: once, and in each further view."""
    own = check(spec).own_stages(given_teacher=bool(spec.teacher))
    return max(1 + len(stage.views) for stage in own)


def _steps(spec: RunSpec, data: Dataset, batch: int, device: torch.device) -> Callable[[], None]:
    """Prepares a network, and returns the function that takes a step of it on black images."""
    model = models.build(
        spec.model, classes=data.num_classes, channels=data.channels, head=method(spec).head
    )
    models.initialise(model, spec.seed)
    model.to(device).train()
    optimiser = torch.optim.SGD(model.parameters(), spec.lr, momentum=spec.momentum)
    height, width = data.train.images.shape[1:3]
    shape = (batch, data.channels, height, width)
    images = torch.zeros(shape, device=device).contiguous(memory_format=torch.channels_last)
    labels = torch.zeros(batch, dtype=torch.int64, device=device)

    def step() -> None:
        with autocast(spec.precision, device):
            logits = model(images).logits
        optimiser.zero_grad(set_to_none=True)
        F.cross_entropy(logits, labels).backward()
        optimiser.step()
        if device.type == "cuda":
            torch.cuda.synchronize(device)

    return step
