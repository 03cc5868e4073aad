"""Two heads, of which one learns from features of earlier passes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from trainer.models.heads import Head
from trainer.objectives.base import Loss, Needs, Objective, Outputs, Rows, Task
from trainer.objectives.memory import ALMOST_PURE

if TYPE_CHECKING:
    from torch import Tensor, nn

    from trainer.engine.batch import Batch

__all__ = ["BackTracked"]


@dataclass(frozen=True)
class BackTracked(Objective):
    """Two heads on one backbone: a plain one that trains it, and one for features of old passes.

    Breadcrumbs (Liu et al. 2022), as far as its code defines it. The head "plain" and the backbone
    learn from the images by cross-entropy. The head that answers at test learns, by cross-entropy,
    from the features that the forward `FromQueues` draws, and gives no gradient to the backbone.
    Each row has both losses, so that either is a mean over rows. Only almost pure training images
    are kept in the queues, with the features of the step; rows of a bank never are.

    The code needs full queues, and shows the answering head class-balanced images until then. Here
    it draws from what the queues hold as soon as a class has one whole pass, and until then it sees
    the features of the images themselves.
    """

    corrects_prior = True
    reads_shares = True

    @property
    def needs(self) -> Needs:
        return Needs(head=Head(detached=True), others={"plain": Head()})

    @property
    def reads_state(self) -> bool:
        return True

    def state(self, task: Task) -> nn.Module:
        from trainer.models.feature_queues import FeatureQueues

        return FeatureQueues(task.counts, task.features)

    def bind(self, task: Task, state: nn.Module | None = None) -> Loss:
        import torch

        from trainer.losses.labels import cross_entropy

        def loss(student: Outputs, rows: Rows) -> Tensor:
            kept = student.others["label"]  # -1 where the features are of the row's own image
            tracked = cross_entropy(student.logits, kept.clamp(min=0))
            own = cross_entropy(student.logits, rows.label)
            plain = cross_entropy(student.others["plain"], rows.label)
            return plain + torch.where(kept >= 0, tracked, own)

        return loss

    def after_step(self, state: nn.Module | None, out: Outputs, batch: Batch) -> None:
        from trainer.models.feature_queues import FeatureQueues

        assert isinstance(state, FeatureQueues)
        for source in batch.judged:
            if not (source.bank or source.even):
                rows = source.rows
                pure = batch.lam[rows] >= ALMOST_PURE
                state.follow(out.features[rows], batch.label_a[rows], pure)
