"""The training loop: batches, losses of rows, steps of SGD, and the books of an epoch.

It knows no recipe, no bank and no file. `State` holds everything that it changes, and a checkpoint
holds `State` whole. `Job` holds everything that it is given. `N` rows of a batch with a loss.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from stylegan_mix.rng import Draws
from stylegan_mix.stopping import StopRequest
from stylegan_mix.world import World
from trainer.engine import processes
from trainer.engine.batch import Batch, Source
from trainer.engine.features import Forward
from trainer.engine.finite import FiniteWatch
from trainer.engine.follower import Follower
from trainer.engine.mixing import Streams
from trainer.models import Outputs
from trainer.models.classifier import Classifier
from trainer.objectives import Loss, Objective, Rows, Task, TeacherAnswer
from trainer.recipes.stage import Stage
from trainer.spec import RunSpec, exact

__all__ = [
    "Job",
    "Losses",
    "State",
    "Tally",
    "Teacher",
    "rate_of",
    "refresh_norms",
    "train",
]

# Steps between two checks on the device for a loss that is not finite.
CHECK_EVERY_STEPS = 20

Sides = tuple[TeacherAnswer, ...]
"""A teacher's answers about label_a, about label_b, and last about the label of a partner."""


Answers = Mapping[str, Sides]
"""A teacher's answers about the judged rows of each source, by its name."""


class Teacher(Protocol):
    """A source of answers about a batch; it must not see the loss that reads them."""

    def __call__(self, batch: Batch) -> Answers: ...


@dataclass(frozen=True)
class Losses:
    """An objective bound twice: to the training set, and to rows whose classes are equal.

    Such are the rows of a bank, and training images that are drawn evenly.
    """

    real: Loss
    bank: Loss

    @classmethod
    def of(cls, objective: Objective, task: Task, state: nn.Module | None) -> Losses:
        """Binds an objective to both, with one state."""
        return cls(objective.bind(task, state), objective.bind(task.balanced(), state))


@dataclass(frozen=True)
class Job:
    """One stage's work for the loop; all functions of a step are keyed by it.

    noise: the objective's draws in a step; streams: the forward's; after_step: updates the
    objective's state; norms_follow: True if batch-norm statistics follow the batches; world: the
    processes that train together.
    """

    name: str
    steps: int
    steps_per_epoch: int
    batches: Callable[[int], Batch]
    forward: Forward
    losses: Losses
    teachers: tuple[Teacher, ...]
    after_step: Callable[[nn.Module | None, Outputs, Batch], None]
    rate: Callable[[int], float]
    noise: Callable[[int], Draws]
    streams: Callable[[int], Streams]
    norms_follow: bool
    precision: str
    world: World = World()

    @property
    def epochs(self) -> int:
        return self.steps // self.steps_per_epoch


class Tally:
    """Sums over the rows of each source, by its name.

    Losses are summed since the last epoch, teachers' answers since the stage began; each has the
    number of rows and a sum. A process of a `world` counts its own rows, and tells of all.
    """

    def __init__(
        self,
        device: torch.device,
        names: tuple[str, ...] = ("real", "bank"),
        world: World = World(),
    ) -> None:
        self.names, self._world = names, world
        self.epoch = torch.zeros(len(names), 2, dtype=torch.float64, device=device)
        self.teacher = torch.zeros(len(names), 2, dtype=torch.float64, device=device)

    def add_losses(self, batch: Batch, values: Tensor) -> None:
        """Adds the losses of the rows, `values` [N]."""
        for source in batch.judged:
            self._add(self.epoch, source.name, values[source.rows])

    def add_answers(self, batch: Batch, answers: Answers) -> None:
        """Counts the rows for which a teacher names neither label."""
        for source in batch.judged:
            said = answers[source.name][0].label
            if said is not None:
                a, b = batch.label_a[source.rows], batch.label_b[source.rows]
                self._add(self.teacher, source.name, (said != a) & (said != b))

    def _add(self, sums: Tensor, name: str, values: Tensor) -> None:
        place = self.names.index(name)
        sums[place, 0] += len(values)
        sums[place, 1] += values.detach().sum(dtype=torch.float64)

    def epoch_means(self) -> dict[str, float | None]:
        """Averages losses of all rows and of each source since the last call; resets the sums."""
        sums = self._world.sum(self.epoch).tolist()
        self.epoch.zero_()
        rows, total = (sum(column) for column in zip(*sums, strict=True))
        means = {f"loss_{name}": _mean(one) for name, one in zip(self.names, sums, strict=True)}
        return {"loss": total / max(rows, 1), **means}

    def disagreement(self) -> dict[str, float | None]:
        """Computes the share of answers that name neither label; None if no teacher was asked."""
        sums = self._world.sum(self.teacher).tolist()
        return dict(zip(self.names, map(_mean, sums), strict=True))

    def dump(self) -> dict[str, Tensor]:
        """Returns the sums over all processes for a checkpoint; `restore` puts them back."""
        return {
            "epoch_sums": self._world.sum(self.epoch),
            "teacher_sums": self._world.sum(self.teacher),
        }

    def restore(self, state: Mapping[str, Tensor]) -> None:
        """Sets the sums from a `dump`; one process takes those of all."""
        for sums, name in ((self.epoch, "epoch_sums"), (self.teacher, "teacher_sums")):
            _fill(sums, state[name])
            if not self._world.leads:
                sums.zero_()


def _mean(counted: list[float]) -> float | None:
    rows, total = counted
    return total / rows if rows else None


@dataclass
class State:
    """Everything that a stage changes.

    objective: the state of the stage's objective, or None; follower: a copy of the network that
    answers for further views in its place, or None.
    """

    model: Classifier
    optimiser: torch.optim.SGD
    tally: Tally
    objective: nn.Module | None = None
    step: int = 0
    seconds: float = 0.0
    history: list[dict[str, Any]] = field(default_factory=list)
    follower: Follower | None = None

    def dump(self) -> dict[str, Any]:
        """Returns named tensors for a checkpoint; `restore` puts them back."""
        moments = [self.optimiser.state[p].get("momentum_buffer") for p in self.trained()]
        return {
            "model": self.model.state_dict(),
            "objective": self.objective.state_dict() if self.objective else {},
            "follower": self.follower.state_dict() if self.follower else {},
            "momentum": {i: m for i, m in enumerate(moments) if m is not None},
            **self.tally.dump(),
        }

    def restore(self, state: dict[str, Any]) -> None:
        """Sets everything from a `dump`, in place and in this model's memory format."""
        self.model.load_state_dict(state["model"])
        if self.objective is not None:
            self.objective.load_state_dict(state["objective"])
        if self.follower is not None:
            self.follower.load_state_dict(state["follower"])
        trained = dict(enumerate(self.trained()))
        for index, value in state["momentum"].items():
            buffer = _fill(torch.empty_like(trained[index]), value)
            self.optimiser.state[trained[index]]["momentum_buffer"] = buffer
        self.tally.restore(state)

    def named_tensors(self) -> Iterator[tuple[str, Tensor]]:
        """Yields the tensors that are the same in all processes, by their names."""
        yield from self.model.state_dict().items()
        if self.objective is not None:
            yield from self.objective.state_dict(prefix="objective.").items()
        if self.follower is not None:
            yield from self.follower.state_dict(prefix="follower.").items()

    def trained(self) -> list[nn.Parameter]:
        """Lists the parameters that the optimiser moves."""
        return [p for group in self.optimiser.param_groups for p in group["params"]]


def _fill(target: Tensor, value: Tensor) -> Tensor:
    """Copies a saved tensor; ValueError for another shape, which `copy_` would spread."""
    if value.shape != target.shape:
        raise ValueError(f"a tensor has shape {list(value.shape)}, not {list(target.shape)}")
    return target.copy_(value)


def rate_of(
    spec: RunSpec, stage: Stage, steps: int, steps_per_epoch: int
) -> Callable[[int], float]:
    """Makes the learning rate as a function of the step.

    "step": epoch e = 1, 2, ... of the first `warmup_epochs` (at most a quarter of all) has rate
    lr e / warmup_epochs; after each milestone, a share of the steps, the rate is lr times its
    factor (LDAM-DRW's schedule with MiSLAS's factors). "cosine": from lr to 0 (Kang et al. 2020).
    "constant": lr in every step. lr is the stage's factor times the run's.
    """
    highest = spec.lr * stage.lr
    if stage.schedule == "cosine":
        return lambda step: highest * 0.5 * (1 + math.cos(math.pi * step / steps))
    if stage.schedule == "constant":
        return lambda step: highest
    epochs = steps / steps_per_epoch
    warmup = min(spec.warmup_epochs, epochs / 4)
    marks = zip(spec.milestones, spec.decay, strict=True)
    falls = [(round(exact(mark) * steps), lower) for mark, lower in marks]  # from which step on

    def rate(step: int) -> float:
        epoch = step // steps_per_epoch + 1
        factor = min(1.0, epoch / warmup) if warmup else 1.0
        for first, lower in falls:
            if step >= first:
                factor = lower
        return highest * factor

    return rate


def train(
    job: Job,
    state: State,
    *,
    stop: StopRequest,
    each_step: Callable[[], None],
    each_epoch: Callable[[dict[str, Any]], None],
    save: Callable[[], None],
    save_seconds: float,
) -> None:
    """Runs the remaining steps of `job`.

    `each_epoch` gets the books of every epoch, to complete and keep them. `save` is called every
    `save_seconds` and before a requested stop, which raises `stop.failure`. Raises `Diverged`
    (exit code 5), and saves nothing more, once a loss was not finite.
    """
    watch = FiniteWatch(state.tally.epoch.device, job.world)
    began = saved = time.monotonic()
    while state.step < job.steps:
        values = one_step(job, state)
        watch.see(values, state.step)
        state.step += 1
        now = time.monotonic()
        state.seconds, began = state.seconds + now - began, now
        each_step()
        epoch_ends = state.step % job.steps_per_epoch == 0
        asked, late = job.world.each(stop.requested is not None, now - saved >= save_seconds)
        stopping = asked and state.step < job.steps
        due = stopping or late
        if epoch_ends or due or state.step % CHECK_EVERY_STEPS == 0:
            watch.check(job.name)
        if epoch_ends:
            each_epoch(_event(job, state))
        if due:
            save()
            saved = time.monotonic()
        if stopping:
            what = f"stage '{job.name}', step {state.step:,} of {job.steps:,}"
            raise processes.stop_of_all(stop, what)


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
    """Runs one step of SGD; returns the losses of the rows, [N]."""
    whole = job.batches(state.step)
    batch = processes.own_rows(whole, job.world)
    state.model.train(job.norms_follow)
    with autocast(job.precision, batch.images.device):
        streams = job.streams(state.step)
        student, batch = _forward(job, state, batch, streams)
        with torch.no_grad():
            answers = [teacher(batch) for teacher in job.teachers]
    progress, noise = state.step / job.steps, job.noise(state.step)
    values = row_losses(job.losses, student, batch, answers, progress, noise)
    weights = torch.ones_like(values)
    for source in batch.judged:
        weights[source.rows] = source.weight
    for group in state.optimiser.param_groups:
        group["lr"] = job.rate(state.step) * group.get("factor", 1.0)
    state.optimiser.zero_grad(set_to_none=True)
    processes.mean_over_all(weights * values, whole, job.world).backward()
    job.world.reduce_gradients(state.trained())
    if job.norms_follow and job.world.size > 1:
        processes.require_followed(state.model)
    state.optimiser.step()
    if state.follower is not None:
        state.follower.follow(state.model)
    _after_step(job, state, student.detach(), batch, whole)
    state.tally.add_losses(batch, values)
    for one in answers:
        state.tally.add_answers(batch, one)
    return values.detach()


def _forward(job: Job, state: State, batch: Batch, streams: Streams) -> tuple[Outputs, Batch]:
    """Makes the outputs of the network; a follower answers for further views, if there is one."""
    if state.follower is None or batch.views is None:
        return job.forward(state.model, batch, state.objective, streams)
    own = replace(batch, views=None)
    student, seen = job.forward(state.model, own, state.objective, streams)
    return student._replace(views=state.follower(batch.views)), seen


def _after_step(job: Job, state: State, out: Outputs, batch: Batch, whole: Batch) -> None:
    """Updates the objective's state from the rows of all processes."""
    with torch.no_grad():
        if job.world.size > 1 and state.objective is not None:
            out, batch = processes.of_all(out, whole, job.world), whole
        job.after_step(state.objective, out, batch)


def row_losses(
    losses: Losses,
    student: Outputs,
    batch: Batch,
    answers: Sequence[Answers] = (),
    progress: float = 0.0,
    noise: Draws = Draws(),
) -> Tensor:
    """Mixes lam loss(label_a) + (1 - lam) loss(label_b) of every row, [N].

    Rows whose classes are equal have the loss that is bound to such, and so has a label b whose
    images are drawn evenly: each label has the counts of its own draw. A target of all classes
    takes the place of both labels. A row that was mixed with a training image has the share of that
    image's loss, too. answers: one per teacher.
    """

    def about(label: Tensor, index: Tensor, source: Source, side: int) -> Rows:
        said = tuple(one[source.name][side] for one in answers)
        viewed = student.views and not source.bank
        shown = batch.label_a[source.rows] if viewed else None
        draws = noise.of(source.in_all)
        return Rows(label, index, said, progress, draws, source.mixed, shown)

    parts = []
    for source in batch.judged:
        rows, name = source.rows, source.name
        loss = losses.bank if source.bank or source.even else losses.real
        seen, target = student.of(rows), batch.targets.get(name)
        label = batch.label_a[rows] if target is None else target
        value = loss(seen, about(label, batch.index[rows], source, 0))
        if source.mixed and target is None:
            b = about(batch.label_b[rows], batch.index_b[rows], source, 1)
            lam = batch.lam[rows].to(value)
            loss = losses.bank if source.even_partners else loss
            value = lam * value + (1 - lam) * loss(seen, b)
        if name in batch.partners:
            other = batch.partners[name]
            real = losses.real(seen, about(other.label, other.index, source, -1))
            own = other.own.to(value)
            value = own * value + (1 - own) * real
        parts.append(value)
    return torch.cat(parts)


@contextmanager
def autocast(precision: str, device: torch.device) -> Iterator[None]:
    """Sets the number format of a forward: float32, or bfloat16 where torch deems it safe.

    Heads stay in float32 (see `Classifier.answer`).
    """
    with torch.autocast(device.type, dtype=torch.bfloat16, enabled=precision == "bfloat16"):
        yield


def refresh_norms(
    model: nn.Module, images_of: Callable[[int], Tensor], count: int, precision: str
) -> None:
    """Sets batch-norm statistics to their plain average over `count` batches.

    `images_of(i)` gives batch i, [N, C, H, W]. Without batches the statistics stay.
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
