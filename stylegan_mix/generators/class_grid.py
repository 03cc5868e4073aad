"""Class grids: generated images of each class beside real ones."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw
from torch import Tensor

from stylegan_mix import store
from stylegan_mix.datasets import Dataset
from stylegan_mix.drawing.lettering import font, legible
from stylegan_mix.drawing.png import as_png
from stylegan_mix.drawing.tiles import tile, tile_side
from stylegan_mix.generators.diversity import class_samples

__all__ = ["class_grid", "save_grid", "shown_classes", "watched_classes"]

_LEGIBLE = 40
_TEXT = 13


def shown_classes(counts: Sequence[int] | np.ndarray, most: int = 20) -> list[int]:
    """Selects the classes of a grid, from head to tail: all, or `most` evenly spaced ones."""
    order = np.argsort(-np.asarray(counts), kind="stable")
    if len(order) > most:
        order = order[np.linspace(0, len(order) - 1, most).round().astype(int)]
    return order.tolist()


def watched_classes(counts: Sequence[int] | np.ndarray, most: int = 100) -> list[int]:
    """Selects the classes to be measured: all, or `most` from head to tail with the shown ones."""
    return sorted({*shown_classes(counts, most), *shown_classes(counts)})


def class_grid(samples: Mapping[int, Tensor], dataset: Dataset) -> Image.Image:
    """Draws a row per class: its name, its count, 5 real images, then the generated samples.

    `samples[c]` is uint8 [n,H,W,C], for every class of `shown_classes`. Small images are enlarged
    by a whole factor without smoothing.
    """
    labels = shown_classes(dataset.counts)
    side = tile_side(dataset.resolution, least=_LEGIBLE)
    names = legible([dataset.classes[c] for c in labels])
    images = [f"{dataset.counts[c]:,}" for c in labels]
    plain = font(_TEXT)
    beside = max(plain.getlength(text) for text in images)
    margin = int(22 + max(font(_TEXT, name).getlength(name) for name in names) + beside)
    cell, gap, top, reals = side + 2, 10, 24, 5
    width = margin + cell * (reals + len(samples[labels[0]])) + gap + 6
    canvas = Image.new("RGB", (width, top + cell * len(labels) + 4), "white")
    draw = ImageDraw.Draw(canvas)
    draw.text((margin, 4), "real", fill="black", font=plain)
    draw.text((margin + reals * cell + gap, 4), "generated", fill="black", font=plain)
    for row, label in enumerate(labels):
        y = top + row * cell
        middle = y + side // 2
        draw.text((6, middle), names[row], fill="black", font=font(_TEXT, names[row]), anchor="lm")
        draw.text((margin - 6, middle), images[row], fill="black", font=plain, anchor="rm")
        shown = class_samples(dataset.train, label, reals)
        for column, image in enumerate(shown):
            canvas.paste(tile(image, side), (margin + column * cell, y))
        for column, image in enumerate(samples[label].numpy()):
            x = margin + reals * cell + gap + column * cell
            canvas.paste(tile(image, side), (x, y))
    return canvas


def save_grid(samples: Mapping[int, Tensor], dataset: Dataset, path: Path) -> None:
    """Writes `class_grid` to a file, and makes its folder if it is missing."""
    store.write_bytes(path, as_png(class_grid(samples, dataset)))
