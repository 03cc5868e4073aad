"""The listing of images whose classes stand in label files, and the parts of such images."""

from __future__ import annotations

import re
import shlex
from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace

from stylegan_mix.datasets.archives import Archive, bytewise
from stylegan_mix.datasets.label_tables import (
    FILE_KEY,
    Table,
    column_named,
    described,
    hot_labels,
    label_columns,
    one_hot,
)
from stylegan_mix.datasets.listing import (
    MOST_CLASSES,
    Labelled,
    Listing,
    counted,
    held_out,
    listing_of,
    ordered,
    some,
    twins,
)
from stylegan_mix.datasets.lookup import Lookup
from stylegan_mix.datasets.part_names import part_name
from stylegan_mix.datasets.parts import parts_of_tiers
from stylegan_mix.datasets.request import Request
from stylegan_mix.datasets.tree import Branch
from stylegan_mix.errors import InvalidInput
from stylegan_mix.reading import MOST_DIGITS

__all__ = [
    "FEWEST_SHARE",
    "LabelFile",
    "LabelledRow",
    "file_column",
    "labelled_listing",
    "labelled_rows",
]

SAMPLE_ROWS = 500
# A table may name many images of which the source holds few.
FEWEST_SHARE = 0.05
MOST_SPLIT_WORDS = 12
_INTEGER = re.compile(r"[+-]?\d{1,18}(\.0*)?")


@dataclass(frozen=True)
class LabelFile:
    """A table, the folder of the source from which its paths start, and the part of its name.

    `name` is its name in the source, and empty for a file outside of it.
    """

    table: Table
    name: str = ""
    folder: str = ""
    role: str | None = None


@dataclass(frozen=True)
class LabelledRow:
    """An image, its label, and the role of its part in the row or the name of the file."""

    file: str
    label: str
    role: str | None


def labelled_listing(
    archive: Archive,
    files: Sequence[LabelFile],
    root: Branch,
    request: Request,
    named: Mapping[str, Collection[str]],
) -> Listing:
    """Lists the images that label files name, with the classes there.

    Parts are the images in the folders that options name (`named`); or else a column of the table
    says them, or the names of several label files, or the folders of the images. Otherwise a share
    is held out.
    Raises `InvalidInput` (exit code 3) for rows that fit no image or have no label.
    """
    _check_roles(files)
    rows, notes = labelled_rows(archive, files, root, request, named)
    parts = _in_parts(archive, rows, files, named, notes)
    classes = _classes(files, parts)
    index = {name: label for label, name in enumerate(classes)}
    pairs: dict[str, Labelled] = {
        part: ordered((index[row.label], row.file) for row in found)
        for part, found in parts.items()
    }
    if "test" not in pairs:
        keys = {
            name: f"{classes[label]}/{name.removeprefix(root.path)}"
            for label, name in pairs["train"]
        }
        cut, changed = held_out(pairs["train"], keys, classes)
        pairs |= cut
        notes += [f"no test part: {len(cut['test']):,} images held out by SHA-256", *changed]
    listing = listing_of(archive, classes, pairs, [*notes, *twins(classes)])
    return replace(listing, label_files=tuple(file.name for file in files if file.name))


# Rows


def labelled_rows(
    archive: Archive,
    files: Sequence[LabelFile],
    root: Branch,
    request: Request,
    named: Mapping[str, Collection[str]] = {},
) -> tuple[list[LabelledRow], list[str]]:
    """Reads the rows of label files that fit an image -> them, and notes.

    Raises `InvalidInput` (exit code 3) for rows that fit no image, unless bad images are skipped,
    for rows without a label, and for two rows of one image.
    """
    rows: list[LabelledRow] = []
    notes: list[str] = []
    for file in files:
        found, said = _rows(archive, file, root, request, named)
        rows += found
        notes += said
    rows = _spelled_alike(rows)
    twice = [name for name, times in Counter(row.file for row in rows).items() if times > 1]
    if twice:
        raise InvalidInput(
            f"{_names(files)}: more than one row for {counted(len(twice), 'image')}: {some(twice)}",
            remedy="one image has one label: remove the other rows",
        )
    return rows, notes


def file_column(table: Table, lookup: Lookup, folders: Sequence[str]) -> str | None:
    """Finds the column whose values name images, more different ones than any other's."""
    best, most = None, 0
    for name in dict.fromkeys(table.columns):
        values = table.column(name)[:SAMPLE_ROWS]
        hits = [value for value in values if value and lookup.find(value, folders)]
        if len(hits) > FEWEST_SHARE * len(values) and len(set(hits)) > most:
            best, most = name, len(set(hits))
    return best


@dataclass
class _Matched:
    """The rows of a table that fit an image, and descriptions of those that do not."""

    rows: list[LabelledRow] = field(default_factory=list)
    missing: list[str] = field(default_factory=list)
    several: list[str] = field(default_factory=list)
    bare: list[str] = field(default_factory=list)


def _rows(
    archive: Archive,
    file: LabelFile,
    root: Branch,
    request: Request,
    named: Mapping[str, Collection[str]],
) -> tuple[list[LabelledRow], list[str]]:
    table = file.table
    lookup = Lookup(_searched(root, file, named))
    folders = tuple(dict.fromkeys((file.folder, root.path, "")))
    paths = _file_column(archive, table, lookup, folders, request.file_column)
    split = _split_column(table, paths)
    hot = () if request.label_column else one_hot(table, paths, [split] if split else [])
    if hot:
        classes, said = hot_labels(table, hot), f"the one of {some(hot)} that holds 1, of"
    else:
        labels = _label_column(table, paths, split, request.label_column)
        classes, said = table.column(labels), f"column '{labels}' of"
    found = _matched(file, paths, classes, split, lookup, folders)
    meant = (
        "write their folders into the file, or name the folder that is meant: --train-dir FOLDER"
    )
    _refuse(table, archive, found.several, "several images of one name", meant)
    _refuse(table, archive, found.bare, "no label", "remove these rows, or complete them")
    if request.on_bad_image != "skip":
        advice = "remove these rows, or leave them out with --on-bad-image skip"
        _refuse(table, archive, found.missing, "no image of that name", advice)
    notes = [f"classes: {said} {table.name}"]
    if found.missing:
        rows = counted(len(found.missing), "row")
        notes.append(f"no image for {rows} of {table.name}: {some(found.missing)}")
    return found.rows, notes


def _matched(
    file: LabelFile,
    paths: str,
    labels: Sequence[str],
    split: str | None,
    lookup: Lookup,
    folders: Sequence[str],
) -> _Matched:
    """Looks up the image of each row; `paths` and `split` are columns of files and parts."""
    table = file.table
    parts = [""] * len(table.rows) if split is None else table.column(split)
    found = _Matched()
    rows = enumerate(zip(table.column(paths), labels, parts, strict=True), table.first)
    for number, (word, label, role) in rows:
        images = lookup.find(word, folders) if word else []
        if not images:
            found.missing.append(f"'{word}' (row {number})")
        elif len(images) > 1:
            found.several.append(f"'{word}' (row {number}: {some(images, 2)})")
        elif not label:
            found.bare.append(f"row {number} ('{word}')")
        else:
            part = part_name(role)
            found.rows.append(LabelledRow(images[0], label, part.role if part else file.role))
    return found


def _refuse(table: Table, archive: Archive, rows: list[str], why: str, remedy: str) -> None:
    if rows:
        raise InvalidInput(
            f"{table.name}: {why} in {archive.path} for {counted(len(rows), 'row')}: {some(rows)}",
            remedy=remedy,
        )


def _searched(root: Branch, file: LabelFile, named: Mapping[str, Collection[str]]) -> Iterable[str]:
    """Yields the images that a label file may mean: of named parts, or those of its own part.

    A Kaggle set has a "1.jpg" in train/ and another one in test/, and train.csv means the first.
    """
    if named:
        return [name for images in named.values() for name in images]
    own = [
        child
        for child in root.children.values()
        if (found := part_name(child.name)) and found.role == file.role
    ]
    return list(own[0].images()) if len(own) == 1 else list(root.images())


def _file_column(
    archive: Archive, table: Table, lookup: Lookup, folders: Sequence[str], asked: str | None
) -> str:
    if asked is not None:
        return column_named(table, "--file-column", asked)
    if any(lookup.find(cell, folders) for cell in table.columns if cell):
        raise InvalidInput(
            f"{table.name}, row 1: expected a header with the names of the columns, got "
            f"{some(list(table.columns))}",
            remedy="add a header, such as file,label; or give lines of 'path number' by "
            "--train-list FILE",
        )
    found = file_column(table, lookup, folders) or (FILE_KEY if FILE_KEY in table.columns else None)
    if found is None:
        raise InvalidInput(
            f"{table.name}: no column names the images of {archive.path}; {described(table)}",
            remedy="choose one: --file-column NAME",
        )
    return column_named(table, "--file-column", found)


def _label_column(table: Table, files: str, split: str | None, asked: str | None) -> str:
    if asked is not None:
        return column_named(table, "--label-column", asked)
    found = label_columns(table, files, [split] if split else [])
    if len(found) != 1:
        words = ["--labels", table.name, "--file-column", files]
        words += ["--label-column", (found or ["NAME"])[0]]
        raise InvalidInput(
            f"{table.name}: which column holds the labels? {described(table)}",
            remedy=f"choose one: {shlex.join(words)}",
        )
    return column_named(table, "--label-column", found[0])


def _split_column(table: Table, files: str) -> str | None:
    """Finds a column whose values are all names of parts, among them training and another."""
    for name in dict.fromkeys(table.columns):
        words = set(table.column(name)) if name != files else set()
        if 2 <= len(words) <= MOST_SPLIT_WORDS:
            roles = [part_name(word) for word in words]
            known = {one.role for one in roles if one and one.plain}
            if all(one and one.plain for one in roles) and len(known) > 1 and "train" in known:
                return name
    return None


# Parts and classes


def _check_roles(files: Sequence[LabelFile]) -> None:
    roles = [file.role for file in files]
    if len(files) > 1 and (None in roles or len(set(roles)) < len(roles) or "train" not in roles):
        raise InvalidInput(
            f"{_names(files)}: which part does each label file name?",
            remedy="give them names such as train.csv and test.csv, or join them into one with a "
            "column of train and test",
        )


def _in_parts(
    archive: Archive,
    rows: Sequence[LabelledRow],
    files: Sequence[LabelFile],
    named: Mapping[str, Collection[str]],
    notes: list[str],
) -> dict[str, list[LabelledRow]]:
    if named:
        return {part: [row for row in rows if row.file in found] for part, found in named.items()}
    roles = {row.role for row in rows}
    if len(roles) > 1:
        by_role = [(row.role, row) for row in rows]
    else:
        by_role = [(_folder_role(row.file), row) for row in rows]
        roles = {role for role, _ in by_role}
    if "train" not in roles or roles == {"train"}:
        return {"train": list(rows)}
    chosen = parts_of_tiers(role for role in roles if role and role != "train")
    if None in roles or chosen is None:
        there = sorted(str(role) for role in roles if role)
        raise InvalidInput(
            f"{archive.path}: the images that {_names(files)} names lie in parts ({some(there)})"
            f"{' and outside of them' if None in roles else ', of which only two can be tested'}",
            remedy="say which are used: --train-dir FOLDER --test-dir FOLDER [--val-dir FOLDER]",
        )
    parts: dict[str, list[LabelledRow]] = defaultdict(list)
    for role, row in by_role:
        parts[chosen.get(role or "", "train")].append(row)
    notes.append(
        "parts: "
        + ", ".join(f"{part} {len(found):,} images" for part, found in sorted(parts.items()))
    )
    return dict(parts)


def _folder_role(name: str) -> str | None:
    for folder in name.split("/")[:-1]:
        found = part_name(folder)
        if found is not None and found.plain:
            return found.role
    return None


def _spelled_alike(rows: Sequence[LabelledRow]) -> list[LabelledRow]:
    """Spells the number of a class in one way: 7 for "7", "07" and "7.0"; names stay."""
    if not all(_INTEGER.fullmatch(row.label) and len(row.label) < MOST_DIGITS for row in rows):
        return list(rows)
    return [replace(row, label=str(int(row.label.partition(".")[0]))) for row in rows]


def _classes(files: Sequence[LabelFile], parts: Mapping[str, Sequence[LabelledRow]]) -> list[str]:
    """Sorts the labels of the training part: numbers by value, names by their bytes."""
    trained = {row.label for row in parts["train"]}
    everywhere = {row.label for found in parts.values() for row in found}
    empty = sorted(everywhere - trained, key=bytewise)
    if empty:
        raise InvalidInput(
            f"{_names(files)}: no training image of {len(empty):,} classes: {some(empty)}",
            remedy="remove the rows of these classes, or add images to them",
        )
    if len(trained) < 2 or len(trained) > MOST_CLASSES:
        raise InvalidInput(
            f"{_names(files)} gives {len(trained):,} classes; expected 2 to {MOST_CLASSES:,}",
            remedy="choose the column of the classes: --label-column NAME",
        )
    numbers = all(_INTEGER.fullmatch(label) for label in trained)
    return sorted(trained, key=int if numbers else bytewise)


def _names(files: Sequence[LabelFile]) -> str:
    return " and ".join(file.table.name for file in files)
