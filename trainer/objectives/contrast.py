"""Objectives that contrast further views of the training images.

Views are never mixed. Rows of a bank have none, and no contrast.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from trainer.models.heads import Head
from trainer.objectives.base import Loss, Needs, Objective, Outputs, Rows, Task

if TYPE_CHECKING:
    from torch import Tensor, nn

    from trainer.engine.batch import Batch

__all__ = ["BalancedContrast", "ExpectedContrast", "ParametricContrast"]


@dataclass(frozen=True)
class BalancedContrast(Objective):
    """Balanced contrast of two views and class prototypes (Zhu et al. 2022).

    The views pass the projection "contrast", of `hidden` units and `width` outputs. A prototype is
    the weight of the head that answers for its class, after a projection of its own of the same
    size (`losses.contrast.balanced_contrast`).
    """

    temperature: float = 0.1
    hidden: int = 512
    width: int = 128

    reads_shares = True
    reads_state = True
    reads_batch = True

    def __post_init__(self) -> None:
        _require_positive(self.temperature)

    @property
    def needs(self) -> Needs:
        return Needs(
            others={"contrast": Head("mlp", width=self.width, hidden=self.hidden)}, views=2
        )

    def state(self, task: Task) -> nn.Module:
        from trainer.models.projection import mlp

        return mlp(task.features, self.hidden, self.width)

    def bind(self, task: Task, state: nn.Module | None = None) -> Loss:
        import torch

        from trainer.losses.contrast import balanced_contrast

        assert state is not None

        def loss(student: Outputs, rows: Rows) -> Tensor:
            if rows.shown is None:
                return _nothing(student)
            views = torch.stack([view.others["contrast"] for view in student.views])
            assert student.weight is not None
            return balanced_contrast(views, rows.shown, state(student.weight), self.temperature)

        return loss


@dataclass(frozen=True)
class ExpectedContrast(Objective):
    """Contrast of two views with infinitely many samples of each class (Du et al. 2024).

    The views pass the projection "contrast", of `hidden` units with a batch norm and `width`
    outputs. Each class is a von Mises-Fisher distribution, whose mean follows the views of the last
    epoch and of this one. The log expectations of the classes are logits
    (`losses.directions.expected_scores`) of a logit-adjusted loss, as classes are drawn by their
    shares. A class without a view so far is uniform. An epoch is as many training images as there
    are, also where a bank takes a part of each batch.
    """

    temperature: float = 0.1
    hidden: int = 512
    width: int = 128

    reads_shares = True
    reads_state = True
    corrects_prior = True

    def __post_init__(self) -> None:
        _require_positive(self.temperature)

    @property
    def needs(self) -> Needs:
        head = Head("mlp", width=self.width, hidden=self.hidden, normed=True)
        return Needs(others={"contrast": head}, views=2)

    def state(self, task: Task) -> nn.Module:
        from trainer.models.class_directions import ClassDirections

        return ClassDirections(len(task.counts), self.width, sum(task.counts))

    def bind(self, task: Task, state: nn.Module | None = None) -> Loss:
        import torch

        from trainer.losses.counts import as_counts
        from trainer.losses.directions import expected_scores
        from trainer.losses.priors import logit_adjust
        from trainer.models.class_directions import ClassDirections

        assert isinstance(state, ClassDirections)
        counts = as_counts(task.counts)

        def loss(student: Outputs, rows: Rows) -> Tensor:
            if rows.shown is None:
                return _nothing(student)
            means, each = state.means, []
            for view in student.views:
                scores = expected_scores(view.others["contrast"], means, self.temperature)
                each.append(logit_adjust(scores, rows.shown, counts))
            return torch.stack(each).mean(0)

        return loss

    def after_step(self, state: nn.Module | None, out: Outputs, batch: Batch) -> None:
        import torch

        from trainer.models.class_directions import ClassDirections

        assert isinstance(state, ClassDirections)
        views = torch.stack([view.others["contrast"] for view in out.views])
        state.follow(views, batch.label_a[: views.shape[1]])


@dataclass(frozen=True)
class ParametricContrast(Objective):
    """Logit adjustment with keys among the classes (Cui et al. 2021, `parametric_contrast`).

    The row itself, through the projection "contrast", is the query. Keys are the projections of a
    further view by a copy of the network that follows it with `momentum`, of this step and of
    `queue` images before; and the other queries of the step, unless they are mixed. A mixed row
    meets the keys of each of its classes by the share of its label. Rows of a bank have logit
    adjustment alone. `alpha` is the weight of a key beside that of the class.
    """

    alpha: float = 0.01
    temperature: float = 0.05
    queue: int = 1024
    momentum: float = 0.999
    hidden: int = 512
    width: int = 128

    reads_shares = True
    reads_state = True
    reads_batch = True
    corrects_prior = True

    def __post_init__(self) -> None:
        _require_positive(self.temperature)
        if not 0 < self.momentum < 1:
            raise ValueError(f"momentum must lie in (0, 1), got {self.momentum}")

    @property
    def needs(self) -> Needs:
        head = Head("mlp", width=self.width, hidden=self.hidden)
        return Needs(others={"contrast": head}, views=1, follower=self.momentum)

    def state(self, task: Task) -> nn.Module:
        from trainer.models.key_queue import KeyQueue

        return KeyQueue(self.queue, self.width)

    def bind(self, task: Task, state: nn.Module | None = None) -> Loss:
        import torch

        from trainer.losses.contrast import parametric_contrast
        from trainer.losses.counts import as_counts, log_shares
        from trainer.losses.labels import cross_entropy
        from trainer.models.key_queue import KeyQueue

        assert isinstance(state, KeyQueue)
        shift = log_shares(as_counts(task.counts))

        def loss(student: Outputs, rows: Rows) -> Tensor:
            logits = student.logits + shift.to(student.logits)
            if rows.shown is None:
                return cross_entropy(logits, rows.label)
            (view,) = student.views
            now = view.others["contrast"]
            return parametric_contrast(
                logits,
                rows.label,
                student.others["contrast"],
                torch.cat([now, state.keys.to(now)]),
                torch.cat([rows.shown, state.label]),
                alpha=self.alpha,
                temperature=self.temperature,
                among=not rows.mixed,
            )

        return loss

    def after_step(self, state: nn.Module | None, out: Outputs, batch: Batch) -> None:
        from trainer.models.key_queue import KeyQueue

        assert isinstance(state, KeyQueue)
        (view,) = out.views
        keys = view.others["contrast"]
        state.put(keys, batch.label_a[: len(keys)])


def _nothing(student: Outputs) -> Tensor:
    """Makes the losses of rows without views: zeros, [N]."""
    return student.logits.new_zeros(len(student.logits))


def _require_positive(temperature: float) -> None:
    if temperature <= 0:
        raise ValueError(f"temperature must be positive, got {temperature}")
