"""The operations of augmentation policies by name, and their values at a strength; no torch.

An operation and its value are drawn for each row of a batch, one slot after another. `N` rows.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

__all__ = ["NAMES", "OPERATIONS", "Scale", "Slot", "values"]


@dataclass(frozen=True)
class Scale:
    """The values of an operation: `neutral` at strength 0, `neutral` + or - `reach` at strength 1.

    signed: True if the sign is drawn; else it is +.
    """

    neutral: float = 0.0
    reach: float = 0.0
    signed: bool = False


_TOWARDS_ANOTHER = Scale(1.0, 0.9, signed=True)

OPERATIONS: dict[str, Scale] = {
    "identity": Scale(),
    "shear-x": Scale(reach=0.3, signed=True),  # pixels across per pixel down
    "shear-y": Scale(reach=0.3, signed=True),
    "translate-x": Scale(reach=150 / 331, signed=True),  # as a share of the side
    "translate-y": Scale(reach=150 / 331, signed=True),
    "rotate": Scale(reach=30.0, signed=True),  # in degrees
    "autocontrast": Scale(),
    "invert": Scale(),
    "equalise": Scale(),
    "solarise": Scale(256.0, -256.0),  # the grey value from which on it inverts
    "posterise": Scale(8.0, -4.0),  # the bits that it keeps
    "contrast": _TOWARDS_ANOTHER,
    "colour": _TOWARDS_ANOTHER,
    "brightness": _TOWARDS_ANOTHER,
    "sharpness": _TOWARDS_ANOTHER,
}
"""The ranges of AutoAugment (Cubuk et al. 2019, Table 6), at their ends at strength 1.

In the paper, a magnitude walks from one end of a range to the other. Here, as in most code of the
field, strength grows from no change on, and the sign is drawn. Translations are 150 of 331 pixels.
"""

NAMES = tuple(OPERATIONS)
"""The operations in the order of their numbers in a `Slot`."""

_SCALES = np.array([[one.neutral, one.reach, one.signed] for one in OPERATIONS.values()])


class Slot(NamedTuple):
    """One operation for each row: operation [N] int64, its number; value [N] float32."""

    operation: np.ndarray
    value: np.ndarray


def values(operation: np.ndarray, strength: np.ndarray, signs: np.ndarray) -> np.ndarray:
    """Computes the values of operations at strengths in [0, 1], float32; signs are -1 or 1."""
    neutral, reach, signed = np.moveaxis(_SCALES[operation], -1, 0)
    return (neutral + np.where(signed, signs, 1) * reach * strength).astype(np.float32)
