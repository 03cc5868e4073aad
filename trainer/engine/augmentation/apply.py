"""Drawn operations applied to a batch: each is computed for the rows that have it, at once.

Rows are chosen on the host, where they are drawn, so nothing is read back from the device.
`N` rows, `H W` pixels, `C` channels.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from trainer.engine.augmentation import geometry
from trainer.engine.augmentation.colours import EFFECTS
from trainer.engine.augmentation.operations import NAMES, Slot

__all__ = ["augmented"]

# Of colour with alpha: all but alpha.
_COLOURS = 3


def augmented(images: Tensor, slots: Sequence[Slot], fill: Tensor) -> Tensor:
    """Applies the operations of each row, slot after slot; returns new images.

    images: [N, H, W, C] uint8; fill: [C] uint8, the colour beyond the border of a moved image. Of
    four channels the last is alpha: it moves with the image, and its values do not change.
    """
    shown = images.clone(memory_format=torch.contiguous_format)
    channels = images.shape[3]
    coloured = shown[..., :_COLOURS] if channels == _COLOURS + 1 else shown
    for slot in slots:
        _move(shown, slot, fill)
        for name, effect in EFFECTS.items():
            rows = np.flatnonzero(slot.operation == NAMES.index(name))
            if len(rows):
                place, value = _put(rows, images), _put(slot.value[rows], images)
                coloured.index_copy_(0, place, effect(coloured[place], value))
    return shown


def _move(images: Tensor, slot: Slot, fill: Tensor) -> None:
    """Shears, shifts and turns the rows that have such an operation, in place."""
    rows = np.flatnonzero(geometry.moves(slot.operation))
    if len(rows):
        own = Slot(slot.operation[rows], slot.value[rows])
        matrix = geometry.inverse(own, *images.shape[1:3])
        place = _put(rows, images)
        images.index_copy_(0, place, geometry.warped(images[place], _put(matrix, images), fill))


def _put(array: np.ndarray, images: Tensor) -> Tensor:
    return torch.from_numpy(array).to(images.device)
