"""The images of a source with their classes and parts, and the share held out for testing.

`O` training images that the source lists, `K` classes.
"""

from __future__ import annotations

import hashlib
import re
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from stylegan_mix.datasets.archives import Archive, bytewise
from stylegan_mix.errors import InvalidInput

__all__ = [
    "HELD_OUT_SHARE",
    "MOST_CLASSES",
    "Entry",
    "Labelled",
    "Listing",
    "check_class_names",
    "counted",
    "held_out",
    "listing_of",
    "ordered",
    "rare_classes",
    "some",
    "twins",
]

MOST_CLASSES = 1 << 16
HELD_OUT_SHARE = 0.2
FEWEST_HELD_OUT = 2
LONGEST_NAME = 1000

_CONTROL = re.compile(r"[\x00-\x1f]")

Labelled = list[tuple[int, str]]
"""(class index, file name) of each image of a part."""


@dataclass(frozen=True)
class Entry:
    """One image: its place in the official order of its part, its class, its file."""

    position: int
    label: int
    name: str


@dataclass(frozen=True)
class Listing:
    """The images of a source. `train` and `test` are those it holds, by ascending position.

    `listed` int64 [O] is the label of every training position. If `official`, positions come from
    the source and unreadable images count as absent; else images are numbered in their order.
    `val` is a validation part of the source's own. `notes` are messages for the user, `label_files`
    the files of the source that say classes.
    """

    classes: tuple[str, ...]
    train: tuple[Entry, ...]
    test: tuple[Entry, ...]
    listed: np.ndarray
    official: bool
    notes: tuple[str, ...]
    val: tuple[Entry, ...] = ()
    label_files: tuple[str, ...] = ()


def listing_of(
    archive: Archive, classes: Sequence[str], parts: Mapping[str, Labelled], notes: Iterable[str]
) -> Listing:
    """Numbers the images of the parts "train", "test" and perhaps "val" in their order.

    Raises `InvalidInput` (exit code 3) without a test image, and for impossible names of classes.
    """
    check_class_names(archive.path, classes)
    entries = {
        part: tuple(Entry(place, label, name) for place, (label, name) in enumerate(pairs))
        for part, pairs in parts.items()
    }
    if not entries["test"]:
        raise InvalidInput(
            f"{archive.path}: there is no test image, and none could be held out",
            remedy="a class needs two images at least, or a test part of its own",
        )
    listed = np.array([entry.label for entry in entries["train"]], np.int64)
    said = (*notes, *rare_classes(classes, entries["train"], entries["test"]))
    val = entries.get("val", ())
    return Listing(tuple(classes), entries["train"], entries["test"], listed, False, said, val)


def check_class_names(path: Path, classes: Iterable[str]) -> None:
    """Raises `InvalidInput` (exit code 3) for names that are no text of one line, or too long."""
    for name in classes:
        spelled = name.encode("utf-8", "replace").decode("utf-8") == name
        if not spelled or not name or len(name) > LONGEST_NAME or _CONTROL.search(name):
            raise InvalidInput(
                f"{path}: a class cannot be named {name[:80]!a}: expected 1 to "
                f"{LONGEST_NAME:,} letters of Unicode without control characters",
                remedy="rename the class",
            )


def ordered(pairs: Iterable[tuple[int, str]]) -> Labelled:
    """Sorts the images of a part by class, and within a class by the bytes of their names."""
    return sorted(pairs, key=lambda pair: (pair[0], bytewise(pair[1])))


def held_out(
    files: Labelled, keys: Mapping[str, str], classes: Sequence[str]
) -> tuple[dict[str, Labelled], list[str]]:
    """Orders the files of each class by SHA-256 of `keys`; the first ones are the test part.

    These are max(2, round(0.2 n)) of n, but at least one stays for training. Returns the parts,
    and notes where the share of a class is another.
    """
    grouped: list[list[str]] = [[] for _ in classes]
    for label, name in files:
        grouped[label].append(name)
    tested = set()
    changed = []
    for label, names in enumerate(grouped):
        count = min(max(FEWEST_HELD_OUT, round(HELD_OUT_SHARE * len(names))), len(names) - 1)
        names.sort(key=lambda name: hashlib.sha256(bytewise(keys[name])).digest())
        tested.update(names[: max(count, 0)])
        if count > 0 and abs(count - HELD_OUT_SHARE * len(names)) > 0.5:
            changed.append(f"{classes[label]} {count} of {len(names)}")
    parts = {
        "train": [pair for pair in files if pair[1] not in tested],
        "test": [pair for pair in files if pair[1] in tested],
    }
    notes = []
    if changed:
        notes.append(
            f"rounding held out another share than {HELD_OUT_SHARE:.0%} in "
            f"{counted(len(changed), 'small class', 'small classes')}: {some(changed)}"
        )
    return parts, notes


def rare_classes(
    classes: Sequence[str], train: Sequence[Entry], test: Sequence[Entry]
) -> list[str]:
    """Notes the classes of one image, and those without test images."""
    counts = Counter(entry.label for entry in (*train, *test))
    tested = {entry.label for entry in test}
    single = [name for label, name in enumerate(classes) if counts[label] == 1]
    untested = [name for label, name in enumerate(classes) if label not in tested]
    notes = []
    if single:
        have = "has" if len(single) == 1 else "have"
        notes.append(f"{counted(len(single), 'class', 'classes')} {have} one image: {some(single)}")
    if untested:
        notes.append(
            f"without test images, and so without an accuracy: "
            f"{counted(len(untested), 'class', 'classes')}, {some(untested)}"
        )
    return notes


def twins(classes: Sequence[str]) -> list[str]:
    """Warns of names that some systems cannot tell apart."""
    groups = defaultdict(list)
    for name in classes:
        groups[unicodedata.normalize("NFC", name).casefold()].append(name)
    same = [" / ".join(map(ascii, group)) for group in groups.values() if len(group) > 1]
    return [f"class names that differ only by case or Unicode form: {some(same)}"] if same else []


def counted(number: int, what: str, plural: str = "") -> str:
    """Spells a number of things: "1 image", "1,000 images"."""
    return f"{number:,} {what if number == 1 else plural or f'{what}s'}"


def some(names: Sequence[str], most: int = 10) -> str:
    """Joins the first names of a long list, and counts the others."""
    more = f" and {len(names) - most:,} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more
