"""A picture of the augmentation policies of classifiers: a row of views for each, as a PNG.

    python tools/pictures/policies.py digits_lt cifar10_lt --out tools/pictures/policies.png

The first row has one training image of each of the first classes, untouched. The others have the
same images as a run with `--augment` sees them. Data sets are those of the store, or the embedded
digits.
"""

from __future__ import annotations

import argparse
from io import BytesIO
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from stylegan_mix import datasets, output
from stylegan_mix.datasets import Dataset
from stylegan_mix.rng import stream
from trainer.engine.augmentation.policies import policy
from trainer.engine.mixing import Streams
from trainer.engine.transform import transform_of
from trainer.spec import RunSpec

POLICIES = ("plain", "cutout", "autoaugment+cutout", "randaugment", "simclr")
VIEWS = 2  # of each image by each policy, one row below the other
SIDE, NAMES, GAP = 64, 150, 24


def main() -> None:
    """Draws the sheets of the data sets side by side."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("datasets", nargs="+", help="digits_lt, or a prepared set")
    parser.add_argument("--images", type=int, default=8, help="of each data set (8)")
    parser.add_argument("--out", type=Path, required=True, help="the PNG to write")
    options = parser.parse_args()
    sheets = [sheet(datasets.load(name), options.images) for name in options.datasets]
    rows = 1 + VIEWS * len(POLICIES)
    width = NAMES + sum(one.width + GAP for one in sheets) - GAP
    canvas = Image.new("RGB", (width, max(one.height for one in sheets)), "white")
    pen, font = ImageDraw.Draw(canvas), ImageFont.load_default(size=13)
    told = ["images", *(name for name in POLICIES for _ in range(VIEWS))]
    for place, name in enumerate(told):
        if place == 0 or place % VIEWS == 1:
            pen.text((6, (place + 0.5) * canvas.height / rows), name, "black", font, anchor="lm")
    left = NAMES
    for one in sheets:
        canvas.paste(one, (left, 0))
        left += one.width + GAP
    file = BytesIO()
    canvas.save(file, "PNG")
    output.write_bytes(options.out, file.getvalue())


def sheet(data: Dataset, count: int) -> Image.Image:
    """Draws a data set's rows below each other, enlarged by a whole factor without smoothing."""
    images = first_of_classes(data, count)
    rows = [images, *views(data, images)]
    scale = max(SIDE // data.resolution, 1)
    cell = data.resolution * scale + 2
    canvas = Image.new("RGB", (count * cell, len(rows) * cell), "white")
    for place, row in enumerate(rows):
        for column, image in enumerate(row.numpy()):
            picture = Image.fromarray(image[:, :, 0] if image.shape[2] == 1 else image)
            size = (picture.width * scale, picture.height * scale)
            picture = picture.convert("RGB").resize(size, Image.Resampling.NEAREST)
            canvas.paste(picture, (column * cell, place * cell))
    return canvas


def first_of_classes(data: Dataset, count: int) -> Tensor:
    """Selects the first training image of each class, in turn: [count, H, W, C] uint8."""
    labels = data.train.labels
    rows = [np.flatnonzero(labels == label) for label in np.unique(labels)]
    chosen = [rows[at % len(rows)][at // len(rows)] for at in range(count)]
    return torch.from_numpy(np.ascontiguousarray(data.train.images[chosen]))


def streams(number: int) -> Streams:
    """Makes the random streams of a view."""
    return lambda name: stream(0, name, number)


def views(data: Dataset, images: Tensor) -> list[Tensor]:
    """Makes the views of the images by every policy, [N, H, W, C] uint8 each."""
    transform = transform_of(RunSpec(), data, torch.device("cpu"))
    mean, std = torch.tensor(data.mean), torch.tensor(data.std)
    made = []
    for name in POLICIES:
        own = policy(name)
        assert own is not None
        for number in range(VIEWS):
            planes = transform.view(images, own, "picture", streams(number))
            shown = (planes.permute(0, 2, 3, 1) * std + mean) * 255
            made.append(shown.round().clamp(0, 255).to(torch.uint8))
    return made


if __name__ == "__main__":
    main()
