"""The contact sheet: some images of every class in a row, the largest class first."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from PIL import Image, ImageDraw

from stylegan_mix.datasets.groups import telling
from stylegan_mix.datasets.records import Dataset
from stylegan_mix.drawing.colours import COLOURS, GROUP_COLOURS
from stylegan_mix.drawing.lettering import font, legible
from stylegan_mix.drawing.tiles import tile, tile_side
from stylegan_mix.rng import stream

__all__ = ["contact_sheet"]

MOST_CLASSES = 200
_ONE_COLUMN = 24
_SMALLEST, _LARGEST = 40, 80
_GAP, _MARGIN, _BAR = 4, 20, 72
_NAME, _SMALL, _BIG = 14, 12, 19
_INK, _QUIET, _EMPTY = (24, 24, 27), (113, 113, 122), (243, 243, 245)


@dataclass(frozen=True)
class _Measures:
    """The layout in pixels: a block is a column of class rows."""

    tile: int
    images: int
    rows: int
    blocks: int
    names: int
    top: int

    @property
    def row(self) -> int:
        return self.tile + _GAP

    @property
    def block(self) -> int:
        return self.names + _BAR + 12 + self.images * self.row + 2 * _MARGIN

    def corner(self, place: int) -> tuple[int, int]:
        """Computes the left upper corner of the row of the place-th class."""
        block, row = divmod(place, self.rows)
        return _MARGIN + block * self.block, self.top + row * self.row


def contact_sheet(dataset: Dataset, *, images: int | None = None) -> Image.Image:
    """Draws up to `images` training images of each class beside its name and its count.

    The bars show the counts on one scale, in the colour of the shot group. Images are chosen by a
    keyed draw, so the same data set gives the same sheet. Small images are enlarged by whole
    factors without smoothing. Of more than 200 classes, some evenly spaced by size are shown.
    """
    order = np.argsort(-dataset.counts, kind="stable")
    if len(order) > MOST_CLASSES:
        order = order[np.linspace(0, len(order) - 1, MOST_CLASSES).round().astype(int)]
    blocks = -(-len(order) // _ONE_COLUMN) if len(order) > _ONE_COLUMN else 1
    blocks = min(blocks, 4)
    images = images or (12 if blocks == 1 else 6)
    small, big = font(_SMALL), font(_BIG)
    names = legible([dataset.classes[c] for c in order])
    width = 10 + int(max(font(_NAME, name).getlength(name) for name in names))
    measures = _Measures(
        tile_side(dataset.resolution, least=_SMALLEST, most=_LARGEST),
        images,
        -(-len(order) // blocks),
        blocks,
        width,
        92,
    )
    title = f"{dataset.name}: {_draw_name(dataset)}"
    needed = 2 * _MARGIN + int(max(big.getlength(title), 560))
    canvas = Image.new(
        "RGB",
        (
            max(_MARGIN + measures.blocks * measures.block, needed),
            measures.top + measures.rows * measures.row + _MARGIN,
        ),
        "white",
    )
    pen = ImageDraw.Draw(canvas)
    pen.text((_MARGIN, 14), title, fill=_INK, font=big)
    _legend(pen, dataset, small)
    colours = _class_colours(dataset)
    for place, c in enumerate(order):
        x, y = measures.corner(place)
        middle = y + measures.tile // 2
        pen.text((x, middle), names[place], fill=_INK, font=font(_NAME, names[place]), anchor="lm")
        bar = max(round(_BAR * dataset.counts[c] / dataset.counts.max()), 2)
        x += measures.names
        pen.rectangle((x, middle + 6, x + bar - 1, middle + 10), fill=colours[int(c)])
        pen.text((x, middle + 2), f"{dataset.counts[c]:,}", fill=_QUIET, font=small, anchor="ls")
        _row(canvas, dataset, int(c), (x + _BAR + 12, y), measures)
    return canvas


def _ungrouped(dataset: Dataset) -> str:
    """Says why there are no shot groups."""
    if len(set(dataset.counts.tolist())) == 1:
        return "all classes have equally many training images"
    return f"one shot group holds all classes, by {dataset.groups.rule}"


def _class_colours(dataset: Dataset) -> dict[int, str]:
    """Chooses the colour of each class's bar: that of its shot group, or one for all."""
    groups = telling(dataset.counts, dataset.groups.members)
    if not groups:
        return dict.fromkeys(range(dataset.num_classes), COLOURS[0])
    return {c: GROUP_COLOURS[name] for name, members in groups.items() for c in members}


def _draw_name(dataset: Dataset) -> str:
    if dataset.imbalance is None:
        return "all images of the source"
    return f"imbalance {dataset.imbalance:g}, {dataset.profile}, seed {dataset.split_seed}"


def _legend(pen: ImageDraw.ImageDraw, dataset: Dataset, small: Any) -> None:
    total = int(dataset.counts.sum())
    pen.text(
        (_MARGIN, 42),
        f"{total:,} training images of {dataset.num_classes} classes, "
        f"{dataset.resolution} x {dataset.resolution} x {dataset.channels}, "
        f"split {dataset.split_id[:12]}",
        fill=_QUIET,
        font=small,
    )
    groups = telling(dataset.counts, dataset.groups.members)
    if not groups:
        pen.text((_MARGIN, 72), _ungrouped(dataset), fill=_QUIET, font=small, anchor="lm")
        return
    x = _MARGIN
    for name, members in groups.items():
        colour, text = GROUP_COLOURS[name], f"{name} ({len(members)})"
        pen.rectangle((x, 66, x + 11, 77), fill=colour)
        pen.text((x + 17, 72), text, fill=_INK, font=small, anchor="lm")
        x += 35 + int(small.getlength(text))
    pen.text((x, 72), f"by {dataset.groups.rule}", fill=_QUIET, font=small, anchor="lm")


def _row(
    canvas: Image.Image,
    dataset: Dataset,
    label: int,
    corner: tuple[int, int],
    measures: _Measures,
) -> None:
    rows = np.flatnonzero(dataset.train.labels == label)
    order = stream(0, "data.sheet", label).permutation(len(rows))[: measures.images]
    for place in range(measures.images):
        x = corner[0] + place * measures.row
        if place < len(order):
            image = dataset.train.images[rows[order[place]]]
            canvas.paste(tile(image, measures.tile), (x, corner[1]))
        else:
            box = (x, corner[1], x + measures.tile - 1, corner[1] + measures.tile - 1)
            ImageDraw.Draw(canvas).rectangle(box, fill=_EMPTY)
