"""The size of a classifier, counted on a network without memory: nothing is allocated."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn

from trainer import models
from trainer.models.classifier import Classifier

__all__ = ["Size", "parameters", "size_of", "without_memory"]


class Size(NamedTuple):
    """The learned numbers of a classifier, and its multiply-adds for one image.

    Those are of the convolutions and the head; a norm, a ReLU or a sum counts nothing, as in the
    papers.
    """

    parameters: int
    multiply_adds: int


def without_memory(
    name: str, *, classes: int, channels: int, head: models.Head = models.Head()
) -> Classifier:
    """Builds a model by its name, on the device "meta": it has shapes and no numbers."""
    with torch.device("meta"):
        return models.build(name, classes=classes, channels=channels, head=head)


def parameters(model: nn.Module) -> int:
    """Counts the learned numbers of a network."""
    return sum(one.numel() for one in model.parameters())


def size_of(name: str, *, classes: int, channels: int, side: int) -> Size:
    """Counts a model by its name, for images of `side` by `side` pixels."""
    found: list[int] = []

    def count(layer: nn.Module, _: object, out: Tensor) -> None:
        weight = layer.weight
        assert isinstance(weight, Tensor)
        places = out[0, 0].numel()  # one for a linear layer
        found.append(weight.numel() * places)

    model = without_memory(name, classes=classes, channels=channels).eval()
    for part in model.modules():
        if isinstance(part, nn.Conv2d | nn.Linear):
            part.register_forward_hook(count)
    images = torch.empty(1, channels, side, side, device="meta")
    with torch.no_grad():
        model.head(model.pool(model.maps(images)))
    return Size(parameters(model), sum(found))
