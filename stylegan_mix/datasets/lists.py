"""Lists of images that stand beside a source: an index, lines of `path label`, iNaturalist's JSON.

`O` training images that the source lists, `K` classes.
"""

from __future__ import annotations

import posixpath
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np

from stylegan_mix import store
from stylegan_mix.datasets.archives import Archive, bytewise
from stylegan_mix.datasets.image_files import is_image_name
from stylegan_mix.datasets.listing import (
    MOST_CLASSES,
    Entry,
    Listing,
    check_class_names,
    held_out,
    listing_of,
    rare_classes,
    some,
    twins,
)
from stylegan_mix.errors import InvalidInput, UsageFailure
from stylegan_mix.reading import is_count, lines, read_text, table_rows

__all__ = ["from_index", "from_lists", "listed_names"]

LARGEST_TEXT = 1 << 30
# iNaturalist's lists of two million images have some forty million values.
MOST_LISTED = 1 << 27

_INDEX_HEADER = ["split", "official_index", "class", "path"]


# An index


def from_index(archive: Archive, path: Path) -> Listing:
    """Reads a CSV of split,official_index,class,path in any order; an empty path is absent.

    The indices of each split must be 0 to n - 1, each once. Paths are names in the archive.
    """
    try:
        rows = table_rows(_text(path))
    except ValueError as error:
        raise InvalidInput(f"{path}: {error}") from error
    if not rows or rows[0] != _INDEX_HEADER:
        raise InvalidInput(f"{path}, row 1: expected {','.join(_INDEX_HEADER)}")
    classes = tuple(sorted({row[2] for row in rows[1:] if len(row) == 4}, key=bytewise))
    label_of = {name: label for label, name in enumerate(classes)}
    labels: dict[str, dict[int, int]] = {"train": {}, "test": {}}
    held: dict[str, list[Entry]] = {"train": [], "test": []}
    for number, row in enumerate(rows[1:], 2):
        if len(row) != 4 or row[0] not in labels or not is_count(row[1]):
            raise InvalidInput(f"{path}, row {number}: expected train|test,number,class,path")
        split, place, name = row[0], int(row[1]), row[3]
        if place in labels[split]:
            raise InvalidInput(f"{path}, row {number}: {split} image {place} stands in it twice")
        labels[split][place] = label_of[row[2]]
        if name:
            held[split].append(Entry(place, label_of[row[2]], name))
    for split, found in labels.items():
        if sorted(found) != list(range(len(found))):
            raise InvalidInput(f"{path}: the {split} indices are not 0 to {len(found) - 1}")
    notes = twins(classes)
    absent = len(labels["test"]) - len(held["test"])
    if absent:
        notes.append(f"{absent:,} of {len(labels['test']):,} test images of the index are absent")
    listed = np.array([labels["train"][place] for place in range(len(labels["train"]))], np.int64)
    _check_labels(path, listed, classes)
    check_class_names(path, classes)
    ordered = {part: sorted(found, key=lambda one: one.position) for part, found in held.items()}
    entries = _located(archive, path, [*ordered["train"], *ordered["test"]])
    cut = len(ordered["train"])
    if not cut or cut == len(entries):
        raise InvalidInput(f"{path} names no training image or no test image that is there")
    left = len([name for name in archive.names if is_image_name(name)]) - len(entries)
    if left:
        notes.append(f"{left:,} images of {archive.path.name} are not in the index")
    notes += rare_classes(classes, entries[:cut], entries[cut:])
    return Listing(classes, entries[:cut], entries[cut:], listed, True, tuple(notes))


# Lists


def from_lists(archive: Archive, train: Path, test: Path | None) -> Listing:
    """Reads files of `path label` lines, as of ImageNet-LT, or iNaturalist's JSON (`*.json`).

    Labels are 0 to K - 1, each with an image. A class takes its name from the JSON, or from the
    folder that holds all images of its label and no others, or else from its number. Without
    `test`, images are held out as in `folders`.
    """
    read = [_list_file(path, archive.path) for path in (train, test) if path is not None]
    pairs, names = read[0]
    tested = read[1][0] if len(read) > 1 else []
    if len(read) > 1 and read[1][1] != names:
        raise InvalidInput(f"{train} and {test} name different categories")
    count = 1 + max(label for label, _ in pairs)
    classes = names or _folder_names([*pairs, *tested], count)
    listed = np.array([label for label, _ in pairs], np.int64)
    _check_labels(train, listed, classes)
    unknown = [name for label, name in tested if label >= len(classes)]
    if unknown:
        raise InvalidInput(f"{test}: {some(unknown)}: of a class that {train} does not have")
    places = [Entry(place, label, name) for place, (label, name) in enumerate([*pairs, *tested])]
    entries = _located(archive, train, places)
    files = [(entry.label, entry.name) for entry in entries]
    notes = twins(classes)
    parts = {"train": files[: len(pairs)], "test": files[len(pairs) :]}
    if test is None:
        keys = {name: f"{classes[label]}/{name.rpartition('/')[2]}" for label, name in files}
        parts, changed = held_out(files, keys, classes)
        notes += [f"no test list: {len(parts['test']):,} images held out by SHA-256", *changed]
    return listing_of(archive, classes, parts, notes)


def listed_names(root: Path, train: Path, test: Path | None) -> list[str]:
    """Reads the names that lists have for files below `root`; see `from_lists`."""
    read = [_list_file(path, root)[0] for path in (train, test) if path is not None]
    return [name for pairs in read for _, name in pairs]


def _list_file(path: Path, root: Path) -> tuple[list[tuple[int, str]], tuple[str, ...]]:
    """Reads ((label, path below `root`) of each image in the file's order, class names or nothing).

    A path may be absolute if it leads to a file below `root`.
    """
    pairs, names = _inaturalist(path) if path.suffix.lower() == ".json" else (_pairs(path), ())
    return [(label, _below(name, root, path)) for label, name in pairs], names


def _below(name: str, root: Path, path: Path) -> str:
    """Brings a path of a list to the form of the names below `root`."""
    plain = posixpath.normpath(name)
    if plain.startswith("/"):
        plain = posixpath.relpath(plain, root.absolute().as_posix())
    if plain.split("/")[0] == "..":
        raise InvalidInput(
            f"{path}: '{name[:200]}' does not lie below {root}",
            remedy="name the folder around all images of the list: --from FOLDER",
        )
    return plain


def _pairs(path: Path) -> list[tuple[int, str]]:
    """Reads lines of `path label`; a path may have spaces in it."""
    pairs = []
    for number, line in enumerate(_lines(path), 1):
        if not line.strip():
            continue
        name, *rest = line.strip().rsplit(maxsplit=1)
        label = rest[0] if rest else ""
        if not is_count(label):
            raise InvalidInput(f"{path}, row {number}: expected 'path label', got {line[:80]!r}")
        if int(label) >= MOST_CLASSES:
            raise InvalidInput(f"{path}, row {number}: label {label}; at most {MOST_CLASSES - 1}")
        pairs.append((int(label), name))
    if not pairs:
        raise InvalidInput(f"{path} lists no image")
    return pairs


def _inaturalist(path: Path) -> tuple[list[tuple[int, str]], tuple[str, ...]]:
    """Reads "images": [{id, file_name}], "annotations": [{image_id, category_id}], "categories"."""
    data = store.read_json(path, limit=LARGEST_TEXT, most=MOST_LISTED)
    try:
        categories = sorted((one["id"], str(one["name"])) for one in data["categories"])
        files = {one["id"]: str(one["file_name"]) for one in data["images"]}
        labels = {one["image_id"]: one["category_id"] for one in data["annotations"]}
        index = {number: label for label, (number, _) in enumerate(categories)}
        if len(labels) != len(data["annotations"]):
            raise ValueError("an image has two annotations")
        if len(index) != len(categories) or len(index) > MOST_CLASSES:
            raise ValueError("a category number stands twice, or there are too many")
        pairs = [(index[labels[number]], name) for number, name in files.items()]
        names = tuple(name for _, name in categories)
        if len(set(names)) != len(names):
            names = tuple(f"{number} {name}" for number, name in categories)
    except (KeyError, TypeError, ValueError) as error:
        raise InvalidInput(
            f"{path} is not an iNaturalist list: {type(error).__name__} {error}",
            remedy='expected "images", "annotations" and "categories", one category an image',
        ) from error
    if not pairs:
        raise InvalidInput(f"{path} lists no image")
    return pairs, names


def _folder_names(pairs: Iterable[tuple[int, str]], count: int) -> tuple[str, ...]:
    folders: dict[int, set[str]] = defaultdict(set)
    for label, name in pairs:
        folders[label].add(name.split("/")[-2] if "/" in name else "")
    single = [next(iter(folders[label])) for label in range(count) if len(folders[label]) == 1]
    if len(single) == count and len(set(single)) == count and all(single):
        return tuple(single)
    return tuple(str(label) for label in range(count))


# Shared by index and lists


def _text(path: Path) -> str:
    try:
        return read_text(path, limit=LARGEST_TEXT)
    except OSError as error:
        raise UsageFailure(f"cannot read {path}: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise InvalidInput(f"{path} is not UTF-8 text: {error}") from error


def _lines(path: Path) -> list[str]:
    try:
        return lines(_text(path))
    except ValueError as error:
        raise InvalidInput(f"{path}: {error}") from error


def _check_labels(path: Path, listed: np.ndarray, classes: Sequence[str]) -> None:
    if len(classes) > MOST_CLASSES:
        raise InvalidInput(f"{path} names {len(classes):,} classes; at most {MOST_CLASSES:,}")
    counts = np.bincount(listed, minlength=len(classes))
    empty = [f"{c} ({classes[c]})" for c in np.flatnonzero(counts == 0).tolist()]
    if empty:
        raise InvalidInput(
            f"{path}: no training image of {len(empty)} of {len(classes)} classes: {some(empty)}",
            remedy="number the classes that there are from 0, without gaps",
        )


def _located(archive: Archive, path: Path, entries: Sequence[Entry]) -> tuple[Entry, ...]:
    """Finds the entries in the archive, which may put one folder before their names."""
    twice = [name for name, times in Counter(one.name for one in entries).items() if times > 1]
    if twice:
        raise InvalidInput(f"{path}: {len(twice)} files stand in it twice: {some(twice)}")
    there = set(archive.names)
    roots = ["", *sorted({f"{name.split('/')[0]}/" for name in archive.names if "/" in name})]
    root = next((one for one in roots if one + entries[0].name in there), "") if entries else ""
    missing = [one.name for one in entries if root + one.name not in there]
    if missing:
        raise InvalidInput(
            f"{path} names {len(missing):,} files that are not in {archive.path}: {some(missing)}"
        )
    return tuple(Entry(one.position, one.label, root + one.name) for one in entries)
