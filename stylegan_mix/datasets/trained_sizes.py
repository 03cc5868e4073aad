"""The sizes of images at which generators can be trained, and a proposal for other sizes."""

from __future__ import annotations

import math

__all__ = ["SIZES", "TRAINED", "nearest_size", "size_note"]

SIZES = (8, 16, 32, 64, 128, 256)
"""Pixels of a side: those of the preset "auto"."""

TRAINED = f"generators are trained at {', '.join(map(str, SIZES[:-1]))} or {SIZES[-1]} pixels"


def nearest_size(side: float) -> int:
    """Chooses the size that is nearest to a side in pixels, as a ratio."""
    return min(SIZES, key=lambda size: abs(math.log2(size / side)))


def size_note(side: int) -> str | None:
    """Tells how to make images trainable that have another side; None if they are."""
    if side in SIZES:
        return None
    return f"{TRAINED}, and these images have {side}: for one, add --size {nearest_size(side)}"
