"""A picture of the page: its file, its title and caption, and its bytes."""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from PIL import Image

from stylegan_mix.drawing.plots import png
from stylegan_mix.drawing.png import as_png

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["Picture", "of_figure", "of_image"]


@dataclass(frozen=True, eq=False)
class Picture:
    """A PNG beside the page: `file`, its bytes `data`, its `size` (width, height).

    `title` and `caption` are plain text; `table` are rows of texts below it, the first the head.
    """

    file: str
    title: str
    caption: str
    data: bytes
    size: tuple[int, int]
    table: Sequence[Sequence[str]] = ()


def of_image(
    file: str, title: str, caption: str, image: Image.Image, table: Sequence[Sequence[str]] = ()
) -> Picture:
    """Makes a picture of pixels."""
    return Picture(file, title, caption, as_png(image, optimize=True), image.size, table)


def of_figure(file: str, title: str, caption: str, figure: Figure) -> Picture:
    """Makes a picture of a plot."""
    data = png(figure)
    with Image.open(io.BytesIO(data)) as opened:
        return Picture(file, title, caption, data, opened.size)
