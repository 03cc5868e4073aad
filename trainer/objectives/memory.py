"""A memory of class means beside a training, and knowledge transfer from it to a second head."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from trainer.models.heads import Head
from trainer.objectives.base import Loss, Needs, Objective, Outputs, Rows, Task
from trainer.objectives.combine import Combined

if TYPE_CHECKING:
    from torch import Tensor, nn

    from trainer.engine.batch import Batch

__all__ = ["MemoryTransfer", "Remembered"]

# A mixed image with at least this share of a class counts as an image of it.
ALMOST_PURE = 0.8


@dataclass(frozen=True)
class MemoryTransfer(Objective):
    """Two heads on one backbone: a plain one that trains it, and one that is taught by a memory.

    The head "plain" and the backbone learn by cross-entropy. The head that answers at test reads
    the features without a gradient to them, and learns from label and memory
    (`losses.memory.transfer`). The memory holds class means of unit features, moved after each
    step by the share `rate`; it classifies by cosine, mapped to the range of the plain logits, and
    teaches once it has seen every class. `label_weight` and `temperature` are those of `transfer`.

    Defined by the code of Sonseca (2021). That code fills the memory from the whole training set
    after the first epoch; here the first rows of each class begin it. Each label of a mixed row is
    judged by itself. Only almost pure training images move the memory; rows of a bank never do.
    """

    label_weight: float = 0.2
    temperature: float = 1.0
    rate: float = 0.1

    @property
    def needs(self) -> Needs:
        return Needs(head=Head(detached=True), others={"plain": Head()})

    @property
    def reads_state(self) -> bool:
        return True

    def state(self, task: Task) -> nn.Module:
        from trainer.models.class_means import ClassMeans

        return ClassMeans(len(task.counts), task.features)

    def bind(self, task: Task, state: nn.Module | None = None) -> Loss:
        import torch

        from trainer.losses.labels import cross_entropy
        from trainer.losses.memory import matched, nearness, transfer
        from trainer.models.class_means import ClassMeans

        assert isinstance(state, ClassMeans)

        def loss(student: Outputs, rows: Rows) -> Tensor:
            plain = student.others["plain"]
            near = nearness(student.features.detach(), state.means.to(plain))
            taught = transfer(
                student.logits,
                rows.label,
                matched(near, plain.detach()),
                label_weight=self.label_weight,
                temperature=self.temperature,
            )
            alone = cross_entropy(student.logits, rows.label)
            return cross_entropy(plain, rows.label) + torch.where(state.seen.all(), taught, alone)

        return loss

    def after_step(self, state: nn.Module | None, out: Outputs, batch: Batch) -> None:
        _follow(state, out, batch, self.rate)


@dataclass(frozen=True)
class Remembered(Combined):
    """An objective beside which a memory of class means is kept; its loss stays as it is.

    After each step the class means of unit features move by the share `rate` toward those of the
    batch. They are stored with the network. The rows that move them are those of `MemoryTransfer`,
    and so is the source.
    """

    objective: Objective
    rate: float = 0.1

    remembers = True

    def __post_init__(self) -> None:
        if not 0 < self.rate <= 1:
            raise ValueError(f"rate must lie in (0, 1], got {self.rate}")

    @property
    def parts(self) -> tuple[Objective, ...]:
        return (self.objective,)

    def state(self, task: Task) -> nn.Module:
        from torch import nn

        from trainer.models.class_means import ClassMeans

        kept = super().state(task)
        made = kept if isinstance(kept, nn.ModuleDict) else nn.ModuleDict()
        made["memory"] = ClassMeans(len(task.counts), task.features)
        return made

    def bind(self, task: Task, state: nn.Module | None = None) -> Loss:
        (loss,) = self._bound(task, state)
        return loss

    def after_step(self, state: nn.Module | None, out: Outputs, batch: Batch) -> None:
        super().after_step(state, out, batch)
        assert state is not None
        _follow(state.get_submodule("memory"), out, batch, self.rate)


def _follow(memory: nn.Module | None, out: Outputs, batch: Batch, rate: float) -> None:
    """Moves the means by the almost pure training images of a batch, never by rows of a bank."""
    from trainer.models.class_means import ClassMeans

    assert isinstance(memory, ClassMeans)
    for source in batch.judged:
        if not source.bank:
            rows = source.rows
            pure = batch.lam[rows] >= ALMOST_PURE
            memory.follow(out.features[rows], batch.label_a[rows], pure, rate)
