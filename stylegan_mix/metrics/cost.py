"""The cost of a report before it is made: exact samples and steps, a range of time from few."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
import torch

from stylegan_mix.datasets import Dataset
from stylegan_mix.estimates import Form, Span, measured
from stylegan_mix.latents.decoding import decode_rows
from stylegan_mix.latents.plan import BLOCK, Rows
from stylegan_mix.latents.spaces import SPACES
from stylegan_mix.metrics.plan import Plan
from stylegan_mix.metrics.probe import schedule_for, train_classifier
from stylegan_mix.networks import Generator
from stylegan_mix.process import one_thread_if_busy
from stylegan_mix.progress import SILENT
from stylegan_mix.session import Session

__all__ = ["estimate"]

# Few rows and steps are timed first, since a block, or ten steps, may take minutes.
_ROWS = (1, 4, 16, BLOCK)
_STEPS = (1, 4, 11)
# Factors for all other work, beside the distances.
_LEAST_MORE, _MOST_MORE = 1.0, 1.3


def estimate(plan: Plan, device: torch.device) -> dict[str, Any]:
    """Estimates samples to draw, classifiers and steps to train, and their time: a `Span`."""
    request, there = plan.request, plan.found is not None
    trainings = len(request.seeds) * request.cas + (plan.probe is None)
    steps = trainings * schedule_for(plan.subject.dataset.resolution).steps
    return {
        "state": "exists" if there else "absent",
        "key": request.key,
        "samples": request.n * len(request.seeds),
        "classifiers_to_train": 0 if there else trainings,
        "training_steps": 0 if there else steps,
        "seconds": Span(0.0, 0.0) if there else _seconds(plan, steps, device),
    }


def _seconds(plan: Plan, steps: int, device: torch.device) -> Span:
    with one_thread_if_busy() as threads:
        whole = _measured(plan, steps, device)
    return whole.in_threads(threads).stretched(_LEAST_MORE, _MOST_MORE)


def _measured(plan: Plan, steps: int, device: torch.device) -> Span:
    request, spans = plan.request, [Span(0.0, 0.0)]
    if plan.subject.published:
        network = plan.subject.network(device)
        blocks = -(-request.n // BLOCK) * len(request.seeds)
        forms = [Form(rows, partial(_decoding, network, rows)) for rows in _ROWS]
        spans.append(measured(forms).times(blocks))
    if steps:
        training = partial(_training, plan.subject.dataset, device)
        counts = sorted({*(count for count in _STEPS if count < steps), steps})
        spans.append(measured([Form(count, partial(training, count), runs=1) for count in counts]))
    return Span(sum(one.low for one in spans), sum(one.high for one in spans))


def _decoding(network: Generator, count: int) -> Callable[[], None]:
    """Prepares the function that decodes `count` images at once."""
    z = np.zeros((2, count, network.z_dim), np.float32)
    rows = Rows(np.zeros((count, 2), np.int32), np.ones(count, np.float32), z)

    def decode() -> None:
        decode_rows(network, rows, space=SPACES["none"], truncation=1.0, noise="none").fetch()

    return decode


def _training(dataset: Dataset, device: torch.device, steps: int) -> Callable[[], None]:
    """Prepares the function that trains a classifier for some steps."""

    def train() -> None:
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

    return train
