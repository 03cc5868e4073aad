"""The cost of a report before it is made: exact samples and steps, time from a few of each."""

from __future__ import annotations

import time
from dataclasses import replace
from typing import Any

import torch

from stylegan_mix.datasets import Dataset
from stylegan_mix.latents.plan import BLOCK
from stylegan_mix.metrics.plan import Plan
from stylegan_mix.metrics.probe import schedule_for, train_classifier
from stylegan_mix.metrics.samples import decode_block, labels_for
from stylegan_mix.progress import SILENT
from stylegan_mix.session import Session

__all__ = ["estimate"]

# The first steps of a classifier in a process take many times as long as all others.
_WARM_UP, _TIMED_STEPS = (2,), (1, 11)


def estimate(plan: Plan, device: torch.device) -> dict[str, Any]:
    """Estimates samples to draw, classifiers and steps to train, and seconds on this machine."""
    request, there = plan.request, plan.found is not None
    trainings = len(request.seeds) * request.cas + (plan.probe is None)
    steps = trainings * schedule_for(plan.subject.dataset.resolution).steps
    return {
        "state": "exists" if there else "absent",
        "key": request.key,
        "samples": request.n * len(request.seeds),
        "classifiers_to_train": 0 if there else trainings,
        "training_steps": 0 if there else steps,
        "seconds": 0.0 if there else round(_seconds(plan, steps, device), 1),
    }


def _seconds(plan: Plan, steps: int, device: torch.device) -> float:
    dataset, request = plan.subject.dataset, plan.request
    seconds = 0.0
    if plan.subject.published:
        network = plan.subject.network(device)
        labels = labels_for(dataset.counts, "uniform", BLOCK)
        decode_block(network, labels, 0, seed=0, truncation=1.0)
        began = time.perf_counter()
        decode_block(network, labels, 0, seed=0, truncation=1.0)
        blocks = -(-request.n // BLOCK) * len(request.seeds)
        seconds += (time.perf_counter() - began) * blocks
    if steps:
        seconds += _seconds_per_step(dataset, device) * steps
    return seconds


def _seconds_per_step(dataset: Dataset, device: torch.device) -> float:
    """Times training steps, without the work that a training does once."""
    took = []
    for steps in (*_WARM_UP, *_TIMED_STEPS):
        began = time.perf_counter()
        train_classifier(
            dataset.train,
            classes=dataset.num_classes,
            flip=dataset.flip,
            schedule=replace(schedule_for(dataset.resolution), steps=steps),
            seed=0,
            device=device,
            label="a few steps",
            session=Session(reporter=SILENT),
        )
        took.append(time.perf_counter() - began)
    fewer, more = _TIMED_STEPS
    return max(took[-1] - took[-2], 0.0) / (more - fewer)
