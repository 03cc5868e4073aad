"""LDAM: margins that grow as classes get rarer."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from trainer.models.heads import Head
from trainer.objectives.base import Loss, Needs, Objective, Outputs, Rows, Task

if TYPE_CHECKING:
    from torch import Tensor, nn

__all__ = ["Ldam"]


@dataclass(frozen=True)
class Ldam(Objective):
    """The LDAM loss -w_y log softmax(scale (cos - m_y e_y))_y on a cosine head.

    Cao et al. 2019, section 3.2. m_c is in proportion to n_c ** (-1/4), the greatest m is
    `largest`. w_c is in proportion to the inverse effective number of class c at `beta` (Cui et al.
    2019), with mean 1 over training images; beta = 0 weighs all classes alike. Rows of a bank,
    whose classes are equal, have the largest margin and weight 1.
    """

    largest: float = 0.5
    scale: float = 30.0
    beta: float = 0.0

    @property
    def needs(self) -> Needs:
        return Needs(head=Head("cosine", self.scale))

    @property
    def corrects_prior(self) -> bool:
        return self.beta > 0

    def bind(self, task: Task, state: nn.Module | None = None) -> Loss:
        from trainer.losses.counts import as_counts
        from trainer.losses.margin import ldam
        from trainer.losses.weights import class_weights

        counts = as_counts(task.counts)
        weights = class_weights(counts, self.beta, "images")  # [K]

        def loss(student: Outputs, rows: Rows) -> Tensor:
            each = ldam(student.logits, rows.label, counts, largest=self.largest, scale=self.scale)
            return weights.to(each)[rows.label] * each

        return loss
