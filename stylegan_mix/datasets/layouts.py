"""Layouts of sources, which assign files to images: class folders, an index, lists, iNaturalist.

`O` training images that the source lists, `K` classes.
"""

from __future__ import annotations

import hashlib
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from stylegan_mix import store
from stylegan_mix.datasets.archives import Archive, bytewise
from stylegan_mix.datasets.image_files import SUFFIXES
from stylegan_mix.errors import InvalidInput, UsageFailure
from stylegan_mix.reading import MOST_DIGITS, read_text, table_rows

__all__ = ["Entry", "Listing", "from_index", "from_lists", "image_folder"]

MOST_CLASSES = 1 << 16
LARGEST_TEXT = 1 << 30
HELD_OUT_SHARE = 0.2

_TRAIN = ("train", "training")
_TEST = ("test", "testing", "val", "valid", "validation")
_INDEX_HEADER = ["split", "official_index", "class", "path"]


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
    `notes` are messages for the user.
    """

    classes: tuple[str, ...]
    train: tuple[Entry, ...]
    test: tuple[Entry, ...]
    listed: np.ndarray
    official: bool
    notes: tuple[str, ...]


# Folders


def image_folder(archive: Archive) -> Listing:
    """Lists `train/<class>/...` and `test/<class>/...`, or `<class>/...` with a test part held out.

    Classes and, within them, files are in bytewise order; folders below a class belong to it. In a
    flat layout or without a test folder, each class gives a fifth of its images, at least two, to
    the test part (`_hold_out`).
    """
    names = [name for name in archive.names if _is_image(name)]
    if not names:
        raise InvalidInput(
            f"{archive.path} holds no image files ({', '.join(SUFFIXES)})",
            remedy="expected train/<class>/<file> and test/<class>/<file>, or <class>/<file>",
        )
    root = _root(names)
    parts = _parts(names, root)
    classes = _classes(archive, parts, root)
    index = {name: label for label, name in enumerate(classes)}
    notes = _twins(classes)
    left = len(archive.names) - sum(map(len, parts.values()))
    if left:
        notes.append(f"{left:,} other files of {archive.path.name} were left aside")
    files: dict[str, list[tuple[int, str]]] = {}
    for part, found in parts.items():
        pairs = [(index[_class_of(name, start)], name) for start, name in found]
        files[part] = sorted(pairs, key=lambda pair: (pair[0], bytewise(pair[1])))
    if "test" not in files:
        starts = {name: start for start, name in parts["train"]}
        keys = {name: name[len(start) :] for name, start in starts.items()}
        files = _hold_out(files["train"], keys, len(classes))
        notes.append(
            f"no test part: {len(files['test']):,} images held out, in each class the first "
            f"{HELD_OUT_SHARE:.0%} by SHA-256 of class/file"
        )
    return _numbered(archive, classes, files["train"], files["test"], notes)


def _is_image(name: str) -> bool:
    parts = name.split("/")
    return not any(map(_hidden, parts)) and name.lower().endswith(SUFFIXES)


def _root(names: Sequence[str]) -> str:
    """Finds the folders around all files, such as ``"cifar/"``; never a part or the classes."""
    split = [name.split("/") for name in names]
    depth = 0
    while all(len(parts) > depth + 2 for parts in split):
        first = {parts[depth] for parts in split}
        if len(first) > 1 or first & {*_TRAIN, *_TEST}:
            break
        depth += 1
    return "".join(f"{part}/" for part in split[0][:depth])


def _parts(names: Sequence[str], root: str) -> dict[str, list[tuple[str, str]]]:
    """Splits images by part -> (path before the class, file name) of each image."""
    tops = {name[len(root) :].split("/")[0] for name in names}
    train = next((one for one in _TRAIN if one in tops), None)
    if train is None:
        flat = [(root, name) for name in names if "/" in name[len(root) :]]
        if not flat:
            raise InvalidInput("the images lie in no class folders: expected <class>/<file>")
        return {"train": flat}
    test = next((one for one in _TEST if one in tops), None)
    found = {}
    for part, top in (("train", train), ("test", test)):
        start = f"{root}{top}/"
        inside = [name for name in names if name.startswith(start)]
        if top is not None:
            found[part] = [(start, name) for name in inside if "/" in name[len(start) :]]
    return found


def _class_of(name: str, start: str) -> str:
    return name[len(start) :].split("/")[0]


def _classes(
    archive: Archive, parts: dict[str, list[tuple[str, str]]], root: str
) -> tuple[str, ...]:
    found = {
        part: {_class_of(name, start) for start, name in files} for part, files in parts.items()
    }
    starts = {files[0][0] for files in parts.values() if files} or {root}
    folders = {
        folder[len(start) :]
        for folder in archive.folders
        for start in starts
        if folder.startswith(start)
    }
    named = {name for name in folders if name and "/" not in name and not _hidden(name)}
    empty = sorted((named | found.get("test", set())) - found["train"], key=bytewise)
    if empty:
        raise InvalidInput(
            f"{archive.path}: no training image in {len(empty)} class folders: {_some(empty)}",
            remedy="remove these classes, or add images to them",
        )
    classes = tuple(sorted(found["train"], key=bytewise))
    if len(classes) > MOST_CLASSES:
        raise InvalidInput(f"{archive.path} has {len(classes):,} classes; at most {MOST_CLASSES:,}")
    return classes


def _hidden(name: str) -> bool:
    return name.startswith(".") or name == "__MACOSX"


def _twins(classes: Sequence[str]) -> list[str]:
    """Warns of names that some systems cannot tell apart."""
    groups = defaultdict(list)
    for name in classes:
        groups[unicodedata.normalize("NFC", name).casefold()].append(name)
    same = [" / ".join(map(ascii, group)) for group in groups.values() if len(group) > 1]
    return [f"class names that differ only by case or Unicode form: {_some(same)}"] if same else []


def _hold_out(
    files: Sequence[tuple[int, str]], keys: dict[str, str], classes: int
) -> dict[str, list[tuple[int, str]]]:
    """Orders the files of each class by SHA-256 of `keys`; the first ones are the test part.

    These are max(2, round(0.2 n)) of n, but at least one stays for training.
    """
    grouped: list[list[str]] = [[] for _ in range(classes)]
    for label, name in files:
        grouped[label].append(name)
    tested = set()
    for names in grouped:
        count = min(max(2, round(HELD_OUT_SHARE * len(names))), len(names) - 1)
        names.sort(key=lambda name: hashlib.sha256(bytewise(keys[name])).digest())
        tested.update(names[:count])
    return {
        "train": [pair for pair in files if pair[1] not in tested],
        "test": [pair for pair in files if pair[1] in tested],
    }


def _numbered(
    archive: Archive,
    classes: Sequence[str],
    train: Sequence[tuple[int, str]],
    test: Sequence[tuple[int, str]],
    notes: Iterable[str],
) -> Listing:
    entries = [
        tuple(Entry(place, label, name) for place, (label, name) in enumerate(part))
        for part in (train, test)
    ]
    if not test:
        raise InvalidInput(f"{archive.path}: there is no test image, and none could be held out")
    listed = np.array([label for label, _ in train], np.int64)
    return Listing(tuple(classes), entries[0], entries[1], listed, False, tuple(notes))


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
        if len(row) != 4 or row[0] not in labels or not _is_count(row[1]):
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
    notes = _twins(classes)
    absent = len(labels["test"]) - len(held["test"])
    if absent:
        notes.append(f"{absent:,} of {len(labels['test']):,} test images of the index are absent")
    listed = np.array([labels["train"][place] for place in range(len(labels["train"]))], np.int64)
    _check_labels(path, listed, classes)
    ordered = {part: sorted(found, key=lambda one: one.position) for part, found in held.items()}
    entries = _located(archive, path, [*ordered["train"], *ordered["test"]])
    cut = len(ordered["train"])
    if not cut or cut == len(entries):
        raise InvalidInput(f"{path} names no training image or no test image that is there")
    left = len([name for name in archive.names if _is_image(name)]) - len(entries)
    if left:
        notes.append(f"{left:,} images of {archive.path.name} are not in the index")
    return Listing(classes, entries[:cut], entries[cut:], listed, True, tuple(notes))


# Lists


def from_lists(archive: Archive, train: Path, test: Path | None) -> Listing:
    """Reads files of `path label` lines, as of ImageNet-LT, or iNaturalist's JSON (`*.json`).

    Labels are 0 to K - 1, each with an image. A class takes its name from the JSON, or from the
    folder that holds all images of its label and no others, or else from its number. Without
    `test`, images are held out as in `image_folder`.
    """
    read = [_list_file(path) for path in (train, test) if path is not None]
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
        raise InvalidInput(f"{test}: {_some(unknown)}: of a class that {train} does not have")
    places = [Entry(place, label, name) for place, (label, name) in enumerate([*pairs, *tested])]
    entries = _located(archive, train, places)
    files = [(entry.label, entry.name) for entry in entries]
    notes = _twins(classes)
    parts = {"train": files[: len(pairs)], "test": files[len(pairs) :]}
    if test is None:
        keys = {name: f"{classes[label]}/{name.rpartition('/')[2]}" for label, name in files}
        parts = _hold_out(files, keys, len(classes))
        notes.append(f"no test list: {len(parts['test']):,} images held out by SHA-256")
    return _numbered(archive, classes, parts["train"], parts["test"], notes)


def _list_file(path: Path) -> tuple[list[tuple[int, str]], tuple[str, ...]]:
    """Reads ((label, path) of each image in the file's order, class names or nothing)."""
    if path.suffix.lower() == ".json":
        return _inaturalist(path)
    pairs = []
    for number, line in enumerate(_text(path).splitlines(), 1):
        if not line.strip():
            continue
        name, _, label = line.strip().rpartition(" ")
        if not name or not _is_count(label):
            raise InvalidInput(f"{path}, row {number}: expected 'path label', got {line[:80]!r}")
        if int(label) >= MOST_CLASSES:
            raise InvalidInput(f"{path}, row {number}: label {label}; at most {MOST_CLASSES - 1}")
        pairs.append((int(label), name.strip()))
    if not pairs:
        raise InvalidInput(f"{path} lists no image")
    return pairs, ()


def _inaturalist(path: Path) -> tuple[list[tuple[int, str]], tuple[str, ...]]:
    """Reads "images": [{id, file_name}], "annotations": [{image_id, category_id}], "categories"."""
    data = store.read_json(path, limit=LARGEST_TEXT)
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


def _is_count(text: str) -> bool:
    """Tells if a text is a whole number from 0, of few digits."""
    return text.isascii() and text.isdigit() and len(text) <= MOST_DIGITS


def _check_labels(path: Path, listed: np.ndarray, classes: Sequence[str]) -> None:
    if len(classes) > MOST_CLASSES:
        raise InvalidInput(f"{path} names {len(classes):,} classes; at most {MOST_CLASSES:,}")
    counts = np.bincount(listed, minlength=len(classes))
    empty = [f"{c} ({classes[c]})" for c in np.flatnonzero(counts == 0).tolist()]
    if empty:
        raise InvalidInput(
            f"{path}: no training image of {len(empty)} of {len(classes)} classes: {_some(empty)}",
            remedy="number the classes that there are from 0, without gaps",
        )


def _located(archive: Archive, path: Path, entries: Sequence[Entry]) -> tuple[Entry, ...]:
    """Finds the entries in the archive, which may put one folder before their names."""
    twice = [name for name, times in Counter(one.name for one in entries).items() if times > 1]
    if twice:
        raise InvalidInput(f"{path}: {len(twice)} files stand in it twice: {_some(twice)}")
    there = set(archive.names)
    roots = ["", *sorted({f"{name.split('/')[0]}/" for name in archive.names if "/" in name})]
    root = next((one for one in roots if one + entries[0].name in there), "") if entries else ""
    missing = [one.name for one in entries if root + one.name not in there]
    if missing:
        raise InvalidInput(
            f"{path} names {len(missing):,} files that are not in {archive.path}: {_some(missing)}"
        )
    return tuple(Entry(one.position, one.label, root + one.name) for one in entries)


def _some(names: Sequence[str], most: int = 10) -> str:
    more = f" and {len(names) - most:,} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more
