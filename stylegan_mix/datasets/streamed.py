"""The images of a streamed set: files below a folder, decoded when they are asked for.

Nothing but a table of the files is held: their names, sizes and hashes. `N` images, `S` pixels,
`C` channels.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, cast

import numpy as np

from stylegan_mix.arrays import Container
from stylegan_mix.datasets.decoders import Pending, decoders
from stylegan_mix.datasets.image_files import BadImage, Shape, Window, decode, decode_window
from stylegan_mix.datasets.members import LARGEST_MEMBER
from stylegan_mix.errors import Failure, InvalidInput, MissingEnvironment
from stylegan_mix.reading import read_bytes

__all__ = ["FileImages", "FileTable", "as_files", "file_hash", "file_images"]

_SHOWN = 10
_AT_ONCE = 1024


@dataclass(frozen=True, eq=False)
class FileTable:
    """The files of a part: `names` uint8 are their paths one after another, in UTF-8.

    `ends` int64 [N] is where each path ends, `sizes` int64 [N] the bytes of each file, `hashes`
    uint8 [N,32] its `file_hash`. All may be memory maps.
    """

    names: np.ndarray
    ends: np.ndarray
    sizes: np.ndarray
    hashes: np.ndarray

    def name(self, row: int) -> str:
        """Reads the path of a file, relative to the root."""
        start = int(self.ends[row - 1]) if row else 0
        return self.names[start : int(self.ends[row])].tobytes().decode("utf-8")


def file_hash(content: bytes, shape: Shape) -> bytes:
    """Hashes the bytes of a file with SHA-256, after the side of its views and its channels.

    The first twelve bytes are side, side and channels as three unsigned 32-bit big-endian integers,
    as in `hashes.image_hashes`.
    """
    assert shape.size is not None
    whole = hashlib.sha256(np.array([shape.size, shape.size, shape.channels], ">u4").tobytes())
    whole.update(content)
    return whole.digest()


@dataclass(frozen=True, eq=False)
class FileImages:
    """Images as files below `root`, in the place of an array uint8 [N,S,S,C].

    An index gives the views at test, decoded by several threads: by `view.fit`, "centre" unless
    another one was asked for. `window` decodes other parts of an image. Each file that is read is
    compared with its size and its hash in `table`. `rows` are the rows of the table that are the
    images; `dataset` is named in errors.
    """

    dataset: str
    root: Path
    view: Shape
    table: FileTable
    rows: np.ndarray

    @property
    def shape(self) -> tuple[int, int, int, int]:
        """The shape of the array: N, S, S, C."""
        assert self.view.size is not None
        return (len(self.rows), self.view.size, self.view.size, self.view.channels)

    @property
    def dtype(self) -> np.dtype[Any]:
        return np.dtype(np.uint8)

    @property
    def nbytes(self) -> int:
        """The bytes of all views, if they were held."""
        return int(np.prod(self.shape, dtype=np.int64))

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: Any) -> np.ndarray:
        """Decodes the views of a row, a slice or an array of rows -> uint8 [...,S,S,C]."""
        rows = np.arange(len(self))[index]
        if rows.ndim == 0:
            return self.gathered(self.ask(rows[None]))[0]
        return self.gathered(self.ask(rows))

    def chosen(self, rows: np.ndarray) -> FileImages:
        """Selects some of the images, without reading them."""
        return replace(self, rows=self.rows[rows])

    def name(self, row: int) -> str:
        """Returns the path of an image below the root."""
        return self.table.name(int(self.rows[row]))

    def ask(
        self, rows: Sequence[int] | np.ndarray, windows: Sequence[Window] | None = None
    ) -> list[Pending[np.ndarray]]:
        """Begins to decode some rows: their views, or a window of each. See `gathered`."""
        found = []
        for place, row in enumerate(rows):
            window = None if windows is None else windows[place]
            work = partial(self.decoded, int(row), window)
            found.append(decoders().give(work, self._called(int(row))))
        return found

    def gathered(self, asked: Sequence[Pending[np.ndarray]]) -> np.ndarray:
        """Waits for rows that were asked for -> uint8 [n,S,S,C].

        Raises `InvalidInput` (exit code 3), naming the file, for one that is gone, is another one
        by now, or cannot be decoded; `MissingEnvironment` (4) for one that may not be read, takes
        too long, or whose root is gone.
        """
        found = np.empty((len(asked), *self.shape[1:]), np.uint8)
        for place, pending in enumerate(asked):
            found[place] = decoders().result(pending)
        return found

    def read(self, row: int) -> bytes:
        """Reads the file of a row and compares it with the table; raises as `gathered` does."""
        place = int(self.rows[row])
        try:
            content = read_bytes(self.root / self.table.name(place), limit=LARGEST_MEMBER)
        except OSError as error:
            raise self._unread(row, error) from error
        if file_hash(content, self.view) != self.table.hashes[place].tobytes():
            raise self._changed(self._called(row))
        return content

    def decoded(self, row: int, window: Window | None) -> np.ndarray:
        """Reads and decodes the view of a row, or its window -> uint8 [S,S,C]."""
        content = self.read(row)
        try:
            if window is None:
                return decode(content, self.view)
            return decode_window(content, self.view, window)
        except BadImage as error:
            raise InvalidInput(
                f"{self._called(row)} {error}",
                remedy=f"repair it, or leave it out: stylegan-mix dataset prepare {self.dataset} "
                "with --on-bad-image skip --replace",
            ) from error

    def require_there(self) -> None:
        """Checks that all files are there, with the sizes of the table; reads none of them.

        Raises `InvalidInput` (exit code 3), naming the first ones that are not, and
        `MissingEnvironment` (4) if the root is gone.
        """
        self._require_root()
        bad = []
        for row in range(len(self)):
            place = int(self.rows[row])
            try:
                size = os.stat(self.root / self.table.name(place)).st_size
            except OSError as error:
                bad.append(f"'{self.name(row)}' {(error.strerror or '').lower()}")
            else:
                if size != self.table.sizes[place]:
                    bad.append(
                        f"'{self.name(row)}' has {size:,} bytes, not {self.table.sizes[place]:,}"
                    )
        if bad:
            more = f" and {len(bad) - _SHOWN:,} more" if len(bad) > _SHOWN else ""
            raise self._changed(
                f"{self.dataset}: {len(bad):,} files in {self.root}: "
                f"{'; '.join(bad[:_SHOWN])}{more}:"
            )

    def require_same(self) -> None:
        """Reads all files and compares them with the table; raises as `gathered` does."""
        self._require_root()
        for start in range(0, len(self), _AT_ONCE):
            rows = range(start, min(start + _AT_ONCE, len(self)))
            asked = [decoders().give(_Reading(self, row), self._called(row)) for row in rows]
            for pending in asked:
                decoders().result(pending)

    def _called(self, row: int) -> str:
        return f"{self.dataset}: image '{self.name(row)}' in {self.root}"

    def _changed(self, what: str) -> InvalidInput:
        return InvalidInput(
            f"{what} is not as it was when {self.dataset} was prepared",
            remedy="put the files back; or prepare the set of now, for new runs: "
            f"stylegan-mix dataset prepare {self.dataset} --replace with the options of before",
        )

    def _unread(self, row: int, error: OSError) -> Failure:
        self._require_root()
        told = f"{self._called(row)} cannot be read: {error.strerror or error}"
        if isinstance(error, PermissionError):
            return MissingEnvironment(told, remedy="give yourself the permission")
        return InvalidInput(
            told, remedy=f"put it back; stylegan-mix dataset verify {self.dataset} checks all files"
        )

    def _require_root(self) -> None:
        if not self.root.is_dir():
            raise MissingEnvironment(
                f"{self.root}, the folder of the images of {self.dataset}, is not there",
                remedy="mount it, or put it back; if it was moved, prepare the set again with "
                "--from and --replace",
            )


@dataclass(frozen=True, eq=False)
class _Reading:
    """The comparison of one file with the table, as work for a thread; its bytes are not kept."""

    images: FileImages
    row: int

    def __call__(self) -> None:
        self.images.read(self.row)


# In a container


def file_images(container: Container, dataset: str, part: str) -> np.ndarray:
    """Opens the images of a part ("train", "test" or "val") of a streamed set.

    They are typed as the array that they stand for; `as_files` tells them from one.
    """
    facts: Mapping[str, Any] = container.facts
    side, _, channels = facts["shape"]
    before = "" if part == "train" else f"{part}_"
    table = FileTable(
        *(container[f"{before}{name}"] for name in ("names", "ends", "sizes", "hashes"))
    )
    view = Shape(side, facts["fit"], channels, bool(facts.get("convert")))
    rows = np.arange(len(table.ends))
    found = FileImages(dataset, Path(facts["source"]["root"]), view, table, rows)
    return cast(np.ndarray, found)


def as_files(images: object) -> FileImages | None:
    """Returns images that are files; None for an array."""
    return images if isinstance(images, FileImages) else None
