"""Logits adjusted in Gaussian form: noise that pulls rare classes away from every row."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, get_args

from trainer.models.heads import Head
from trainer.objectives.base import Loss, Needs, Objective, Outputs, Rows, Task

if TYPE_CHECKING:
    from torch import Tensor, nn

__all__ = ["GaussianClouded"]

Form = Literal["cosine", "angle"]


@dataclass(frozen=True)
class GaussianClouded(Objective):
    """Gaussian clouded logits on a cosine head (Li et al. 2022, 2024).

    form: noise on the cosines (`losses.gaussian.gcl`) or on the angles (`gcl_angular`); size: that
    of the noise of the rarest class; margin, gamma: as in those. Rows of a bank, whose classes are
    equal, have no noise. A mixed row draws its noise anew for each label, as published.
    """

    form: Form = "cosine"
    size: float = 0.5
    margin: float = 0.0
    scale: float = 30.0
    gamma: float = 0.0
    stochastic = True

    def __post_init__(self) -> None:
        if self.form not in get_args(Form):
            raise ValueError(f"form must be one of {get_args(Form)}, got {self.form!r}")

    @property
    def detaches(self) -> bool:
        return self.gamma > 0

    @property
    def needs(self) -> Needs:
        return Needs(head=Head("cosine", self.scale))

    def bind(self, task: Task, state: nn.Module | None = None) -> Loss:
        from trainer.losses.counts import as_counts
        from trainer.losses.gaussian import gcl, gcl_angular

        equation = gcl if self.form == "cosine" else gcl_angular
        counts = as_counts(task.counts)

        def loss(student: Outputs, rows: Rows) -> Tensor:
            return equation(
                student.logits,
                rows.label,
                counts,
                size=self.size,
                margin=self.margin,
                scale=self.scale,
                gamma=self.gamma,
                draws=rows.draws,
            )

        return loss
