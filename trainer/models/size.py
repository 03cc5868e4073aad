"""The size of a classifier, counted on a network without memory: nothing is allocated."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

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
    model = without_memory(name, classes=classes, channels=channels).eval()
    images = torch.empty(1, channels, side, side, device="meta")
    with torch.no_grad(), _MultiplyAdds() as counted:
        model.head(model.pool(model.maps(images)))
    return Size(parameters(model), counted.total)


class _MultiplyAdds(TorchDispatchMode):
    """A count over the operators that run, of PyTorch or of `kernels`, for one image."""

    def __init__(self) -> None:
        super().__init__()
        self.total = 0

    def __torch_dispatch__(
        self, operator: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        out = operator(*args, **(kwargs or {}))
        name = operator.name()
        if "conv" in name:
            self.total += args[1].numel() * math.prod(out.shape[2:])
        elif name in ("aten::addmm", "aten::mm"):  # a linear layer, with or without a bias
            self.total += args[-1].numel()
        return out
