"""The cost of a run before it starts: exact steps and images, time from a few timed steps."""

from __future__ import annotations

import time
from typing import Any

import torch
import torch.nn.functional as F

from stylegan_mix.datasets import Dataset
from stylegan_mix.process import resolve_device
from trainer import models
from trainer.engine.loop import autocast
from trainer.engine.run import budget, disk_bytes
from trainer.spec import RunSpec

__all__ = ["estimate", "seconds_per_step"]

TIMED_STEPS = 3
# A factor for fetching and augmenting batches, teachers and evaluations, beside network steps.
OVERHEAD = 1.25


def estimate(spec: RunSpec, data: Dataset, device: str) -> dict[str, Any]:
    """Estimates stages, steps, images, evaluations, bytes on disk and seconds of one run."""
    planned = budget(spec, data)
    place = torch.device(resolve_device(device))
    one = seconds_per_step(spec, data, place)
    seconds = OVERHEAD * one * planned["steps"]
    return {**planned, "device": str(place), "seconds": seconds, "bytes": disk_bytes(spec, data)}


def seconds_per_step(spec: RunSpec, data: Dataset, device: torch.device) -> float:
    """Times the shortest of a few network steps on noise, after one that warms up."""
    model = models.build(spec.model, classes=data.num_classes, channels=data.channels)
    models.initialise(model, spec.seed)
    model.to(device).train()
    optimiser = torch.optim.SGD(model.parameters(), spec.lr, momentum=spec.momentum)
    height, width = data.train.images.shape[1:3]
    shape = (spec.batch, data.channels, height, width)
    images = torch.zeros(shape, device=device).contiguous(memory_format=torch.channels_last)
    labels = torch.zeros(spec.batch, dtype=torch.int64, device=device)
    times = []
    for _ in range(1 + TIMED_STEPS):
        began = time.perf_counter()
        with autocast(spec.precision, device):
            logits = model(images).logits
        optimiser.zero_grad(set_to_none=True)
        F.cross_entropy(logits, labels).backward()
        optimiser.step()
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        times.append(time.perf_counter() - began)
    return min(times[1:])
