"""One stage of a run: network, losses and teachers, their training, and the stored result."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from stylegan_mix.checkpoint import Checkpoints
from stylegan_mix.datasets import Dataset, Part
from stylegan_mix.datasets.streamed import as_files
from stylegan_mix.errors import fitting
from stylegan_mix.fields import LIST, NUMBER, OBJECT, TEXT, WHOLE, check_each, check_types
from stylegan_mix.rng import Draws, stream, torch_generator
from stylegan_mix.session import Session
from stylegan_mix.world import World
from trainer import models
from trainer.curves import Curves, of_books, of_scores
from trainer.engine import correction, evaluate, finite, loop, processes, teachers, votes
from trainer.engine.batches import Batches, source_names
from trainer.engine.folder import (
    CHECKPOINT,
    Finished,
    RunFolder,
    packed,
    save_network,
    unpacked,
)
from trainer.engine.follower import Follower
from trainer.engine.mixing import Streams
from trainer.engine.portions import steps_per_epoch
from trainer.engine.transform import transform_of
from trainer.inputs import Inputs
from trainer.models import Head
from trainer.models.class_means import means_of
from trainer.models.classifier import Classifier
from trainer.objectives import Task
from trainer.recipes.posthoc import Seen
from trainer.recipes.stage import Recipe, Stage
from trainer.spec import RunSpec

__all__ = ["StageRun", "Work", "steps_of"]

# Facts of a checkpoint.
_SAVED = {"stage": TEXT, "step": WHOLE, "seconds": NUMBER, "history": LIST}


@dataclass(frozen=True)
class Work:
    """A run with its opened inputs; of a `world` of processes, the leader alone writes."""

    spec: RunSpec
    recipe: Recipe
    folder: RunFolder
    session: Session
    device: torch.device
    inputs: Inputs
    curves: Curves
    world: World


def steps_of(spec: RunSpec, stage: Stage, data: Dataset) -> int:
    """Counts the steps of a stage; in every arm, an epoch sees as many images as are real."""
    return stage.epochs(spec.epochs) * steps_per_epoch(spec, len(data.train.labels))


def _groups(trained: list[Tensor], model: Classifier, stage: Stage) -> list[dict[str, Any]]:
    """Groups parameters by their learning rates; "factor" is that of a group, times the stage's."""
    named = dict(model.named_parameters())
    if missing := [name for name, _ in stage.rates if name not in named]:
        raise ValueError(f"stage '{stage.name}' sets the rates of {missing}, which no layer has")
    apart = [named[name] for name, _ in stage.rates]
    rest = [one for one in trained if all(one is not other for other in apart)]
    factors = [rate / stage.lr for _, rate in stage.rates]
    own = [{"params": [one], "factor": by} for one, by in zip(apart, factors, strict=True)]
    return [{"params": rest, "factor": 1.0}, *own]


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
        self._start = done[stage.start] if stage.start else None
        self._transform = transform_of(self._spec, self._data, self._device)
        self._checkpoints = Checkpoints(work.folder.checkpoints, CHECKPOINT)
        earlier = work.recipe.stages[:number]
        self._offset = sum(steps_of(self._spec, other, self._data) for other in earlier)
        self._steps = steps_of(self._spec, stage, self._data)
        self._votes: dict[str, Any] | None = None

    def train(self, weights: Path, label: str, checkpoint_seconds: float) -> None:
        """Trains from the last checkpoint or the start, and keeps the network in `weights`."""
        taught_by, class_votes = self._teachers()
        model, counts = self._model(), self._data.counts
        taught = sum(self._done[name].network().width for name in self._stage.teachers)
        task = Task(tuple(int(count) for count in counts), class_votes, model.width, taught)
        state, batches = self._state(model, task), self._batches()
        job = self._job(task, state, batches, taught_by)
        self._write_history(state)
        self._work.curves.begin(self._offset + state.step)
        self._work.world.check_same(state.named_tensors())
        progress = self._work.session.track(self._steps, "steps", label, start=state.step)
        loop.train(
            job,
            state,
            stop=self._work.session.stop,
            each_step=lambda: progress.update(state.step),
            each_epoch=lambda event: self._each_epoch(job, state, event),
            save=lambda: self._save(state),
            save_seconds=checkpoint_seconds,
        )
        progress.close()
        self._finish(job, task, state, batches, weights)

    # Before the loop

    @property
    def _teaches(self) -> bool:
        return self._stage.name in self._work.recipe.teachers

    @property
    def _model_name(self) -> str:
        if self._start:
            return str(self._start.facts["model"])
        return (self._spec.teacher_model if self._teaches else None) or self._spec.model

    @property
    def _head(self) -> Head:
        """The head that the objective needs, else the kept one, else a linear one."""
        kept = self._start.head if self._start and self._stage.head == "kept" else None
        return self._stage.objective.needs.head or kept or Head()

    def _model(self) -> Classifier:
        """Makes the network before the first step: new, or with weights of an earlier stage."""
        spec, stage = self._spec, self._stage
        model = models.build(
            self._model_name,
            classes=self._data.num_classes,
            channels=self._data.channels,
            head=self._head,
            others=stage.objective.needs.others,
        )
        models.initialise(model, spec.seed, self._number)
        if self._start:
            memory = self._start.memory
            given = {} if memory is None else {"head.memory": memory}
            weights = {**self._start.weights, **given}
            models.inherit(model, weights, heads=stage.head == "kept")
            if stage.head == "new":
                models.initialise(model.head, spec.seed, self._number)
        if stage.train == "head":
            model.requires_grad_(False)
            model.head.requires_grad_(True)
            model.others.requires_grad_(True)
        processes.follow_whole_batches(model, self._work.world)
        return model.to(self._device)

    def _state(self, model: Classifier, task: Task) -> loop.State:
        spec, stage = self._spec, self._stage
        objective = stage.objective.state(task)
        if objective is not None:
            models.initialise(objective, spec.seed, self._number, stream="objective.init")
            processes.follow_whole_batches(objective, self._work.world)
            objective.to(self._device)
        trained = [*model.parameters(), *(objective.parameters() if objective else ())]
        optimiser = torch.optim.SGD(
            _groups([one for one in trained if one.requires_grad], model, stage),
            lr=spec.lr,
            momentum=spec.momentum,
            weight_decay=spec.weight_decay if stage.weight_decay is None else stage.weight_decay,
        )
        tally = loop.Tally(self._device, source_names(stage, spec.aug), self._work.world)
        momentum = stage.objective.needs.follower
        follower = Follower(model, momentum) if momentum else None
        state = loop.State(model, optimiser, tally, objective, follower=follower)
        self._resume(state)
        return state

    def _resume(self, state: loop.State) -> None:
        """Takes the newest checkpoint, if it is one of this stage; `InvalidInput` if it is odd."""
        found = self._checkpoints.latest(self._work.session.say)
        folder = self._work.folder.checkpoints
        with fitting(
            f"a checkpoint in {folder} is not one of this run",
            remedy=f"move {folder} away to start again",
        ):
            if found and found[2]["stage"] == self._stage.name:
                total, tensors, facts = found
                packed_up = tensors.get("history")  # older checkpoints have it among their facts
                if packed_up is not None:
                    facts = {**facts, "history": unpacked(packed_up)}
                check_types(facts, _SAVED)
                check_each(facts["history"], OBJECT, "history")
                step = facts["step"]
                if not 0 <= step <= self._steps or total != self._offset + step:
                    raise ValueError(f"step {step:,} of {self._steps:,}")
                state.restore(tensors)
                state.step, state.seconds = facts["step"], facts["seconds"]
                state.history = facts["history"]

    def _batches(self) -> Batches:
        return Batches(
            self._spec,
            self._data,
            stage=self._stage,
            number=self._number,
            bank=self._work.inputs.bank,
            accepted=self._work.inputs.accepted,
            posterior=self._work.inputs.posterior,
            steps=self._steps,
            device=self._device,
        )

    def _job(
        self,
        task: Task,
        state: loop.State,
        batches: Batches,
        taught_by: tuple[loop.Teacher, ...],
    ) -> loop.Job:
        spec, stage = self._spec, self._stage
        per_epoch = steps_per_epoch(spec, len(self._data.train.labels))
        return loop.Job(
            name=stage.name,
            steps=self._steps,
            steps_per_epoch=per_epoch,
            batches=batches,
            forward=stage.forward,
            losses=loop.Losses.of(stage.objective, task, state.objective),
            teachers=taught_by,
            after_step=stage.objective.after_step,
            rate=loop.rate_of(spec, stage, self._steps, per_epoch),
            noise=self._noise,
            streams=self._streams,
            norms_follow=stage.norms == "follow",
            precision=spec.precision,
            world=self._work.world,
        )

    def _noise(self, step: int) -> Draws:
        key = (self._spec.seed, "objective.noise", self._number, step)
        return self._work.world.draws(torch_generator(*key, device=self._device))

    def _streams(self, step: int) -> Streams:
        return lambda name: stream(self._spec.seed, name, self._number, step)

    def _teachers(self) -> tuple[tuple[loop.Teacher, ...], Tensor | None]:
        """Makes the stage's teachers as its objective needs them, and the votes by class."""
        answers = self._stage.objective.needs.answers
        known = [self._done[name] for name in self._stage.teachers]
        networks = [one.network().to(self._device) for one in known]
        if "votes" in answers:
            (only,), (network,) = known, networks
            ask = teachers.label_only(network)
            teacher, class_votes = self._voting_teacher(ask, str(only.facts["sha256"]))
            return (teacher,), class_votes
        if answers == {"label"}:
            asks = map(teachers.label_only, networks)
            return tuple(teachers.LabelTeacher(ask) for ask in asks), None
        return tuple(map(teachers.OpenTeacher, networks)), None

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
        identity = ballot.identity(data.split_id, sha256)
        counts = votes.ensure(ballot, identity, self._work.session)
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
        curves = of_books(event)
        event["accuracy"] = event["balanced"] = None
        if event["epoch"] % every == 0 and state.step < job.steps:
            scores = self._scores(state.model, self._data.test)
            event["accuracy"], event["balanced"] = scores["overall"], scores["balanced"]
            curves |= of_scores(self._stage.name, scores)
        self._work.world.check_same(state.named_tensors())
        state.history.append(event)
        if self._work.world.leads:
            self._work.folder.add_event(event)
        self._work.curves.add(self._offset + state.step, curves)

    def _save(self, state: loop.State) -> None:
        facts = {
            "stage": self._stage.name,
            "step": state.step,
            "seconds": state.seconds,
        }
        state_now = {**state.dump(), "history": packed(state.history)}
        if self._work.world.leads:
            self._checkpoints.save(self._offset + state.step, state_now, facts)
        self._write_history(state)
        self._work.world.barrier()

    def _write_history(self, state: loop.State) -> None:
        if self._work.world.leads:
            self._work.folder.write_history(self._before + state.history)

    def _scores(self, model: Classifier, part: Part) -> dict[str, Any]:
        return self._scored(part, self._predicted(model, part))

    def _scored(self, part: Part, predicted: np.ndarray) -> dict[str, Any]:
        data = self._data
        return evaluate.scores(part.labels, predicted, data.num_classes, data.groups.members)

    def _predicted(self, model: Classifier, part: Part) -> np.ndarray:
        return evaluate.predicted_by(
            model, part, self._transform, device=self._device, precision=self._spec.precision
        )

    # After the loop

    def _finish(
        self, job: loop.Job, task: Task, state: loop.State, batches: Batches, weights: Path
    ) -> None:
        """Refreshes batch-norm statistics, corrects, scores and writes the network."""
        data, spec, stage = self._data, self._spec, self._stage
        if stage.refreshes_norms:
            loop.refresh_norms(
                state.model,
                lambda number: self._work.world.own(batches.refresh(number)),
                spec.bn_refresh_batches,
                spec.precision,
            )
        memory = means_of(state.objective) if stage.objective.remembers else None
        head, corrected = self._corrected(state.model, task, memory)
        finite.require_finite(state.model, stage.name)
        predicted = self._predicted(state.model, data.test)
        accuracy = self._scored(data.test, predicted)
        state.history[-1]["accuracy"] = accuracy["overall"]
        state.history[-1]["balanced"] = accuracy["balanced"]
        self._work.curves.add(self._offset + state.step, of_scores(stage.name, accuracy))
        facts = {
            "stage": stage.name,
            "epochs": job.epochs,
            "steps": job.steps,
            "seconds": state.seconds,
            "model": self._model_name,
            "head": asdict(head),
            "others": {name: asdict(one) for name, one in stage.objective.needs.others.items()},
            "posthoc": corrected,
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
            "disagreement": state.tally.disagreement() if job.teachers else None,
            "votes": self._votes,
        }
        if (files := as_files(data.train.images)) is not None:
            facts["views"] = files.view.fit
        extra = {"history": packed(state.history), **self._confused(predicted)}
        extra |= {} if memory is None else {"memory": memory}
        if self._work.world.leads:
            save_network(weights, state.model, extra, facts)

    def _confused(self, predicted: np.ndarray) -> dict[str, Tensor]:
        """Makes the confusion matrix of the test part, if there are not too many classes."""
        classes = self._data.num_classes
        if classes > evaluate.MOST_CONFUSED:
            return {}
        counted = evaluate.confusion_of(self._data.test.labels, predicted, classes)
        return {"confusion": torch.from_numpy(counted)}

    def _corrected(
        self, model: Classifier, task: Task, memory: Tensor | None
    ) -> tuple[Head, dict[str, Any] | None]:
        """Applies the recipe's correction to the network that is its result.

        Returns the head that the network has then, and the numbers of the correction.
        """
        posthoc = self._work.recipe.posthoc
        if posthoc is None or self._stage is not self._work.recipe.stages[-1]:
            return self._head, None

        numbers = correction.corrected(
            posthoc,
            model,
            task,
            self._data,
            seen=lambda part: self._seen(model, part),
            memory=memory,
            seed=self._spec.seed,
        )
        if numbers:
            told = correction.in_words(numbers)
            self._work.session.say(f"correction of the finished network: {told}")
        return posthoc.head or self._head, numbers

    def _seen(self, model: Classifier, part: Part) -> Seen:
        """Asks a network about a part, without augmentation."""
        features, logits = evaluate.features_of(
            model, part, self._transform, device=self._device, precision=self._spec.precision
        )
        return Seen(features, logits, torch.from_numpy(np.asarray(part.labels, np.int64)))
