"""The one training loop: batches, losses of rows, a step of SGD, and the books.

It knows no recipe, no bank and no file. Everything it changes lies in `State`, which a checkpoint
holds whole; everything it is given lies in `Job`. `N` rows of a batch, the real ones first.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from stylegan_mix.errors import Diverged
from stylegan_mix.stopping import StopSignals
from trainer.engine.batches import Batch
from trainer.models import Outputs
from trainer.objectives import Loss, TeacherAnswer
from trainer.recipes.stage import Stage
from trainer.spec import RunSpec

__all__ = ["Job", "Losses", "State", "Tally", "Teacher", "rate_of", "refresh_norms", "train"]

# How often the loop asks the device whether a loss was not finite.
CHECK_EVERY_STEPS = 20

Sides = tuple[TeacherAnswer, TeacherAnswer]
"""What a teacher says with regard to label_a and to label_b."""


Answers = tuple[Sides, ...]
"""Answers about the rows of each of the batch's sources, in their order."""


class Teacher(Protocol):
    """Answers about a batch; it must not see which loss reads them."""

    def __call__(self, batch: Batch) -> Answers: ...


@dataclass(frozen=True)
class Losses:
    """An objective bound twice: to the training set, and to a bank, whose classes are equal."""

    real: Loss
    bank: Loss
    bank_weight: float


@dataclass(frozen=True)
class Job:
    """What one stage asks of the loop."""

    name: str
    steps: int
    steps_per_epoch: int
    batches: Callable[[int], Batch]
    losses: Losses
    teacher: Teacher | None
    rate: Callable[[int], float]
    head_only: bool
    precision: str

    @property
    def epochs(self) -> int:
        return self.steps // self.steps_per_epoch


class Tally:
    """Sums over rows: of losses since the last epoch, of teacher answers since the stage began.

    Each holds, for real rows and then for rows of a bank, how many there were and a sum.
    """

    def __init__(self, device: torch.device) -> None:
        self.epoch = torch.zeros(2, 2, dtype=torch.float64, device=device)
        self.teacher = torch.zeros(2, 2, dtype=torch.float64, device=device)

    def add_losses(self, batch: Batch, values: Tensor) -> None:
        """values: [N], the losses of the rows."""
        for source, rows in enumerate(batch.sources):
            self._add(self.epoch, source, values[rows])

    def add_answers(self, batch: Batch, answers: Answers) -> None:
        """Counts the rows for which the teacher names neither label."""
        for source, rows in enumerate(batch.sources):
            said = answers[source][0].label
            if said is not None:
                wrong = (said != batch.label_a[rows]) & (said != batch.label_b[rows])
                self._add(self.teacher, source, wrong)

    @staticmethod
    def _add(sums: Tensor, source: int, values: Tensor) -> None:
        sums[source, 0] += len(values)
        sums[source, 1] += values.detach().sum(dtype=torch.float64)

    def epoch_means(self) -> dict[str, float | None]:
        """Mean loss of real rows and of bank rows since the last call; the sums start again."""
        (real_rows, real), (bank_rows, bank) = self.epoch.tolist()
        self.epoch.zero_()
        return {
            "loss": (real + bank) / max(real_rows + bank_rows, 1),
            "loss_real": real / real_rows if real_rows else None,
            "loss_bank": bank / bank_rows if bank_rows else None,
        }

    def disagreement(self) -> dict[str, float | None]:
        """Share of rows for which the teacher named neither label; None where it was not asked."""
        shares = [wrong / asked if asked else None for asked, wrong in self.teacher.tolist()]
        return dict(zip(("real", "bank"), shares, strict=True))


@dataclass
class State:
    """All that a stage changes."""

    model: nn.Module
    optimiser: torch.optim.SGD
    tally: Tally
    step: int = 0
    seconds: float = 0.0
    history: list[dict[str, Any]] = field(default_factory=list)

    def dump(self) -> dict[str, Any]:
        """Named tensors for a checkpoint; `restore` puts them back."""
        moments = [self.optimiser.state[p].get("momentum_buffer") for p in self._trained()]
        return {
            "model": self.model.state_dict(),
            "momentum": {i: m for i, m in enumerate(moments) if m is not None},
            "epoch_sums": self.tally.epoch,
            "teacher_sums": self.tally.teacher,
        }

    def restore(self, state: dict[str, Any]) -> None:
        """Sets everything to what `dump` gave, in place and in this model's memory format."""
        self.model.load_state_dict(state["model"])
        trained = self._trained()
        for index, value in state["momentum"].items():
            buffer = torch.empty_like(trained[index])
            self.optimiser.state[trained[index]]["momentum_buffer"] = buffer.copy_(value)
        self.tally.epoch.copy_(state["epoch_sums"])
        self.tally.teacher.copy_(state["teacher_sums"])

    def _trained(self) -> list[Tensor]:
        return [p for group in self.optimiser.param_groups for p in group["params"]]


def rate_of(
    spec: RunSpec, stage: Stage, steps: int, steps_per_epoch: int
) -> Callable[[int], float]:
    """The learning rate as a function of the step.

    "step": epoch e = 1, 2, ... of the first `warmup_epochs` (at most a quarter of all) has
    lr e / warmup_epochs; after each milestone the rate is lr times its factor (LDAM-DRW's
    schedule with MiSLAS's factors). "cosine": from lr to 0 (Kang et al. 2020).
    """
    if stage.schedule == "cosine":
        return lambda step: spec.lr * 0.5 * (1 + math.cos(math.pi * step / steps))
    epochs = steps / steps_per_epoch
    warmup = min(spec.warmup_epochs, epochs / 4)

    def rate(step: int) -> float:
        epoch = step // steps_per_epoch + 1
        factor = min(1.0, epoch / warmup) if warmup else 1.0
        for mark, value in zip(spec.milestones, spec.decay, strict=True):
            if epoch > mark * epochs:
                factor = value
        return spec.lr * factor

    return rate


def train(
    job: Job,
    state: State,
    *,
    stop: StopSignals,
    each_step: Callable[[], None],
    each_epoch: Callable[[dict[str, Any]], None],
    save: Callable[[], None],
    save_seconds: float,
) -> None:
    """Runs the steps that are left of `job`.

    `each_epoch` gets the books of every epoch, to complete and keep them; `save` is called when
    `save_seconds` have passed and before a requested stop, which raises `stop.failure`. Raises
    `Diverged` (exit code 5), and saves nothing more, once a loss was not finite.
    """
    watch = _FiniteWatch(state.tally.epoch.device)
    began = saved = time.monotonic()
    while state.step < job.steps:
        values = one_step(job, state)
        watch.see(values, state.step)
        state.step += 1
        now = time.monotonic()
        state.seconds, began = state.seconds + now - began, now
        each_step()
        epoch_ends = state.step % job.steps_per_epoch == 0
        stopping = stop.requested is not None and state.step < job.steps
        due = stopping or now - saved >= save_seconds
        if epoch_ends or due or state.step % CHECK_EVERY_STEPS == 0:
            watch.check(job.name)
        if epoch_ends:
            each_epoch(_event(job, state))
        if due:
            save()
            saved = time.monotonic()
        if stopping:
            what = f"stage '{job.name}', step {state.step:,} of {job.steps:,}"
            raise stop.failure(saved=True, what=what)


def _event(job: Job, state: State) -> dict[str, Any]:
    return {
        "stage": job.name,
        "epoch": state.step // job.steps_per_epoch,
        "step": state.step,
        "lr": job.rate(state.step - 1),
        **state.tally.epoch_means(),
        "seconds": round(state.seconds, 3),
    }


def one_step(job: Job, state: State) -> Tensor:
    """One step of SGD; the losses of the rows, [N]."""
    batch = job.batches(state.step)
    # A frozen backbone keeps its batch-norm statistics too.
    state.model.train(not job.head_only)
    with autocast(job.precision, batch.images.device):
        student: Outputs = state.model(batch.images)
        answers = None
        if job.teacher is not None:
            with torch.no_grad():
                answers = job.teacher(batch)
    values = row_losses(job.losses, student, batch, answers)
    weights = torch.ones_like(values)
    weights[batch.real :] = job.losses.bank_weight
    for group in state.optimiser.param_groups:
        group["lr"] = job.rate(state.step)
    state.optimiser.zero_grad(set_to_none=True)
    (weights * values).mean().backward()
    state.optimiser.step()
    state.tally.add_losses(batch, values)
    if answers is not None:
        state.tally.add_answers(batch, answers)
    return values.detach()


def row_losses(losses: Losses, student: Outputs, batch: Batch, answers: Answers | None) -> Tensor:
    """lam loss(label_a) + (1 - lam) loss(label_b) of every row, [N]; a bank's rows by its loss."""
    parts = []
    for source, rows in enumerate(batch.sources):
        loss = losses.real if source == 0 else losses.bank
        a, b = answers[source] if answers is not None else (None, None)
        seen = Outputs(student.features[rows], student.logits[rows])
        value = loss(seen, batch.label_a[rows], a)
        if source == 1 or batch.mixed:
            lam = batch.lam[rows].to(value)
            value = lam * value + (1 - lam) * loss(seen, batch.label_b[rows], b)
        parts.append(value)
    return torch.cat(parts)


class _FiniteWatch:
    """Remembers on the device the first step with a loss that is not finite."""

    def __init__(self, device: torch.device) -> None:
        self._first = torch.full((), -1, dtype=torch.int64, device=device)

    def see(self, values: Tensor, step: int) -> None:
        bad = ~values.isfinite().all() & (self._first < 0)
        self._first = torch.where(bad, step, self._first)

    def check(self, stage: str) -> None:
        first = int(self._first)
        if first >= 0:
            raise Diverged(
                f"the loss was not finite at step {first:,} of stage '{stage}'",
                remedy="try a lower --lr, or --precision float32; nothing after it was saved",
            )


@contextmanager
def autocast(precision: str, device: torch.device) -> Iterator[None]:
    """The forward's number format: float32, or bfloat16 where torch deems it safe."""
    with torch.autocast(device.type, dtype=torch.bfloat16, enabled=precision == "bfloat16"):
        yield


def refresh_norms(
    model: nn.Module, images_of: Callable[[int], Tensor], count: int, precision: str
) -> None:
    """Sets batch-norm statistics to their plain average over `count` batches.

    `images_of(i)` gives batch i, [N, C, H, W]. With no batch the statistics stay.
    """
    norms = [part for part in model.modules() if isinstance(part, nn.BatchNorm2d)]
    momenta = [norm.momentum for norm in norms]
    for norm in norms if count else ():
        norm.reset_running_stats()
        norm.momentum = None  # average over all batches alike
    model.train()
    with torch.no_grad():
        for index in range(count):
            images = images_of(index)
            with autocast(precision, images.device):
                model(images)
    for norm, momentum in zip(norms, momenta, strict=True):
        norm.momentum = momentum
