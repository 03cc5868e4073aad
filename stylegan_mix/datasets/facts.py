"""The facts and arrays of a prepared set, checked in one place before anything relies on them.

Anyone can write a manifest with a fitting hash. Letters as in `pool`.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import NoneType
from typing import Any

import numpy as np

from stylegan_mix.arrays import Container
from stylegan_mix.datasets.image_files import CHANNELS, FITS
from stylegan_mix.datasets.splits import PROFILES, check_draw
from stylegan_mix.errors import UsageFailure
from stylegan_mix.fields import LIST, NUMBER, OBJECT, TEXT, WHOLE, Types, check_each, check_types

__all__ = ["check_arrays", "check_facts"]

_FLAG: Types = (bool,)
_FACTS: dict[str, Types] = {
    "name": TEXT,
    "classes": LIST,
    "train_images": WHOLE,
    "train_listed": WHOLE,
    "test_images": WHOLE,
    "shape": LIST,
    "test_id": TEXT,
    "head": WHOLE,
    "flip": _FLAG,
    "default": LIST,
    "source": OBJECT,
    "notes": LIST,
    "request": TEXT,
}
# Array -> dtype, number of dimensions.
_ARRAYS = {
    "images": ("u1", 4),
    "labels": ("i8", 1),
    "position": ("i8", 1),
    "listed": ("i8", 1),
    "hashes": ("u1", 2),
    "sums": ("i8", 3),
    "test_images": ("u1", 4),
    "test_labels": ("i8", 1),
    "test_hashes": ("u1", 2),
}
# Of a set with a validation part of its own.
_VALIDATION = {"val_images": ("u1", 4), "val_labels": ("i8", 1), "val_hashes": ("u1", 2)}
_HASH_BYTES = 32
# Of each part of a streamed set, which holds a table of its files in the place of images.
_TABLE = {"names": ("u1", 1), "ends": ("i8", 1), "sizes": ("i8", 1)}


def check_facts(facts: Any) -> None:
    """Raises ValueError, with the reason, unless these are the facts of a prepared set."""
    check_types(facts, _FACTS)
    check_each(facts["classes"], TEXT, "classes")
    check_each(facts["shape"], WHOLE, "shape")
    check_each(facts["default"], (*TEXT, *NUMBER, NoneType), "default")
    check_types(facts["source"], {"kind": TEXT})
    if type(facts.get("skipped", {})) is not dict:
        raise ValueError("'skipped' must be an object")
    if facts.get("streamed"):
        _check_streamed(facts)
    if not facts["classes"] or len(set(facts["classes"])) != len(facts["classes"]):
        raise ValueError("a data set needs classes of different names")
    if len(facts["default"]) != 2 or facts["default"][0] not in PROFILES:
        raise ValueError("'default' must be a profile and an imbalance factor")
    try:
        profile, imbalance = facts["default"]
        check_draw(profile, imbalance, 0)
    except (UsageFailure, TypeError) as error:
        raise ValueError(f"'default': {error}") from error


def _check_streamed(facts: Mapping[str, Any]) -> None:
    """Raises ValueError unless these facts say where the files are, and the form of their views."""
    check_types(facts["source"], {"root": TEXT})
    check_types(facts, {"fit": TEXT})
    shape = facts["shape"]
    if len(shape) != 3 or shape[0] != shape[1] or shape[2] not in CHANNELS:
        raise ValueError(f"views have shape {shape}")
    if facts["fit"] not in FITS:
        raise ValueError(f"no fit {facts['fit']!r}")


def check_arrays(container: Container) -> None:
    """Raises ValueError unless the arrays fit one another and the facts."""
    entries, facts = container.manifest["arrays"], container.facts
    streamed = bool(facts.get("streamed"))
    known = {name: kind for name, kind in _ARRAYS.items() if not (streamed and kind[1] == 4)}
    for name, (dtype, dimensions) in known.items():
        _check_kind(entries, name, dtype, dimensions)
    shapes = {name: tuple(entries[name]["shape"]) for name in known}
    held, tested = shapes["labels"][0], shapes["test_labels"][0]
    pixels = tuple(facts["shape"])
    wanted: dict[str, tuple[int, ...]] = {
        "images": (held, *pixels),
        "position": (held,),
        "hashes": (held, _HASH_BYTES),
        "sums": (held, 2, pixels[-1]),
        "test_images": (tested, *pixels),
        "test_hashes": (tested, _HASH_BYTES),
    }
    if "val_labels" in entries:
        own = {name: kind for name, kind in _VALIDATION.items() if not (streamed and kind[1] == 4)}
        for name, (dtype, dimensions) in own.items():
            _check_kind(entries, name, dtype, dimensions)
        validated = entries["val_labels"]["shape"][0]
        shapes |= {name: tuple(entries[name]["shape"]) for name in own}
        wanted["val_images"] = (validated, *pixels)
        wanted["val_hashes"] = (validated, _HASH_BYTES)
    if streamed:
        wanted = {name: shape for name, shape in wanted.items() if len(shape) != 4}
        _check_tables(container)
    for name, shape in wanted.items():
        if shapes[name] != shape:
            raise ValueError(f"array '{name}' has shape {shapes[name]} instead of {shape}")
    if not (held and tested and min(pixels) > 0):
        raise ValueError("it has no training image, no test image, or no pixels")
    _check_values(container, len(facts["classes"]))


def _check_tables(container: Container) -> None:
    """Raises ValueError unless each part of a streamed set has a table of paths below its root."""
    entries = container.manifest["arrays"]
    for part in ("", "test_", *(["val_"] if "val_labels" in entries else [])):
        for name, (dtype, dimensions) in _TABLE.items():
            _check_kind(entries, part + name, dtype, dimensions)
        names, ends, sizes = (container[part + name] for name in _TABLE)
        count = entries[f"{part}labels"]["shape"][0]
        if len(ends) != count or len(sizes) != count:
            raise ValueError(f"a table names {len(ends):,} files of {count:,} images")
        inside = (np.diff(ends, prepend=0) > 0).all() and ends[-1] == len(names)
        if not inside or not (np.asarray(sizes) >= 0).all():
            raise ValueError("the paths of a table do not fit its ends, or a size is negative")
        paths = bytes(np.asarray(names))
        starts = [0, *(int(end) for end in ends[:-1])]
        for start, end in zip(starts, ends, strict=True):
            path = paths[start:end].decode("utf-8")
            if path.startswith("/") or ".." in path.split("/") or "\0" in path:
                raise ValueError(f"a path leads out of the root: {path[:200]!r}")


def _check_kind(entries: Mapping[str, Any], name: str, dtype: str, dimensions: int) -> None:
    if name not in entries:
        raise ValueError(f"array '{name}' is missing")
    if entries[name]["dtype"] != dtype or len(entries[name]["shape"]) != dimensions:
        raise ValueError(f"array '{name}' must be {dtype} with {dimensions} dimensions")


def _check_values(container: Container, classes: int) -> None:
    labels, position = (np.asarray(container[name]) for name in ("labels", "position"))
    listed = np.asarray(container["listed"])
    named = ("labels", "test_labels", "listed", "val_labels")
    for name in (one for one in named if one in container):
        values = container[name]
        if len(values) and not (values.min() >= 0 and values.max() < classes):
            raise ValueError(f"its {name} do not lie in 0 to {classes - 1}")
    inside = len(listed) and position[0] >= 0 and position[-1] < len(listed)
    if not inside or not (np.diff(position) > 0).all():
        raise ValueError("its positions do not rise within its official order")
    if not np.array_equal(listed[position], labels):
        raise ValueError("its labels do not fit its official order")
    if container.facts["head"] != int(np.bincount(listed).max()):
        raise ValueError("its 'head' is not the size of its largest class")
