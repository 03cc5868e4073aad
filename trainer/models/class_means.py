"""Means of the features of each class, followed while a network is trained. `K` classes."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from trainer.losses.memory import moved

__all__ = ["ClassMeans", "means_of"]


class ClassMeans(nn.Module):
    """Moving averages of unit features by class.

    means: [K, D]; seen: [K] bool, the classes that had a row so far. The first rows of a class set
    its mean, later ones move it.
    """

    means: Tensor
    seen: Tensor

    def __init__(self, classes: int, width: int) -> None:
        super().__init__()
        self.register_buffer("means", torch.zeros(classes, width))
        self.register_buffer("seen", torch.zeros(classes, dtype=torch.bool))

    def follow(self, features: Tensor, label: Tensor, taken: Tensor, rate: float) -> None:
        """Moves the means of the classes of the taken rows by the share `rate` toward theirs.

        features: [N, D]; label: [N] int64; taken: [N] bool.
        """
        rates = torch.where(self.seen, rate, 1.0)
        self.means.copy_(moved(self.means, features, label, taken, rates))
        self.seen |= (F.one_hot(label, len(self.seen)).bool() & taken[:, None]).any(0)


def means_of(state: nn.Module | None) -> Tensor:
    """Finds the class means [K, D] in the state of an objective, on the CPU.

    An objective that switches between two others may hold the same means twice.
    """
    parts = state.modules() if state is not None else ()
    return next(part for part in parts if isinstance(part, ClassMeans)).means.cpu().clone()
