"""Classifiers by name. Every model maps images [N, C, H, W] to `Outputs`.

Names and heads are known without torch, which is imported when a model is built.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from stylegan_mix.errors import UsageFailure, nearest
from stylegan_mix.rng import torch_generator
from trainer.models.heads import Head
from trainer.models.outputs import Outputs

if TYPE_CHECKING:
    from torch import Tensor, nn

    from trainer.models.classifier import Classifier

__all__ = [
    "MODELS",
    "Backbone",
    "Head",
    "Outputs",
    "build",
    "inherit",
    "initialise",
    "require",
    "with_head",
]


@dataclass(frozen=True)
class Backbone:
    """A network by name: its maker, from the numbers of image channels and of experts.

    side: pixels of the images that it is meant for; classes: those of the set that its published
    numbers are of; about: a line for `trainer models`.
    """

    make: Callable[[int, int], Classifier]
    about: str
    side: int
    classes: int


def _small(blocks: int) -> Backbone:
    """Describes the ResNet for small images with `blocks` blocks of each width."""

    def make(channels: int, experts: int) -> Classifier:
        from trainer.models.resnet import ExpertResNet, ResNet

        return ResNet(blocks, channels) if experts == 1 else ExpertResNet(blocks, channels, experts)

    return Backbone(make, "for small images (He et al. 2016, section 4.2)", side=32, classes=10)


def _large(
    depths: tuple[int, int, int, int],
    form: Literal["basic", "bottleneck"],
    paths: int = 1,
    width: int = 64,
) -> Backbone:
    """Describes a ResNet for photographs; the arguments are those of `LargeResNet`."""

    def make(channels: int, experts: int) -> Classifier:
        from trainer.models.large_resnet import LargeResNet

        return LargeResNet(depths, channels, form=form, paths=paths, width=width, experts=experts)

    source = "He et al. 2016" if paths == 1 else f"{paths}x{width}d, Xie et al. 2017"
    return Backbone(make, f"for photographs ({source}), {form} blocks", side=224, classes=1000)


MODELS: dict[str, Backbone] = {
    "resnet8": _small(1),
    "resnet20": _small(3),
    "resnet32": _small(5),
    "resnet44": _small(7),
    "resnet56": _small(9),
    "resnet110": _small(18),
    "resnet10": _large((1, 1, 1, 1), form="basic"),
    "resnet18": _large((2, 2, 2, 2), form="basic"),
    "resnet34": _large((3, 4, 6, 3), form="basic"),
    "resnet50": _large((3, 4, 6, 3), form="bottleneck"),
    "resnet101": _large((3, 4, 23, 3), form="bottleneck"),
    "resnet152": _large((3, 8, 36, 3), form="bottleneck"),
    "resnext50": _large((3, 4, 6, 3), form="bottleneck", paths=32, width=4),
}


def require(name: str) -> None:
    """Raises `UsageFailure` (exit code 2), with the nearest name, unless the model is known."""
    if name not in MODELS:
        raise UsageFailure(f"unknown model '{name}'{nearest(name, MODELS)}")


def build(
    name: str,
    *,
    classes: int,
    channels: int,
    head: Head = Head(),
    others: Mapping[str, Head] | None = None,
) -> Classifier:
    """Makes a model by name, with channels-last weights that are not yet initialised.

    `head` answers at test, and the backbone has as many experts as it; `others` are further heads
    by name, whose outputs stand in `Outputs.others`.
    """
    import torch

    require(name)
    model = MODELS[name].make(channels, head.experts)
    model.attach(classes, head, others or {})
    for parameter in model.parameters():
        if parameter.dim() == 4:
            parameter.data = parameter.data.contiguous(memory_format=torch.channels_last)
    return model


def initialise(module: nn.Module, seed: int, *index: int, stream: str = "model.init") -> None:
    """Sets Kaiming-normal weights, fan-in (He et al. 2015), from the stream `stream`.

    The gain is that of ReLU for convolutions and 1 for linear layers, whose outputs no ReLU
    follows; biases start at zero, batch norms at the identity.
    """
    from torch import nn

    for place, part in enumerate(module.modules()):
        generator = torch_generator(seed, stream, *index, place)
        if isinstance(part, nn.Conv2d):
            nn.init.kaiming_normal_(part.weight, nonlinearity="relu", generator=generator)
        elif isinstance(part, nn.Linear):
            nn.init.kaiming_normal_(part.weight, nonlinearity="linear", generator=generator)
            if part.bias is not None:
                nn.init.zeros_(part.bias)
        elif isinstance(part, nn.BatchNorm2d):
            part.reset_parameters()


def inherit(model: Classifier, weights: Mapping[str, Tensor], *, heads: bool) -> None:
    """Copies the weights of an earlier network: its backbone, and with `heads` its heads too.

    A parameter that only the new heads have keeps its value.
    """
    own = model.state_dict()
    taken = {
        name: value
        for name, value in weights.items()
        if name in own and (heads or not name.startswith(("head.", "others.")))
    }
    model.load_state_dict({**own, **taken})


def with_head(model: Classifier, head: Head, seed: int = 0, **buffers: Tensor) -> nn.Module:
    """Puts another head on a network in place; returns its module.

    It has the weights and biases of the head before it, and the `buffers` by name. What only the
    new head has is initialised from `seed`.
    """
    from trainer.models.classifier import head_of

    before, weight = model.head.state_dict(), model.head.get_parameter("weight")
    made = head_of(head, model.width, len(weight))
    initialise(made, seed, stream="head.init")
    made.load_state_dict({**made.state_dict(), **before, **buffers})
    model.head = made.to(weight)
    return made
