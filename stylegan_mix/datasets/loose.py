"""Loose images: files of a folder or archive as they lie, labelled by folders or label files.

Nothing is prepared or kept. `N` images, `H W` pixels, `C` channels.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from stylegan_mix import store
from stylegan_mix.datasets.archives import Archive, bytewise, open_archive
from stylegan_mix.datasets.image_files import (
    SUFFIXES,
    BadImage,
    Shape,
    decode,
    heif_hint,
    inspect,
    is_image_name,
)
from stylegan_mix.datasets.listing import some
from stylegan_mix.datasets.loose_labels import (
    EVERYTHING,
    UNLABELLED,
    ClassNames,
    Wanted,
    labels_in_files,
    part_of,
)
from stylegan_mix.datasets.members import LARGEST_MEMBER, damaged
from stylegan_mix.datasets.tree import tree_of
from stylegan_mix.errors import InvalidInput
from stylegan_mix.reading import read_bytes

__all__ = ["EVERYTHING", "UNLABELLED", "LooseImages", "Wanted", "open_loose"]


@dataclass(frozen=True)
class LooseImages:
    """The image files of a folder or archive: `names` in the order of their bytes, and `labels`.

    A label is the index of a class. It stands in a label file; or a folder around the file is named
    after the class, an inner one before an outer one. A file without label has `UNLABELLED`.
    `notes` are messages for the user.
    """

    path: Path
    names: tuple[str, ...]
    labels: np.ndarray
    archive: Archive
    notes: tuple[str, ...] = ()

    @property
    def folders(self) -> str:
        """Says how many images lie in which folder, the first one in which they part."""
        around = tree_of(self.names).surrounding[-1]
        counts = [f"{child.total:,} in {child.path.rstrip('/')}" for child in around.inner]
        if around.own:
            counts.insert(0, f"{len(around.own):,} in {around.path.rstrip('/') or '.'}")
        return some(counts)

    def decoded(
        self, shape: Shape, bad: dict[str, str] | None
    ) -> Iterator[tuple[int, str, np.ndarray]]:
        """Yields (place in `names`, name, uint8 [H,W,C]), in the order that is quickest to read.

        With `shape.size`, images of another size are refused unless `shape.fit` brings them to it.
        Files that cannot be taken are added to `bad` with the reason; without it they are
        `InvalidInput` (exit code 3).
        """
        place = {name: number for number, name in enumerate(self.names)}
        broken = self._broken(bad)
        for name, content in self.archive.read([one for one in self.names if one not in broken]):
            try:
                if shape.fit is None and shape.size is not None:
                    _require_size(content, shape)
                yield place[name], name, decode(content, shape)
            except BadImage as error:
                if bad is None:
                    raise self._refusal(name, str(error)) from error
                bad[name] = str(error)
            except _OtherSize as error:
                raise InvalidInput(
                    f"{self.path}: '{name}' is {error} pixels; the network was trained on "
                    f"{shape.size} x {shape.size}",
                    remedy="--resize brings every image to that size (--fit says how)",
                ) from error

    def _broken(self, bad: dict[str, str] | None) -> dict[str, str]:
        """Finds the names that are links to nothing, which count as files that cannot be taken."""
        found = {name: why for name, why in self.archive.broken.items() if name in self.names}
        if bad is not None:
            bad |= found
        elif found:
            raise self._refusal(*next(iter(found.items())))
        return found

    def _refusal(self, name: str, why: str) -> InvalidInput:
        return InvalidInput(
            f"{self.path}: '{name}' {why}", remedy="--on-bad-image skip leaves such files out"
        )


class _OtherSize(Exception):
    """An image of another size, which the text gives."""


def _require_size(content: bytes, shape: Shape) -> None:
    header = inspect(content, convert=shape.convert)
    if (header.width, header.height) != (shape.size, shape.size):
        raise _OtherSize(f"{header.width} x {header.height}")


@contextmanager
def open_loose(
    path: Path, classes: Sequence[str], wanted: Wanted = EVERYTHING
) -> Iterator[LooseImages]:
    """Opens a folder, tar, zip or single image. Raises `InvalidInput` (exit code 3) without images.

    `classes` are the names that labels may have. Hidden files are left aside. Also refused are the
    parts of a whole data set, unless one is wanted, and label files that do not fit.
    """
    with _opened(path) as archive:
        every = sorted(filter(is_image_name, archive.names), key=bytewise)
        if not every:
            raise InvalidInput(
                f"{path} holds no image",
                remedy=heif_hint(archive.names)
                or f"give a folder, tar or zip with files such as {', '.join(SUFFIXES[:4])}",
            )
        root = tree_of(every)
        known = ClassNames(classes)
        names = part_of(archive, root, known, wanted.part)
        said, notes = labels_in_files(archive, root, wanted)
        if said is None:
            found = [known.of_folders(name) for name in names]
            strange = {
                name.rpartition("/")[0] or "."
                for name, label in zip(names, found, strict=True)
                if label == UNLABELLED
            }
            why = "no folder around them is named after a class"
        else:
            found = [known.index(said[name]) if name in said else UNLABELLED for name in names]
            strange = {
                said.get(name, "no row")
                for name, label in zip(names, found, strict=True)
                if label == UNLABELLED
            }
            why = "the label file has no class of the network for them"
        notes += _unlabelled(found, sorted(strange), why)
        labels = np.array(found, np.int64)
        yield LooseImages(path, tuple(names), labels, archive, (*archive.notes, *notes))


def _opened(path: Path) -> AbstractContextManager[Archive]:
    if path.is_file() and path.suffix.lower() in SUFFIXES:
        return nullcontext(_OneFile(path))
    return open_archive(path)


def _unlabelled(labels: Sequence[int], strange: Sequence[str], why: str) -> list[str]:
    """Says which images have no label where others have one: a misspelt class goes unseen."""
    count = labels.count(UNLABELLED)
    if not 0 < count < len(labels):
        return []
    return [f"{count:,} of {len(labels):,} images have no label: {why} ({some(strange, 5)})"]


class _OneFile:
    """An image file as an archive; the folder around it is not looked at."""

    folders: frozenset[str] = frozenset()
    broken: Mapping[str, str] = {}
    notes: Sequence[str] = ()

    def __init__(self, path: Path) -> None:
        self.path = path.parent
        self.names = [path.name]

    def read(self, wanted: Iterable[str]) -> Iterator[tuple[str, bytes]]:
        for name in wanted:
            with damaged(self.path, name):
                content = read_bytes(self.path / name, limit=LARGEST_MEMBER)
            yield name, content

    def sha256(self) -> str:
        return store.sha256_file(self.path / self.names[0])
