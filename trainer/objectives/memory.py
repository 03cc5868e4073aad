"""Knowledge transfer from a memory of class means to a second head."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from trainer.models.heads import Head
from trainer.objectives.base import Loss, Needs, Objective, Outputs, Rows, Task

if TYPE_CHECKING:
    from torch import Tensor, nn

    from trainer.engine.batch import Batch

__all__ = ["MemoryTransfer"]

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
        from trainer.models.class_means import ClassMeans

        assert isinstance(state, ClassMeans)
        for source in batch.judged:
            if not source.bank:
                rows = source.rows
                pure = batch.lam[rows] >= ALMOST_PURE
                state.follow(out.features[rows], batch.label_a[rows], pure, self.rate)
