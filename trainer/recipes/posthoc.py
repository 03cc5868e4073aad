"""Corrections of a finished network, between training and its test. `N` images, `K` classes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from torch import Tensor, nn

    from trainer.models.classifier import Classifier
    from trainer.models.heads import Head
    from trainer.objectives import Task

__all__ = ["Evidence", "LogitAdjust", "NearestMean", "PostHoc", "Seen", "TauNorm", "Temperature"]

# 0, 0.1, ... 2: the grid of published code for strengths that validation images choose.
_GRID = tuple(step / 10 for step in range(21))


class Seen(NamedTuple):
    """The answers of a network, on the CPU: features [N, D], logits [N, K]; labels [N] int64."""

    features: Tensor
    logits: Tensor
    labels: Tensor


@dataclass(frozen=True)
class Evidence:
    """Images that a correction may look at; test images are out of its reach.

    training: asks the network, as it is then, about the training images without augmentation;
    validation: about the run's validation images, or None without any (``--val-per-class``);
    memory: the class means that the last stage kept, [K, D], or None if it kept none; seed: that of
    the run.
    """

    training: Callable[[], Seen]
    validation: Callable[[], Seen] | None = None
    memory: Tensor | None = None
    seed: int = 0

    def best_of(
        self, grid: tuple[float, ...], change: Callable[[float], None], otherwise: float
    ) -> float:
        """Changes the network by the value with the best accuracy on the validation images.

        Returns that value of `grid`, the first of equals; `otherwise` without validation images.
        """
        chosen = otherwise
        if (ask := self.validation) is not None:

            def right(value: float) -> int:
                change(value)
                seen = ask()
                return int((seen.logits.argmax(1) == seen.labels).sum())

            chosen = max(grid, key=right)
        change(chosen)
        return chosen


class PostHoc:
    """The base of corrections: frozen values that change a finished network in place.

    corrects_prior: True if it corrects for unequal classes, so that the training may not do so,
    too; linear_head: True if it is defined for a linear head only; reads_memory: True if the last
    stage must keep class means. A call returns the numbers that it set, which join the network's
    facts.
    """

    corrects_prior = False
    linear_head = True
    reads_memory = False

    @property
    def needs_validation(self) -> bool:
        """True if it cannot do without validation images."""
        return False

    @property
    def head(self) -> Head | None:
        """The head that the network has afterwards; None if it is still the one of its training."""
        return None

    def __call__(self, model: Classifier, task: Task, evidence: Evidence) -> dict[str, Any]:
        raise NotImplementedError


@dataclass(frozen=True)
class TauNorm(PostHoc):
    """A linear head with weights w_c / |w_c| ** tau and no biases (Kang et al. 2020, section 4.2).

    With validation images tau is the best of 0, 0.1, ... 2 on them, the smallest of equals, as
    published; without them it is `tau`, and 1 gives weights of equal norm.
    """

    tau: float = 1.0
    corrects_prior = True

    def __call__(self, model: Classifier, task: Task, evidence: Evidence) -> dict[str, Any]:
        from trainer.models.normalised import tau_normalised

        head = _linear(model)
        weight = head.weight.clone()
        head.bias.zero_()

        def change(tau: float) -> None:
            head.weight.copy_(tau_normalised(weight, tau))

        return {"tau": evidence.best_of(_GRID, change, otherwise=self.tau)}


@dataclass(frozen=True)
class LogitAdjust(PostHoc):
    """Logits less tau log pi_c, so that the head no longer favours large classes.

    Menon et al. 2021, section 4.1; pi_c is the share of class c of the training images. The biases
    take the shift. With validation images tau is the best of 0, 0.1, ... 2 on them, the smallest of
    equals; without them it is `tau`.
    """

    tau: float = 1.0
    corrects_prior = True

    def __call__(self, model: Classifier, task: Task, evidence: Evidence) -> dict[str, Any]:
        from trainer.losses.counts import log_shares

        head = _linear(model)
        bias = head.bias.clone()
        shift = log_shares(task.counts).to(bias)  # [K]

        def change(tau: float) -> None:
            head.bias.copy_(bias - tau * shift)

        return {"tau": evidence.best_of(_GRID, change, otherwise=self.tau)}


@dataclass(frozen=True)
class NearestMean(PostHoc):
    """A head that answers with the class whose mean feature is nearest by cosine.

    Kang et al. 2020, section 4.2 (NCM). The mean of a class is that of its unit features over the
    training images, and the head's weights are these means at unit length, without biases: its
    largest logit is the nearest mean's. The logits are |f| cos, so their softmax is no calibrated
    probability. The learned head is given up, so its bias toward large classes is gone with it.
    """

    def __call__(self, model: Classifier, task: Task, evidence: Evidence) -> dict[str, Any]:
        import torch
        import torch.nn.functional as F

        from trainer.losses.memory import moved

        features, _, labels = evidence.training()
        head = _linear(model)
        classes, width = head.weight.shape
        everything = torch.ones(len(labels), dtype=torch.bool)
        means = moved(
            torch.zeros(classes, width), features, labels, everything, torch.ones(classes)
        )
        head.weight.copy_(F.normalize(means, dim=1))
        head.bias.zero_()
        return {}


@dataclass(frozen=True)
class Temperature(PostHoc):
    """Logits divided by the T that makes validation images most likely (Guo et al. 2017, 4.2).

    T is found between 1/100 and 100. Weights and biases of the head take the division, so no
    prediction changes; only the probabilities do.
    """

    @property
    def needs_validation(self) -> bool:
        return True

    def __call__(self, model: Classifier, task: Task, evidence: Evidence) -> dict[str, Any]:
        from trainer.models.normalised import best_temperature

        assert evidence.validation is not None
        seen = evidence.validation()
        chosen = best_temperature(seen.logits, seen.labels)
        head = _linear(model)
        head.weight.div_(chosen)
        head.bias.div_(chosen)
        return {"temperature": chosen}


def _linear(model: Classifier) -> nn.Linear:
    """Finds the head of a network; corrections are of linear ones (`PostHoc.linear_head`)."""
    from torch import nn

    assert isinstance(model.head, nn.Linear)
    return model.head
