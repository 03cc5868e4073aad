"""A folder of JPEGs of odd sizes, with the lists that name them, as ImageNet-LT has them."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
from PIL import Image

COUNTS = {"train": (9, 6, 3), "val": (2, 2, 2), "test": (4, 3, 2)}
CLASSES = ("ant", "bee", "cow")


def photograph(number: int, width: int, height: int, kind: str = "JPEG") -> bytes:
    """A smooth image, the same for the same number; its class shows in its mean colour."""
    draws = np.random.default_rng(number)
    coarse = draws.integers(0, 256, (3, 4, 3), np.uint8)
    file = io.BytesIO()
    image = Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC)
    image.save(file, kind, quality=90)
    return file.getvalue()


def photographs(root: Path) -> Path:
    """Writes `root`/PART/CLASS/NUMBER.jpg; no two have the same size."""
    number = 0
    for part, counts in COUNTS.items():
        for name, count in zip(CLASSES, counts, strict=True):
            folder = root / part / name
            folder.mkdir(parents=True)
            for _ in range(count):
                number += 1
                content = photograph(number, 20 + number, 61 - number)
                (folder / f"{number:03}.jpg").write_bytes(content)
    return root


def lists(root: Path) -> dict[str, Path]:
    """Writes a list of `path label` lines for each part, beside `root`."""
    found = {}
    for part in COUNTS:
        lines = [
            f"{path.relative_to(root).as_posix()} {label}\n"
            for label, name in enumerate(CLASSES)
            for path in sorted((root / part / name).iterdir())
        ]
        found[part] = root.parent / f"{root.name}_{part}.txt"
        found[part].write_text("".join(lines), encoding="utf-8")
    return found
