"""Two mixtures of the same images: labels with growing weights of classes, and their agreement."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from trainer.models.heads import Head
from trainer.objectives.base import Loss, Needs, Objective, Outputs, Rows, Task

if TYPE_CHECKING:
    from torch import Tensor, nn

__all__ = ["MixtureConsistency"]


@dataclass(frozen=True)
class MixtureConsistency(Objective):
    """Cumulative learning on two mixtures, and their agreement (Du et al. 2023).

    At the share t of the stage, each view has (1 - t ** 2) CE of the head "plain" + t ** 2 w_y CE
    of the head that answers, w_c in proportion to n_c ** -power with mean 1 over classes
    (`losses.weights.power_weights`). Beside the mean over both views stands `consistency` times
    their `losses.features.agreement`: a projection "agreed" of `hidden` units with a batch norm and
    `width` outputs, and a predictor with a quarter of `width` in its middle. The paper minimises
    negative cosines; here they are added to 1.
    """

    power: float = 1.2
    consistency: float = 4.0
    hidden: int = 512
    width: int = 128

    reads_state = True
    corrects_prior = True
    detaches = True

    @property
    def needs(self) -> Needs:
        projection = Head("mlp", width=self.width, hidden=self.hidden, normed=True)
        return Needs(others={"plain": Head(), "agreed": projection}, views=1)

    def state(self, task: Task) -> nn.Module:
        from trainer.models.projection import mlp

        return mlp(self.width, self.width // 4, self.width)

    def bind(self, task: Task, state: nn.Module | None = None) -> Loss:
        from trainer.losses.features import agreement
        from trainer.losses.labels import cross_entropy
        from trainer.losses.weights import power_weights

        assert state is not None
        weights = power_weights(task.counts, self.power)

        def loss(student: Outputs, rows: Rows) -> Tensor:
            (view,) = student.views
            late = rows.progress**2
            weight = weights.to(student.logits)[rows.label]

            def labelled(out: Outputs) -> Tensor:
                plain = cross_entropy(out.others["plain"], rows.label)
                return (1 - late) * plain + late * weight * cross_entropy(out.logits, rows.label)

            projected = student.others["agreed"], view.others["agreed"]
            predicted = state(projected[0]), state(projected[1])
            agreed = self.consistency * agreement(projected, predicted)
            return (labelled(student) + labelled(view)) / 2 + agreed

        return loss
