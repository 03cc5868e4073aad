"""Experts that are corrected for class shares to different degrees."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from trainer.models.heads import Head
from trainer.objectives.base import Loss, Needs, Objective, Outputs, Rows, Task

if TYPE_CHECKING:
    from torch import Tensor, nn

__all__ = ["BalancedExperts"]


@dataclass(frozen=True)
class BalancedExperts(Objective):
    """Logit adjustment of several experts by different taus (BalPoE, Aimar et al. 2023).

    Each expert has its own last layers and a cosine head; the mean of their logits predicts, which
    is balanced if the mean of `taus` is 1 (`losses.experts.balanced_experts`). scale: that of the
    heads. For rows of a bank, whose classes are equal, it is the mean of cross-entropies.
    """

    taus: tuple[float, ...] = (0.0, 1.0, 2.0)
    scale: float = 30.0

    reads_shares = True

    def __post_init__(self) -> None:
        if len(self.taus) < 2:
            raise ValueError(f"taus must be those of at least two experts, got {self.taus}")

    @property
    def needs(self) -> Needs:
        return Needs(head=Head("cosine", self.scale, experts=len(self.taus)))

    @property
    def corrects_prior(self) -> bool:
        return any(self.taus)

    def bind(self, task: Task, state: nn.Module | None = None) -> Loss:
        from trainer.losses.counts import as_counts
        from trainer.losses.experts import balanced_experts

        counts = as_counts(task.counts)

        def loss(student: Outputs, rows: Rows) -> Tensor:
            return balanced_experts(student.others["experts"], rows.label, counts, self.taus)

        return loss
