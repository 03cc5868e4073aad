"""A picture of augmentations on real images: a row for each policy and strength, as a PNG.

    python tools/pictures/augmentations.py digits_lt cifar10_lt --out augmentations.png

The first row has one image of each of the first classes, untouched. The others have the same images
as the discriminator sees them. Data sets are those of the store, or the embedded digits.
"""

from __future__ import annotations

import argparse
from io import BytesIO
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from stylegan_mix import datasets, output, rng
from stylegan_mix.networks import to_uint8
from stylegan_mix.training.augmentation.ada import ADA
from stylegan_mix.training.augmentation.policies import augmentation_named

STRENGTHS = (0.2, 0.5, 0.8, 1.0)
POLICIES = (*(f"ada:{name}" for name in ADA), "ada", "color,translation,cutout")
SIDE, NAMES = 64, 230


def real_images(name: str, count: int) -> Tensor:
    """Selects the first training image of each class, in turn: [count,C,H,W] in [-1, 1]."""
    part = datasets.load(name).train
    rows = [np.flatnonzero(part.labels == label) for label in np.unique(part.labels)]
    chosen = [rows[at % len(rows)][at // len(rows)] for at in range(count)]
    images = torch.from_numpy(np.ascontiguousarray(part.images[chosen]))
    return images.permute(0, 3, 1, 2).float() / 127.5 - 1


def rows_of(images: Tensor) -> list[tuple[str, Tensor]]:
    """Augments by every policy and strength: (its name, the images after it)."""
    rows = [("real", images)]
    for policy in POLICIES:
        augmentation = augmentation_named(policy)
        for strength in STRENGTHS if augmentation.uses_strength else (1.0,):
            draws = rng.Draws(rng.torch_generator(0, "picture.augmentations"))
            shown = augmentation(images, torch.full((len(images),), strength), draws)
            told = f"{policy}   p = {strength:g}" if augmentation.uses_strength else policy
            rows.append((told, shown))
    return rows


def sheet(images: Tensor) -> Image.Image:
    """Draws the rows below each other, enlarged by a whole factor without smoothing."""
    rows = rows_of(images)
    scale = max(SIDE // images.shape[2], 1)
    cell_x, cell_y = images.shape[3] * scale + 2, images.shape[2] * scale + 2
    canvas = Image.new("RGB", (NAMES + len(images) * cell_x, len(rows) * cell_y), "white")
    pen, font = ImageDraw.Draw(canvas), ImageFont.load_default(size=13)
    for place, (told, shown) in enumerate(rows):
        pen.text((6, place * cell_y + cell_y // 2), told, fill="black", font=font, anchor="lm")
        for column, image in enumerate(to_uint8(shown).numpy()):
            picture = Image.fromarray(image[:, :, 0] if image.shape[2] == 1 else image)
            size = (picture.width * scale, picture.height * scale)
            picture = picture.convert("RGB").resize(size, Image.Resampling.NEAREST)
            canvas.paste(picture, (NAMES + column * cell_x, place * cell_y))
    return canvas


def main() -> None:
    """Draws the sheets of the data sets side by side."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("datasets", nargs="+", help="digits_lt, or a prepared set")
    parser.add_argument("--images", type=int, default=12, help="of each data set (12)")
    parser.add_argument("--out", type=Path, required=True, help="the PNG to write")
    options = parser.parse_args()
    sheets = [sheet(real_images(name, options.images)) for name in options.datasets]
    height = max(one.height for one in sheets)
    canvas = Image.new("RGB", (sum(one.width for one in sheets), height), "white")
    left = 0
    for one in sheets:
        canvas.paste(one, (left, 0))
        left += one.width
    file = BytesIO()
    canvas.save(file, "PNG")
    output.write_bytes(options.out, file.getvalue())


if __name__ == "__main__":
    main()
