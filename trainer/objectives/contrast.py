"""Objectives that contrast further views of the training images.

Views are never mixed. Rows of a bank have none, so such an objective is 0 for them.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from trainer.models.heads import Head
from trainer.objectives.base import Loss, Needs, Objective, Outputs, Rows, Task

if TYPE_CHECKING:
    from torch import Tensor, nn

__all__ = ["BalancedContrast"]


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
        if self.temperature <= 0:
            raise ValueError(f"temperature must be positive, got {self.temperature}")

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
                return student.logits.new_zeros(len(student.logits))
            views = torch.stack([view.others["contrast"] for view in student.views])
            assert student.weight is not None
            return balanced_contrast(views, rows.shown, state(student.weight), self.temperature)

        return loss
