"""Loose images: files of a folder or archive as they lie, labelled by the folders around them.

Nothing is prepared or kept. `N` images, `H W` pixels, `C` channels.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from stylegan_mix.datasets.archives import Archive, bytewise, open_archive
from stylegan_mix.datasets.image_files import (
    SUFFIXES,
    BadImage,
    Shape,
    decode,
    inspect,
    is_image_name,
)
from stylegan_mix.errors import InvalidInput

__all__ = ["UNLABELLED", "LooseImages", "open_loose"]

UNLABELLED = -1


@dataclass(frozen=True)
class LooseImages:
    """The image files of a folder or archive: `names` in the order of their bytes, and `labels`.

    A label is the index of the class after which a folder around the file is named; an inner folder
    counts before an outer one. A file without such a folder has `UNLABELLED`.
    """

    path: Path
    names: tuple[str, ...]
    labels: np.ndarray
    archive: Archive

    @property
    def strange_folders(self) -> list[str]:
        """The folders of files without a label, sorted; "." for files outside of any folder."""
        without = np.flatnonzero(self.labels == UNLABELLED)
        return sorted({self.names[row].rpartition("/")[0] or "." for row in without})

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
                    _require_size(content, shape.size)
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


def _require_size(content: bytes, size: int) -> None:
    header = inspect(content)
    if (header.width, header.height) != (size, size):
        raise _OtherSize(f"{header.width} x {header.height}")


@contextmanager
def open_loose(path: Path, classes: Sequence[str]) -> Iterator[LooseImages]:
    """Opens a folder, tar, zip or single image. Raises `InvalidInput` (exit code 3) without images.

    Hidden files are left aside.
    """
    single = path.is_file() and path.suffix.lower() in SUFFIXES
    with open_archive(path.parent if single else path) as archive:
        names = [path.name] if single else _images(archive)
        if not names:
            raise InvalidInput(
                f"{path} holds no image",
                remedy=f"give a folder, tar or zip with files such as {', '.join(SUFFIXES[:4])}",
            )
        labels = _Labels(classes)
        found = np.array([labels.of(name) for name in names], np.int64)
        yield LooseImages(path, tuple(names), found, archive)


def _images(archive: Archive) -> list[str]:
    return sorted(filter(is_image_name, archive.names), key=bytewise)


class _Labels:
    """The labels of files by the names of their folders; letter case decides only in doubt."""

    def __init__(self, classes: Sequence[str]) -> None:
        self._exact = {name: index for index, name in enumerate(classes)}
        folded: dict[str, list[int]] = {}
        for index, name in enumerate(classes):
            folded.setdefault(name.casefold(), []).append(index)
        self._folded = {name: found[0] for name, found in folded.items() if len(found) == 1}

    def of(self, name: str) -> int:
        """Finds the label of a file; the name of a class may be a path of several folders."""
        folders = name.split("/")[:-1]
        for end in range(len(folders), 0, -1):
            for start in range(end):
                candidate = "/".join(folders[start:end])
                label = self._exact.get(candidate, self._folded.get(candidate.casefold()))
                if label is not None:
                    return label
        return UNLABELLED
