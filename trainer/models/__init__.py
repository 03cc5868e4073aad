"""Classifiers by name. Every model maps images [N, C, H, W] to `Outputs(features, logits)`."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import nn

from stylegan_mix.errors import UsageFailure, nearest
from stylegan_mix.rng import torch_generator
from trainer.models.outputs import Outputs
from trainer.models.resnet import ResNet

__all__ = ["MODELS", "Outputs", "build", "initialise", "require"]

MODELS: dict[str, Callable[[int, int], ResNet]] = {
    "resnet8": lambda classes, channels: ResNet(1, classes, channels),
    "resnet20": lambda classes, channels: ResNet(3, classes, channels),
    "resnet32": lambda classes, channels: ResNet(5, classes, channels),
}


def require(name: str) -> None:
    """Raises `UsageFailure` (exit code 2), with the nearest name, unless the model is known."""
    if name not in MODELS:
        raise UsageFailure(f"unknown model '{name}'{nearest(name, MODELS)}")


def build(name: str, *, classes: int, channels: int) -> ResNet:
    """A model by name, not yet initialised (see `initialise`), with channels-last weights."""
    require(name)
    model = MODELS[name](classes, channels)
    for parameter in model.parameters():
        if parameter.dim() == 4:
            parameter.data = parameter.data.contiguous(memory_format=torch.channels_last)
    return model


def initialise(module: nn.Module, seed: int, *stream: int) -> None:
    """Kaiming-normal weights, fan-in (He et al. 2015), from the stream "model.init".

    The gain is that of ReLU for convolutions and 1 for linear heads, whose outputs no ReLU
    follows; biases start at zero, batch norms at the identity.
    """
    for index, part in enumerate(module.modules()):
        generator = torch_generator(seed, "model.init", *stream, index)
        if isinstance(part, nn.Conv2d):
            nn.init.kaiming_normal_(part.weight, nonlinearity="relu", generator=generator)
        elif isinstance(part, nn.Linear):
            nn.init.kaiming_normal_(part.weight, nonlinearity="linear", generator=generator)
            nn.init.zeros_(part.bias)
        elif isinstance(part, nn.BatchNorm2d):
            part.reset_parameters()
