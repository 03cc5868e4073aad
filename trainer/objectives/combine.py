"""Objectives made of objectives: a sum, a switch from one to another, and weights by class."""

from __future__ import annotations

import functools
import operator
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal

from trainer.objectives.base import Loss, Needs, Objective, Outputs, Rows, Task

if TYPE_CHECKING:
    from torch import Tensor, nn

    from trainer.engine.batch import Batch

__all__ = ["Combined", "Deferred", "Reweighted", "Sum"]


class Combined(Objective):
    """The base of objectives with parts; each keeps its own state by its place."""

    @property
    def parts(self) -> tuple[Objective, ...]:
        raise NotImplementedError

    @property
    def needs(self) -> Needs:
        return functools.reduce(operator.or_, (part.needs for part in self.parts), Needs())

    @property
    def stochastic(self) -> bool:
        return any(part.stochastic for part in self.parts)

    @property
    def reads_state(self) -> bool:
        return any(part.reads_state for part in self.parts)

    @property
    def reads_batch(self) -> bool:
        return any(part.reads_batch for part in self.parts)

    @property
    def reads_shares(self) -> bool:
        return all(part.reads_shares for part in self.parts)

    @property
    def detaches(self) -> bool:
        return any(part.detaches for part in self.parts)

    @property
    def corrects_prior(self) -> bool:
        return any(part.corrects_prior for part in self.parts)

    @property
    def remembers(self) -> bool:
        return any(part.remembers for part in self.parts)

    def state(self, task: Task) -> nn.Module | None:
        from torch import nn

        states = {str(place): part.state(task) for place, part in enumerate(self.parts)}
        kept = {place: state for place, state in states.items() if state is not None}
        return nn.ModuleDict(kept) if kept else None

    def after_step(self, state: nn.Module | None, out: Outputs, batch: Batch) -> None:
        for part, own in zip(self.parts, self._own(state), strict=True):
            part.after_step(own, out, batch)

    def _bound(self, task: Task, state: nn.Module | None) -> list[Loss]:
        own = self._own(state)
        return [part.bind(task, one) for part, one in zip(self.parts, own, strict=True)]

    def _own(self, state: nn.Module | None) -> list[nn.Module | None]:
        """Selects the state of each part."""
        kept = {} if state is None else dict(state.named_children())
        return [kept.get(str(place)) for place in range(len(self.parts))]


@dataclass(frozen=True)
class Sum(Combined):
    """A weighted sum of objectives: ``Sum(((0.1, CrossEntropy()), (0.9, Distill(4.0))))``."""

    terms: tuple[tuple[float, Objective], ...]

    @property
    def parts(self) -> tuple[Objective, ...]:
        return tuple(part for _, part in self.terms)

    def bind(self, task: Task, state: nn.Module | None = None) -> Loss:
        import torch

        weights = [weight for weight, _ in self.terms]
        bound = list(zip(weights, self._bound(task, state), strict=True))

        def loss(student: Outputs, rows: Rows) -> Tensor:
            return torch.stack([weight * part(student, rows) for weight, part in bound]).sum(0)

        return loss


@dataclass(frozen=True)
class Deferred(Combined):
    """A switch from `first` to `then`, once the share `at` of the stage's steps is done.

    Within a stage, optimiser and learning rate go on undisturbed, as in deferred re-weighting
    (Cao et al. 2019, Algorithm 1), where 160 of 200 epochs give at = 0.8.
    """

    first: Objective
    then: Objective
    at: float = 0.8

    def __post_init__(self) -> None:
        if not 0 < self.at < 1:
            raise ValueError(f"at must lie in (0, 1), got {self.at}")

    @property
    def parts(self) -> tuple[Objective, ...]:
        return (self.first, self.then)

    def bind(self, task: Task, state: nn.Module | None = None) -> Loss:
        first, then = self._bound(task, state)

        def loss(student: Outputs, rows: Rows) -> Tensor:
            return (first if rows.progress < self.at else then)(student, rows)

        return loss


@dataclass(frozen=True)
class Reweighted(Combined):
    """An objective whose rows have the weight of their class, w_y loss(y).

    w_c is in proportion to the inverse effective number of class c at `beta` (Cui et al. 2019).
    mean: the mean of the weights that is 1, over training "images", so that a switch to weights
    keeps the size of a step, or over "classes", as in that paper. Rows of a bank, whose classes are
    equal, have weight 1.
    """

    objective: Objective
    beta: float = 0.9999
    mean: Literal["classes", "images"] = "images"

    corrects_prior = True

    def __post_init__(self) -> None:
        if not 0 < self.beta < 1:
            raise ValueError(f"beta must lie in (0, 1), got {self.beta}")
        if self.mean not in ("classes", "images"):
            raise ValueError(f"mean must be 'classes' or 'images', got {self.mean!r}")
        if self.objective.corrects_prior:
            raise ValueError(
                f"{self.objective!r} corrects for unequal classes already; weights of classes "
                "would correct for them twice"
            )

    @property
    def parts(self) -> tuple[Objective, ...]:
        return (self.objective,)

    def bind(self, task: Task, state: nn.Module | None = None) -> Loss:
        from trainer.losses.weights import class_weights

        (plain,) = self._bound(task, state)
        weights = class_weights(task.counts, self.beta, self.mean)  # [K]

        def loss(student: Outputs, rows: Rows) -> Tensor:
            by_class = weights.to(student.logits)
            if not rows.label.is_floating_point():
                return by_class[rows.label] * plain(student, rows)
            weighted = rows.label * by_class  # [N, K]
            total = weighted.sum(1)
            return total * plain(student, replace(rows, label=weighted / total[:, None]))

        return loss
