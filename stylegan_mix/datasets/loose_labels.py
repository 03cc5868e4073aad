"""The part and the labels of loose images: by folders, or by files as `prepare` reads them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from stylegan_mix.datasets.archives import Archive
from stylegan_mix.datasets.inner_parts import inner_parts
from stylegan_mix.datasets.label_files import asked_files, known_files, unused
from stylegan_mix.datasets.labelled import labelled_rows
from stylegan_mix.datasets.listing import some
from stylegan_mix.datasets.part_names import TIERS, roles_of
from stylegan_mix.datasets.parts import inside, parts_of_tiers
from stylegan_mix.datasets.request import Request
from stylegan_mix.datasets.tree import Branch
from stylegan_mix.errors import InvalidInput, UsageFailure

__all__ = [
    "ALL",
    "EVERYTHING",
    "PARTS",
    "UNLABELLED",
    "ClassNames",
    "Wanted",
    "labels_in_files",
    "part_of",
]

UNLABELLED = -1
ALL = "all"
PARTS = ("train", *TIERS)

T = TypeVar("T")


@dataclass(frozen=True)
class Wanted:
    """The images that are wanted of a folder or archive, and the files with their labels.

    `part` is "train", "test", "val" or "all", where there are parts. `labels` are tables, with the
    names of their columns, as in `Request`.
    """

    part: str | None = None
    labels: tuple[Path, ...] = ()
    file_column: str | None = None
    label_column: str | None = None


EVERYTHING = Wanted()
"""Images that are no parts of a data set, labelled by folders or by known files."""


class ClassNames:
    """The classes of a network by their names; letter case decides only in doubt."""

    def __init__(self, classes: Sequence[str]) -> None:
        self._exact = {name: index for index, name in enumerate(classes)}
        folded: dict[str, list[int]] = {}
        for index, name in enumerate(classes):
            folded.setdefault(name.casefold(), []).append(index)
        self._folded = {name: found[0] for name, found in folded.items() if len(found) == 1}

    def index(self, name: str) -> int:
        """Finds the class of that name, or `UNLABELLED`."""
        return self._exact.get(name, self._folded.get(name.casefold(), UNLABELLED))

    def of_folders(self, file: str) -> int:
        """Finds the class after which folders around a file are named, also a path of several."""
        folders = file.split("/")[:-1]
        for end in range(len(folders), 0, -1):
            for start in range(end):
                label = self.index("/".join(folders[start:end]))
                if label != UNLABELLED:
                    return label
        return UNLABELLED


# Parts


def part_of(archive: Archive, root: Branch, classes: ClassNames, part: str | None) -> list[str]:
    """Lists the wanted images. Raises `InvalidInput` (exit code 3) where several parts may be.

    A network knows the images of a training part: an accuracy over all parts would say little.
    """
    if part is not None and part not in (*PARTS, ALL):
        raise UsageFailure(f"there is no part '{part}'; known: {', '.join((*PARTS, ALL))}")
    found = _parts(archive, root, classes)
    if part == ALL or (part is None and not found):
        return list(root.images())
    if part in found:
        return found[part].images
    there = "; ".join(
        f"{one}: {len(two.images):,} images in {two.where}" for one, two in found.items()
    )
    if part in PARTS:
        raise UsageFailure(
            f"{archive.path} has no part '{part}'; its parts are {there or 'not to be seen'}",
            remedy="choose one of these" if found else "leave --part out, which takes all images",
        )
    raise InvalidInput(
        f"{archive.path} holds the parts of a data set ({there})",
        remedy=f"say which is meant: --part {list(found)[-1]}; --part all takes them together",
    )


@dataclass(frozen=True)
class _Part:
    """The images of a part, and the name of its folder."""

    where: str
    images: list[str]


def _parts(archive: Archive, root: Branch, classes: ClassNames) -> dict[str, _Part]:
    """Finds a training part and others beside it, around the classes or in each of them.

    Folders that are named after a class are none.
    """
    around = inside(root)
    names = [name for name in around.children if classes.index(name) == UNLABELLED]
    plain = {name: one.role for name, one in roles_of(names).items() if one.plain}
    roles = set(plain.values())
    if "train" in roles and len(roles) > 1:
        chosen = parts_of_tiers(roles - {"train"}) or dict(zip(TIERS, TIERS, strict=True))
        found: dict[str, list[str]] = {}
        for name, role in plain.items():
            found.setdefault(chosen.get(role, "train"), []).append(name)
        return {
            part: _Part(
                some([around.children[name].path.rstrip("/") for name in folders]),
                _images(around.children[name] for name in folders),
            )
            for part, folders in _ordered(found).items()
        }
    try:
        inner = inner_parts(around, archive)
    except InvalidInput:
        return {}
    labels = {} if inner is None else inner.labels
    return {part: _Part("each class", list(files)) for part, files in _ordered(labels).items()}


def _ordered(parts: Mapping[str, T]) -> dict[str, T]:
    """Sorts parts: training first, the test part last."""
    return {part: parts[part] for part in ("train", "val", "eval", "test") if part in parts}


def _images(branches: Iterable[Branch]) -> list[str]:
    return [name for branch in branches for name in branch.images()]


# Label files


def labels_in_files(
    archive: Archive, root: Branch, wanted: Wanted
) -> tuple[dict[str, str] | None, list[str]]:
    """Reads the label files that are named, or known -> image -> label, and notes.

    None without such a file; a note tells of a table that could be one. Raises the errors of
    `prepare` for a file that does not fit.
    """
    around = root.surrounding
    files = asked_files(archive, wanted.labels) if wanted.labels else known_files(archive, around)
    if not files:
        lost = unused(archive, around, ())
        return None, [
            f"'{name}' names images, and is not used: {way}" for name, way in lost.items()
        ]
    request = Request(
        "loose",
        archive.path,
        file_column=wanted.file_column,
        label_column=wanted.label_column,
        on_bad_image="skip",
    )
    rows, notes = labelled_rows(archive, files, around[-1], request)
    return {row.file: row.label for row in rows}, notes
