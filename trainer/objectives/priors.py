"""Objectives that put the shares of the classes into the logits of training."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from trainer.objectives.base import Loss, Objective, Outputs, Rows, Task

if TYPE_CHECKING:
    from torch import Tensor, nn

__all__ = ["BalancedSigmoid", "LogitAdjusted", "VectorScaled"]


@dataclass(frozen=True)
class LogitAdjusted(Objective):
    """Logit adjustment, -log softmax(z + tau log pi)_y (Menon et al. 2021, eq. 10).

    pi are the shares of the classes in training, and argmax z predicts. tau = 1 is the balanced
    softmax (Ren et al. 2020, eq. 4).
    """

    tau: float = 1.0

    reads_shares = True
    corrects_prior = True

    def bind(self, task: Task, state: nn.Module | None = None) -> Loss:
        from trainer.losses.counts import as_counts
        from trainer.losses.priors import logit_adjust

        counts = as_counts(task.counts)

        def loss(student: Outputs, rows: Rows) -> Tensor:
            return logit_adjust(student.logits, rows.label, counts, self.tau)

        return loss


@dataclass(frozen=True)
class VectorScaled(Objective):
    """The vector-scaling loss, -log softmax(d z + tau log pi)_y (Kini et al. 2021).

    d_c = (n_c / n_max) ** gamma, and argmax z predicts. The defaults are those of the published
    command for CIFAR-10-LT.
    """

    gamma: float = 0.2
    tau: float = 1.2

    reads_shares = True
    corrects_prior = True

    def bind(self, task: Task, state: nn.Module | None = None) -> Loss:
        from trainer.losses.counts import as_counts
        from trainer.losses.priors import vs_loss

        counts = as_counts(task.counts)

        def loss(student: Outputs, rows: Rows) -> Tensor:
            return vs_loss(student.logits, rows.label, counts, gamma=self.gamma, tau=self.tau)

        return loss


@dataclass(frozen=True)
class BalancedSigmoid(Objective):
    """The balanced sigmoid: one class against the rest, with its prior odds (Ren et al. 2020).

    The loss sums over classes (`losses.priors.balanced_sigmoid`), and argmax z predicts. For rows
    of a bank, whose classes are equal, the odds are 1 to K - 1.
    """

    corrects_prior = True

    def bind(self, task: Task, state: nn.Module | None = None) -> Loss:
        from trainer.losses.counts import as_counts
        from trainer.losses.priors import balanced_sigmoid

        counts = as_counts(task.counts)

        def loss(student: Outputs, rows: Rows) -> Tensor:
            return balanced_sigmoid(student.logits, rows.label, counts)

        return loss
