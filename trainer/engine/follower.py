"""A slow copy of the network that is trained, for answers that change little from step to step."""

from __future__ import annotations

import copy

import torch
from torch import Tensor, nn

from trainer.models import Outputs
from trainer.models.classifier import Classifier

__all__ = ["Follower"]


class Follower(nn.Module):
    """A copy of a network that follows its weights (He et al. 2020, MoCo, section 3.2).

    After each step, a weight of the copy is momentum times itself + (1 - momentum) times that of
    the network. Its batch norms have the statistics of the views that it sees.
    """

    def __init__(self, model: Classifier, momentum: float) -> None:
        super().__init__()
        self.network = copy.deepcopy(model).requires_grad_(False)
        self.momentum = momentum

    @torch.no_grad()
    def forward(self, views: Tensor) -> tuple[Outputs, ...]:  # [V, M, C, H, W]
        self.network.train(views.shape[1] > 0)  # no image has no statistics
        return tuple(self.network(view) for view in views)

    @torch.no_grad()
    def follow(self, model: Classifier) -> None:
        """Moves the weights toward those of the network."""
        for own, other in zip(self.network.parameters(), model.parameters(), strict=True):
            own.lerp_(other, 1 - self.momentum)
