"""The contract of objectives: a frozen value, bound to a task, gives one loss per row.

`N` rows, `K` classes, `D` features. Mixing is not seen here: the loop calls a loss once with the
labels `a` and once with the labels `b`, and mixes the two. Making, comparing and printing an
objective needs no torch; `bind` imports the equations from `trainer.losses`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Literal, NamedTuple

from stylegan_mix.errors import InvalidInput
from stylegan_mix.rng import Draws
from trainer.models.heads import Head
from trainer.models.outputs import Outputs

if TYPE_CHECKING:
    from torch import Tensor, nn

    from trainer.engine.batch import Batch

__all__ = ["Answer", "Loss", "Needs", "Objective", "Outputs", "Rows", "Task", "TeacherAnswer"]

Answer = Literal["logits", "label", "votes", "features"]


class TeacherAnswer(NamedTuple):
    """Answers of a teacher about N rows; None for everything that it was not asked.

    logits: [N, K]; label: [N] int64, its class; votes: [N, K], the number of its views for each
    class; features: [N, D].
    """

    logits: Tensor | None = None
    label: Tensor | None = None
    votes: Tensor | None = None
    features: Tensor | None = None


@dataclass(frozen=True)
class Rows:
    """The view of a loss on N rows, beside the student's outputs.

    label: [N] int64, or [N, K] shares of all classes for an objective that `reads_shares`; index:
    [N] int64, the image of its source that the label belongs to;
    teachers: one answer per teacher of the stage, in its order; progress: share of the stage's
    steps that are done, 0 at the first; draws: keyed by seed, stage and step, so that a resumed
    run draws the same noise; mixed: True if the rows show mixed images; shown: [N] int64, the
    classes of the images in the student's views, which are unmixed unless the stage's forward mixes
    them, whatever `label` is; None for rows that have no views, such as those of a bank.
    """

    label: Tensor
    index: Tensor
    teachers: tuple[TeacherAnswer, ...] = ()
    progress: float = 0.0
    draws: Draws = Draws()
    mixed: bool = False
    shown: Tensor | None = None

    @property
    def teacher(self) -> TeacherAnswer:
        """The answer of the only teacher."""
        (only,) = self.teachers
        return only


Loss = Callable[[Outputs, Rows], "Tensor"]
"""(student, rows) -> loss of each row [N]. It may read the objective's state, never write it."""


@dataclass(frozen=True)
class Task:
    """The numbers that an objective may need from the data and the network.

    counts: training images per class; class_votes: [K, K], row y is the mean share of a label-only
    teacher's votes on images of class y, or None without votes; features: the width D of the
    student's features; teacher_features: that of all its teachers' together.
    """

    counts: tuple[int, ...]
    class_votes: Tensor | None = None
    features: int = 0
    teacher_features: int = 0

    def __post_init__(self) -> None:
        empty = [index for index, count in enumerate(self.counts) if count < 1]
        if empty:
            raise InvalidInput(f"classes {empty} have no training image")

    def balanced(self) -> Task:
        """Makes the same task with equal counts, for rows whose classes are equal."""
        return replace(self, counts=(1,) * len(self.counts))


@dataclass(frozen=True)
class Needs:
    """The demands of an objective on the rest of a stage.

    answers: of every teacher; head: of the network, None for any; others: further heads by name;
    views: augmented views of each image beside the batch's own; ensemble: True if it reads more
    than one teacher; follower: the momentum of a copy of the network, which follows it and answers
    for the views in its place; 0 for none.
    """

    answers: frozenset[Answer] = frozenset()
    head: Head | None = None
    others: Mapping[str, Head] = field(default_factory=dict)
    views: int = 0
    ensemble: bool = False
    follower: float = 0.0

    def __or__(self, other: Needs) -> Needs:
        """Joins two demands; `ValueError` if they want different heads."""
        heads = {head for head in (self.head, other.head) if head is not None}
        clash = {
            name
            for name in self.others
            if other.others.get(name, self.others[name]) != self.others[name]
        }
        if len(heads) > 1 or clash:
            raise ValueError(f"one network cannot have the heads of both {self!r} and {other!r}")
        return Needs(
            self.answers | other.answers,
            heads.pop() if heads else None,
            {**self.others, **other.others},
            max(self.views, other.views),
            self.ensemble or other.ensemble,
            max(self.follower, other.follower),
        )


class Objective:
    """The base of objectives: frozen dataclasses of hyper-parameters."""

    @property
    def needs(self) -> Needs:
        """The demands on teachers, heads and views."""
        return Needs()

    @property
    def stochastic(self) -> bool:
        """True if the loss draws noise, so that equal rows may have different losses."""
        return False

    @property
    def reads_state(self) -> bool:
        """True if the loss depends on its state."""
        return False

    @property
    def reads_batch(self) -> bool:
        """True if the loss of a row depends on the other rows of its source."""
        return False

    @property
    def reads_shares(self) -> bool:
        """True if a label may be shares [N, K] that add to 1: then the loss is sum_c p_c loss(c).

        A loss that no label enters reads them, too. Only rows of a bank have such labels.
        """
        return False

    @property
    def detaches(self) -> bool:
        """True if the gradient takes a factor of the loss for a constant."""
        return False

    @property
    def corrects_prior(self) -> bool:
        """True if the loss corrects for unequal classes, so that nothing else may do so again."""
        return False

    @property
    def remembers(self) -> bool:
        """True if its state has class means that are kept with the network (`ClassMeans`).

        Heads of later stages and corrections of the finished network read them.
        """
        return False

    def state(self, task: Task) -> nn.Module | None:
        """Makes the module that the objective keeps from step to step, or None.

        It is made once a stage. Its parameters join the optimiser and its state the checkpoint;
        convolutions and linear layers in it are initialised anew from the run's seed.
        """
        return None

    def bind(self, task: Task, state: nn.Module | None = None) -> Loss:
        """Makes the loss of a task; tensors follow the device and dtype of the student's logits."""
        raise NotImplementedError

    def after_step(self, state: nn.Module | None, out: Outputs, batch: Batch) -> None:
        """Updates `state` after an optimiser step, without gradients; the only writer of it.

        out: the student's outputs before the step, detached, on the judged rows of `batch`.
        """
