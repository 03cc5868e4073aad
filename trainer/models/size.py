"""The size of a classifier, counted on a network without memory: nothing is allocated."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn

from trainer import models

__all__ = ["Size", "size_of"]


class Size(NamedTuple):
    """parameters: learned numbers. numbers: these, and the statistics of batch norms.

    multiply_adds: those of the convolutions and the head for one image; a norm, a ReLU or a sum
    counts nothing, as in the papers.
    """

    parameters: int
    numbers: int
    multiply_adds: int


def size_of(name: str, *, classes: int, channels: int, side: int) -> Size:
    """Counts a model by its name, for images of `side` by `side` pixels."""
    found: list[int] = []

    def count(layer: nn.Module, _: object, out: Tensor) -> None:
        weight = layer.weight
        assert isinstance(weight, Tensor)
        places = out[0, 0].numel()  # one for a linear layer
        found.append(weight.numel() * places)

    with torch.device("meta"), torch.no_grad():
        model = models.build(name, classes=classes, channels=channels).eval()
        for part in model.modules():
            if isinstance(part, nn.Conv2d | nn.Linear):
                part.register_forward_hook(count)
        model.head(model.pool(model.maps(torch.empty(1, channels, side, side))))
    return Size(
        sum(one.numel() for one in model.parameters()),
        sum(one.numel() for one in model.state_dict().values()),
        sum(found),
    )
