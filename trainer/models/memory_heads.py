"""Heads that answer by a linear layer and by a memory of class means. `N` rows, `K` classes.

z are the logits of the linear layer, v the cosines of features [N, D] and class means [K, D]. Both
were learned before, and stay as they are. v' are the cosines in the range of z
(`losses.memory.matched`).
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from trainer.losses.memory import matched, nearness
from trainer.models.fusion import (
    attended,
    by_factor,
    surer,
    weighted_logits,
    weighted_probabilities,
)
from trainer.models.heads import HeadForm

__all__ = ["Assigned", "Attending", "Fused", "MemoryHead", "Surer", "Weighed", "memory_head"]

# Of the hidden layer of `Assigned`, and of the largest logits that it reads.
_HIDDEN, _LARGEST = 50, 10


class MemoryHead(nn.Linear):
    """The base of these heads: the frozen linear layer, and `memory`, the class means [K, D]."""

    memory: Tensor

    def __init__(self, width: int, outputs: int) -> None:
        super().__init__(width, outputs)
        self.register_buffer("memory", torch.zeros(outputs, width))

    def forward(self, features: Tensor) -> Tensor:  # [N, D] -> [N, K]
        plain = F.linear(features, self.weight.detach(), self.bias.detach())
        return self.fused(features, plain, nearness(features, self.memory))

    def fused(self, features: Tensor, plain: Tensor, near: Tensor) -> Tensor:
        """Makes the logits of f [N, D], z [N, K] and v [N, K]."""
        raise NotImplementedError


class Fused(MemoryHead):
    """A sum with the share w for the linear layer, and 1 - w for the memory.

    form: "fused-logits" of z and v', "fused-probabilities" of softmax(z) and softmax(v'), or
    "fused-scaled" of z and e v, e = max z / max v.
    """

    share: Tensor

    def __init__(self, width: int, outputs: int, form: HeadForm) -> None:
        super().__init__(width, outputs)
        self.form = form
        self.register_buffer("share", torch.ones(()))

    def fused(self, features: Tensor, plain: Tensor, near: Tensor) -> Tensor:
        if self.form == "fused-scaled":
            return weighted_logits(plain, by_factor(near, plain), self.share)
        fuse = weighted_logits if self.form == "fused-logits" else weighted_probabilities
        return fuse(plain, matched(near, plain), self.share)


class Surer(MemoryHead):
    """The surer of softmax(z) and softmax(v'), class by class."""

    def fused(self, features: Tensor, plain: Tensor, near: Tensor) -> Tensor:
        return surer(plain, matched(near, plain))


class Attending(MemoryHead):
    """The logits z, each times the attention that the memory gives its class."""

    def fused(self, features: Tensor, plain: Tensor, near: Tensor) -> Tensor:
        return attended(plain, features, self.memory)


class Weighed(MemoryHead):
    """The sum a z + b + c v' + d, of which a, b, c, d [K] are learned, from 1, 0, 1, 0 on."""

    def __init__(self, width: int, outputs: int) -> None:
        super().__init__(width, outputs)
        self.plain_scale = nn.Parameter(torch.ones(outputs))
        self.plain_shift = nn.Parameter(torch.zeros(outputs))
        self.memory_scale = nn.Parameter(torch.ones(outputs))
        self.memory_shift = nn.Parameter(torch.zeros(outputs))

    def fused(self, features: Tensor, plain: Tensor, near: Tensor) -> Tensor:
        other = matched(near, plain)
        own = self.plain_scale * plain + self.plain_shift
        return own + self.memory_scale * other + self.memory_shift


class Assigned(MemoryHead):
    """The logits v' of rows for which the memory is trusted, and z of the others.

    A row is trusted to the memory if its `trust` s is positive: s = w . [the largest of z in
    falling order; LeakyReLU(W f / |f|)] + b, with 50 hidden numbers and slope 0.1.
    """

    def __init__(self, width: int, outputs: int) -> None:
        super().__init__(width, outputs)
        self.largest = min(outputs, _LARGEST)
        self.hidden = nn.Linear(width, _HIDDEN, bias=False)
        self.out = nn.Linear(self.largest + _HIDDEN, 1)

    def trust(self, features: Tensor, plain: Tensor) -> Tensor:
        """Computes s of f [N, D] and z [N, K], [N]: the log odds that only the memory is right."""
        hidden = F.leaky_relu(self.hidden(F.normalize(features, dim=1)), 0.1)
        seen = torch.cat([plain.topk(self.largest, dim=1).values, hidden], dim=1)
        trusted: Tensor = self.out(seen)[:, 0]
        return trusted

    def fused(self, features: Tensor, plain: Tensor, near: Tensor) -> Tensor:
        trusted = self.trust(features, plain) > 0
        return torch.where(trusted[:, None], matched(near, plain), plain)


def memory_head(form: HeadForm, width: int, outputs: int) -> MemoryHead:
    """Makes the module of a form of `heads.MEMORY_FORMS`, without a memory yet."""
    match form:
        case "fused-max":
            return Surer(width, outputs)
        case "fused-attention":
            return Attending(width, outputs)
        case "weighed":
            return Weighed(width, outputs)
        case "assigned":
            return Assigned(width, outputs)
    return Fused(width, outputs, form)
