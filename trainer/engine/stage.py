"""One stage of a run: prepares network, losses and teacher, trains, keeps what is left."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from stylegan_mix.checkpoint import Checkpoints
from stylegan_mix.datasets import Dataset, Part
from stylegan_mix.progress import Progress
from stylegan_mix.stopping import StopSignals
from trainer import models
from trainer.engine import evaluate, loop, teachers, votes
from trainer.engine.batches import Batches, transform_of
from trainer.engine.folder import CHECKPOINT, Finished, RunFolder, save_network
from trainer.inputs import Inputs
from trainer.objectives import Task
from trainer.recipes.stage import Recipe, Stage
from trainer.spec import RunSpec

__all__ = ["StageRun", "Work", "steps_of"]


@dataclass(frozen=True)
class Work:
    """A run with its inputs open."""

    spec: RunSpec
    recipe: Recipe
    folder: RunFolder
    stop: StopSignals
    device: torch.device
    inputs: Inputs


def steps_of(spec: RunSpec, stage: Stage, data: Dataset) -> int:
    """Steps of a stage; an epoch has as many as it takes to see all real images, in every arm."""
    return stage.epochs(spec.epochs) * _steps_per_epoch(spec, data)


def _steps_per_epoch(spec: RunSpec, data: Dataset) -> int:
    return -(-len(data.train.labels) // spec.batch)


class StageRun:
    """A stage that is not finished yet; `number` is its place in the recipe.

    `done` holds the finished stages by name, `before` their events.
    """

    def __init__(
        self,
        work: Work,
        stage: Stage,
        number: int,
        done: Mapping[str, Finished],
        before: list[dict[str, Any]],
    ) -> None:
        self._work, self._spec, self._stage, self._number = work, work.spec, stage, number
        self._data, self._device = work.inputs.data, work.device
        self._done, self._before = done, before
        self._transform = transform_of(self._spec, self._data, self._device)
        self._checkpoints = Checkpoints(work.folder.checkpoints, CHECKPOINT)
        earlier = work.recipe.stages[:number]
        self._offset = sum(steps_of(self._spec, other, self._data) for other in earlier)
        self._steps = steps_of(self._spec, stage, self._data)
        self._votes: dict[str, Any] | None = None

    def train(self, weights: Path, label: str, checkpoint_seconds: float) -> None:
        """Trains from the last checkpoint or the start, and keeps the network in `weights`."""
        state, batches = self._state(), self._batches()
        job = self._job(batches)
        self._work.folder.write_history(self._before + state.history)
        progress = Progress(self._steps, "steps", label, start=state.step)
        loop.train(
            job,
            state,
            stop=self._work.stop,
            each_step=lambda: progress.update(state.step),
            each_epoch=lambda event: self._each_epoch(job, state, event),
            save=lambda: self._save(state),
            save_seconds=checkpoint_seconds,
        )
        progress.close()
        self._finish(job, state, batches, weights)

    # Before the loop

    def _state(self) -> loop.State:
        spec, stage = self._spec, self._stage
        if stage.start is None:
            name = (spec.teacher_model if self._teaches else None) or spec.model
            model = models.build(name, classes=self._data.num_classes, channels=self._data.channels)
            models.initialise(model, spec.seed, self._number)
        else:
            model = self._done[stage.start].network()
        if stage.train == "head":
            model.requires_grad_(False)
            models.initialise(model.head, spec.seed, self._number)
            model.head.requires_grad_(True)
        model.to(self._device)
        optimiser = torch.optim.SGD(
            [parameter for parameter in model.parameters() if parameter.requires_grad],
            lr=spec.lr,
            momentum=spec.momentum,
            weight_decay=spec.weight_decay,
        )
        state = loop.State(model, optimiser, loop.Tally(self._device))
        found = self._checkpoints.latest()
        if found and found[2]["stage"] == stage.name:
            _, tensors, facts = found
            state.restore(tensors)
            state.step, state.seconds = facts["step"], facts["seconds"]
            state.history = facts["history"]
        return state

    @property
    def _teaches(self) -> bool:
        return self._stage.name in self._work.recipe.teachers

    def _batches(self) -> Batches:
        return Batches(
            self._spec,
            self._data,
            stage=self._stage,
            number=self._number,
            bank=self._work.inputs.bank,
            steps=self._steps,
            device=self._device,
        )

    def _job(self, batches: Batches) -> loop.Job:
        spec, stage, data = self._spec, self._stage, self._data
        teacher, class_votes = self._teacher()
        task = Task(tuple(int(count) for count in data.counts), class_votes)
        objective = stage.objective
        return loop.Job(
            name=stage.name,
            steps=self._steps,
            steps_per_epoch=_steps_per_epoch(spec, data),
            batches=batches,
            losses=loop.Losses(
                objective.bind(task), objective.bind(task.balanced()), spec.bank_weight
            ),
            teacher=teacher,
            rate=loop.rate_of(spec, stage, self._steps, _steps_per_epoch(spec, data)),
            head_only=stage.train == "head",
            precision=spec.precision,
        )

    def _teacher(self) -> tuple[loop.Teacher | None, Tensor | None]:
        """The stage's teacher in the form that its objective needs, and the votes by class."""
        need = self._stage.objective.needs_teacher
        if need is None or self._stage.teacher is None:
            return None, None
        known = self._done[self._stage.teacher]
        model = known.network().to(self._device)
        if need == "logits":
            return teachers.LogitsTeacher(teachers.logits_only(model)), None
        ask = teachers.label_only(model)
        if need == "label":
            return teachers.LabelTeacher(ask), None
        return self._voting_teacher(ask, str(known.facts["sha256"]))

    def _voting_teacher(self, ask: teachers.Ask, sha256: str) -> tuple[loop.Teacher, Tensor]:
        data, spec = self._data, self._spec
        ballot = votes.Ballot(
            ask=ask,
            part=data.train,
            classes=data.num_classes,
            transform=self._transform,
            spec=spec.votes,
            seed=spec.seed,
            precision=spec.precision,
            device=self._device,
        )
        counts = votes.ensure(ballot, ballot.identity(data.split_id, sha256), self._work.stop)
        labels = data.train.labels
        self._votes = votes.diagnostics(counts, labels, data.num_classes)
        table = torch.from_numpy(np.array(counts)).to(self._device)
        shares = torch.from_numpy(votes.class_shares(counts, labels, data.num_classes))
        return teachers.VotesTeacher(table, ask), shares.to(self._device)

    # During the loop

    def _each_epoch(self, job: loop.Job, state: loop.State, event: dict[str, Any]) -> None:
        """Completes the books of an epoch; the last is scored when the stage is finished."""
        if self._work.inputs.bank is not None:
            self._work.inputs.bank.require_unchanged()
        every = evaluate.interval(
            self._spec, len(self._data.train.labels), len(self._data.test.labels)
        )
        event["accuracy"] = None
        if event["epoch"] % every == 0 and state.step < job.steps:
            event["accuracy"] = self._scores(state.model, self._data.test)["overall"]
        state.history.append(event)
        self._work.folder.add_event(event)

    def _save(self, state: loop.State) -> None:
        facts = {
            "stage": self._stage.name,
            "step": state.step,
            "seconds": state.seconds,
            "history": state.history,
        }
        self._checkpoints.save(self._offset + state.step, state.dump(), facts)
        self._work.folder.write_history(self._before + state.history)

    def _scores(self, model: nn.Module, part: Part) -> dict[str, Any]:
        return evaluate.scores(self._confusion(model, part), self._data.groups)

    def _confusion(self, model: nn.Module, part: Part) -> Any:
        logits = evaluate.logits_of(
            model, part, self._transform, device=self._device, precision=self._spec.precision
        )
        return evaluate.confusion_of(part.labels, logits.argmax(1).numpy(), self._data.num_classes)

    # After the loop

    def _finish(self, job: loop.Job, state: loop.State, batches: Batches, weights: Path) -> None:
        """Refreshes batch-norm statistics, scores the network and writes it with its facts."""
        data, spec = self._data, self._spec
        if not job.head_only:
            loop.refresh_norms(
                state.model, batches.refresh, spec.bn_refresh_batches, spec.precision
            )
        confusion = self._confusion(state.model, data.test)
        accuracy = evaluate.scores(confusion, data.groups)
        state.history[-1]["accuracy"] = accuracy["overall"]
        facts = {
            "stage": self._stage.name,
            "epochs": job.epochs,
            "steps": job.steps,
            "seconds": state.seconds,
            "model": (spec.teacher_model if self._teaches else None) or spec.model,
            "dataset": data.name,
            "split_id": data.split_id,
            "test_id": data.test_id,
            "classes": list(data.classes),
            "channels": data.channels,
            "resolution": data.resolution,
            "mean": [float(value) for value in data.mean],
            "std": [float(value) for value in data.std],
            "precision": spec.precision,
            "accuracy": accuracy,
            "validation": self._scores(state.model, data.val) if data.val else None,
            "disagreement": state.tally.disagreement() if job.teacher else None,
            "votes": self._votes,
            "history": state.history,
        }
        save_network(weights, state.model, {"confusion": torch.from_numpy(confusion)}, facts)
