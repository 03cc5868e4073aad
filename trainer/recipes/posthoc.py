"""Corrections of a finished network, between training and its test."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from trainer.models.classifier import Classifier
    from trainer.objectives import Task

__all__ = ["PostHoc", "TauNorm"]


class PostHoc(Protocol):
    """A frozen value that changes a finished network in place, for example the norms of its head.

    `validate` gives the network's accuracy in percent on the run's validation images, or is None
    without any (``--val-per-class``). `needs_validation` is True if it cannot do without. Test
    images are out of its reach. Returns the numbers that it set, which join the network's facts.
    """

    @property
    def needs_validation(self) -> bool: ...

    def __call__(
        self, model: Classifier, task: Task, validate: Callable[[], float] | None
    ) -> dict[str, Any]: ...


@dataclass(frozen=True)
class TauNorm:
    """A linear head with weights w_c / |w_c| ** tau and no biases (Kang et al. 2020, section 4.2).

    With validation images tau is the best of 0, 0.1, ... 2 on them, the smallest of equals, as
    published; without them it is `tau`, and 1 gives weights of equal norm.
    """

    tau: float = 1.0
    needs_validation = False

    def __call__(
        self, model: Classifier, task: Task, validate: Callable[[], float] | None
    ) -> dict[str, Any]:
        from trainer.models.normalised import tau_normalised

        weight = model.head.weight.clone()
        model.head.bias.zero_()

        def accuracy(tau: float) -> float:
            model.head.weight.copy_(tau_normalised(weight, tau))
            return validate() if validate else 0.0

        chosen = max([step / 10 for step in range(21)], key=accuracy) if validate else self.tau
        accuracy(chosen)
        return {"tau": chosen}
