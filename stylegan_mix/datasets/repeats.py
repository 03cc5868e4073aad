"""Notes on images that stand in a data set more than once, pixel for pixel.

`N` images.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from stylegan_mix.datasets.listing import counted

__all__ = ["repeat_notes"]

SHOWN = 3

Hashed = tuple[np.ndarray, np.ndarray]
"""Image hashes uint8 [N,32] and labels int64 [N] of a part."""


def repeat_notes(
    parts: Mapping[str, Hashed], names: Mapping[str, Sequence[str]], classes: Sequence[str]
) -> list[str]:
    """Composes notes on images under two labels, and on validation images of other parts.

    `names` are the files of each part, as far as there are files.
    """
    hashes = np.concatenate([found for found, _ in parts.values()])
    labels = np.concatenate([found for _, found in parts.values()])
    keys = np.ascontiguousarray(hashes).view("V32")[:, 0]
    files = [name for part in parts for name in names.get(part, ())]
    notes = []
    _, group = np.unique(keys, return_inverse=True)
    order = np.lexsort((labels, group))
    starts = np.flatnonzero(np.diff(group[order], prepend=-1))
    several = [rows for rows in np.split(order, starts[1:]) if len(set(labels[rows])) > 1]
    if several:
        shown = "; ".join(_shown(rows, labels, files, classes) for rows in several[:SHOWN])
        more = f" and {len(several) - SHOWN:,} more" if len(several) > SHOWN else ""
        notes.append(
            f"the same pixels under two labels: {counted(len(several), 'image')}, {shown}{more}"
        )
    if "val" in parts:
        held = np.ascontiguousarray(parts["val"][0]).view("V32")[:, 0]
        for part, word in (("train", "training"), ("test", "test")):
            found = np.ascontiguousarray(parts[part][0]).view("V32")[:, 0]
            times = int(np.count_nonzero(np.isin(held, found)))
            if times:
                notes.append(f"also in the {word} part: {counted(times, 'validation image')}")
    return notes


def _shown(
    rows: np.ndarray, labels: np.ndarray, files: Sequence[str], classes: Sequence[str]
) -> str:
    """Names an image by its files, or by its classes where it has none."""
    if files:
        return " = ".join(files[row] for row in rows[:SHOWN])
    return " = ".join(sorted({classes[label] for label in labels[rows]}))
