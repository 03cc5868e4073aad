"""Folders of small images for tests, written as people and programs arrange them."""

from __future__ import annotations

import io
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image


def picture(number: int, side: int = 8, channels: int = 3, kind: str = "PNG") -> bytes:
    """An image of noise, the same for the same number."""
    shape = (side, side, channels) if channels > 1 else (side, side)
    pixels = np.random.default_rng(number).integers(0, 256, shape, np.uint8)
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, kind)
    return file.getvalue()


def folder(
    path: Path, counts: Mapping[str, int], texts: Mapping[str, str] | None = None, **options: Any
) -> Path:
    """`counts` maps folders such as "train/cat" to numbers of images, numbered through from 001.

    `texts` are further files.
    """
    path.mkdir(parents=True, exist_ok=True)
    number = 0
    for name, count in counts.items():
        (path / name).mkdir(parents=True, exist_ok=True)
        for _ in range(count):
            number += 1
            (path / name / f"{number:03}.png").write_bytes(picture(number, **options))
    for name, text in (texts or {}).items():
        (path / name).parent.mkdir(parents=True, exist_ok=True)
        (path / name).write_text(text, encoding="utf-8")
    return path


def pets(*parts: str) -> dict[str, int]:
    """Folders of cats and dogs in each part: 4 and 3 in the first, 2 and 1 in the others."""
    return {
        f"{part}/{name}": count
        for place, part in enumerate(parts)
        for name, count in (("cat", 2 if place else 4), ("dog", 1 if place else 3))
    }
