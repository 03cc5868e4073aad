"""The latest projections of training images, to contrast others with. `P` numbers of a projection."""

from __future__ import annotations

import torch
from torch import Tensor, nn

__all__ = ["KeyQueue"]


class KeyQueue(nn.Module):
    """The last keys that were put in, with their classes.

    keys: [Q, P]; label: [Q] int64, -1 for places that are still empty; place: of the next key.
    """

    keys: Tensor
    label: Tensor
    place: Tensor

    def __init__(self, length: int, width: int) -> None:
        super().__init__()
        self.register_buffer("keys", torch.zeros(length, width))
        self.register_buffer("label", torch.full((length,), -1))
        self.register_buffer("place", torch.zeros((), dtype=torch.int64))

    def put(self, keys: Tensor, label: Tensor) -> None:
        """Puts keys [N, P] of the classes `label`, [N] int64, in the place of the oldest."""
        length = len(self.label)
        keys, label = keys[-length:], label[-length:]
        places = (self.place + torch.arange(len(label), device=label.device)) % length
        self.keys[places] = keys.to(self.keys)
        self.label[places] = label
        self.place.copy_((self.place + len(label)) % length)
