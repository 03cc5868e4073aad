"""PNG files as bytes. A file that is written from them is whole, or is not there."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from PIL.Image import Image

__all__ = ["as_png"]


def as_png(image: Image, *, optimize: bool = False) -> bytes:
    """Encodes an image; `optimize` takes longer for a smaller file."""
    buffer = io.BytesIO()
    image.save(buffer, format="PNG", optimize=optimize)
    return buffer.getvalue()
