"""Images of a data set as tiles of a picture: colour and whole factors."""

from __future__ import annotations

import numpy as np
from PIL import Image

__all__ = ["picture", "tile", "tile_side"]


def tile_side(side: int, *, least: int, most: int | None = None) -> int:
    """Computes the side of a tile for images of `side` pixels: enlarged by a factor to `least`.

    The factor is whole. `most`, if given, is the largest side.
    """
    enlarged = side * max(-(-least // side), 1)
    return enlarged if most is None else min(enlarged, most)


def tile(image: np.ndarray, side: int) -> Image.Image:
    """Turns uint8 [H,W,C] into a colour picture of `side` pixels square, enlarged unsmoothed."""
    shown = picture(image)
    how = Image.Resampling.LANCZOS if shown.height > side else Image.Resampling.NEAREST
    return shown.resize((side, side), how)


def picture(image: np.ndarray) -> Image.Image:
    """Turns uint8 [H,W,C] into colour: alpha on white; of two channels, the first as grey."""
    shown = Image.fromarray(image[:, :, 0] if image.shape[2] < 3 else image)
    if shown.mode == "RGBA":
        shown = Image.alpha_composite(Image.new("RGBA", shown.size, "white"), shown)
    return shown.convert("RGB")
