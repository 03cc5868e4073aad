"""The base of all classifiers: a backbone, and the heads that read its features.

`N` batch, `C` image channels, `H W` pixels, `D` features, `h w` places of the last feature maps,
`K` classes, `E` experts.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from trainer.models.heads import Head
from trainer.models.memory_heads import memory_head
from trainer.models.outputs import Outputs
from trainer.models.projection import mlp

__all__ = ["Classifier", "CosineLinear", "ExpertHeads", "ScaledLinear", "head_of", "part_of"]


class Classifier(nn.Module):
    """A network in three parts, so that features can be mixed between any two of them.

    A subclass computes `maps` and gives the `width` D of its features; `attach` adds heads.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.width = width

    def attach(self, classes: int, head: Head, others: Mapping[str, Head]) -> None:
        """Sets the head that answers and the others, by name, not yet initialised."""
        self.head = head_of(head, self.width, classes)
        made = {name: part_of(other, self.width, classes) for name, other in others.items()}
        self.others = nn.ModuleDict(made)

    @property
    def parts(self) -> int:
        """The number of experts, whose maps and features lie side by side."""
        return len(self.head.heads) if isinstance(self.head, ExpertHeads) else 1

    def maps(self, images: Tensor) -> Tensor:
        """Maps normalised images [N, C, H, W] to the last feature maps [N, D, h, w]."""
        raise NotImplementedError

    def pool(self, maps: Tensor) -> Tensor:
        """Averages feature maps [N, D, h, w] over all places -> features [N, D] float32."""
        return maps.mean((2, 3)).float()

    def answer(self, features: Tensor) -> Outputs:
        """Maps features [N, D] to the outputs of all heads, float32 at every precision.

        bfloat16 has 8 bits: the largest logits would often be equal, and the first of equals, a
        larger class where classes are sorted by size, would be the answer.
        """
        with torch.autocast(features.device.type, enabled=False):
            features = features.float()
            others = {name: part(features) for name, part in self.others.items()}
            if not isinstance(self.head, ExpertHeads):
                weight = getattr(self.head, "weight", None)
                return Outputs(features, self.head(features), others, weight)
            each = self.head.each(features)
            return Outputs(features, each.mean(1), {**others, "experts": each})

    def forward(self, images: Tensor) -> Outputs:  # [N, C, H, W], normalised
        return self.answer(self.pool(self.maps(images)))


class CosineLinear(nn.Linear):
    """The layer scale cos(w_c, f): normalised weights and features, no bias."""

    def __init__(self, width: int, outputs: int, scale: float) -> None:
        super().__init__(width, outputs, bias=False)
        self.scale = scale

    def forward(self, features: Tensor) -> Tensor:  # [N, D] -> [N, K]
        return self.scale * F.linear(F.normalize(features), F.normalize(self.weight))


class ScaledLinear(nn.Linear):
    """The layer s_c (w_c . f + b_c); w and b stay as they were learned before, unless `learned`."""

    def __init__(self, width: int, outputs: int, scale: float, *, learned: bool = False) -> None:
        super().__init__(width, outputs)
        self.scale = nn.Parameter(torch.full((outputs,), scale))
        self.learned = learned

    def forward(self, features: Tensor) -> Tensor:  # [N, D] -> [N, K]
        if self.learned:
            return self.scale * F.linear(features, self.weight, self.bias)
        return self.scale * F.linear(features, self.weight.detach(), self.bias.detach())


class ExpertHeads(nn.Module):
    """Heads of experts, each on its own part of the features; the answer is their mean."""

    def __init__(self, heads: Sequence[nn.Module]) -> None:
        super().__init__()
        self.heads = nn.ModuleList(heads)

    def each(self, features: Tensor) -> Tensor:
        """Maps the features of all experts, side by side [N, E D], to their logits [N, E, K]."""
        parts = features.chunk(len(self.heads), dim=1)
        return torch.stack([head(part) for head, part in zip(self.heads, parts, strict=True)], 1)

    def forward(self, features: Tensor) -> Tensor:  # [N, E D] -> [N, K]
        return self.each(features).mean(1)


def head_of(head: Head, width: int, classes: int) -> nn.Module:
    """Makes the module of a head on `width` features, not yet initialised."""
    if head.experts > 1:
        one = replace(head, experts=1)
        parts = [head_of(one, width // head.experts, classes) for _ in range(head.experts)]
        return ExpertHeads(parts)
    outputs = classes if head.width is None else head.width
    made: nn.Linear
    match head.form:
        case "linear":
            made = nn.Linear(width, outputs)
        case "cosine":
            made = CosineLinear(width, outputs, head.scale)
        case "scaled":
            made = ScaledLinear(width, outputs, head.scale)
        case "rescaled":
            made = ScaledLinear(width, outputs, head.scale, learned=True)
        case "mlp":
            raise ValueError(f"a projection has no classes to answer with: {head!r}")
        case _:
            made = memory_head(head.form, width, outputs)
    if head.detached:
        made.register_forward_pre_hook(_without_gradient)
    return made


def part_of(head: Head, width: int, classes: int) -> nn.Module:
    """Makes the module of a further head or projection, not yet initialised."""
    if head.hidden is None:
        return head_of(head, width, classes)
    outputs = classes if head.width is None else head.width
    made = mlp(width, head.hidden, outputs, normed=head.normed)
    if head.detached:
        made.register_forward_pre_hook(_without_gradient)
    return made


def _without_gradient(head: nn.Module, inputs: tuple[Tensor]) -> tuple[Tensor]:
    return (inputs[0].detach(),)
