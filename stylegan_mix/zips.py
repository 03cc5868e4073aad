"""Zips from elsewhere, opened with a bound on the number of their members.

Python's reader makes an object of every entry before anyone can count them, more than ten times as
large as the entry.
"""

from __future__ import annotations

import zipfile
from typing import IO, Any

__all__ = ["open_zip"]

_ENTRY = b"PK\x01\x02"
_LARGEST_LIST, _LARGEST_END = 512 << 20, 1 << 20


class _Counting:
    """A file whose reads fail if they hold too many entries of a list of members."""

    def __init__(self, file: IO[bytes], most: int) -> None:
        self._file = file
        self.most: int | None = most

    def read(self, size: int = -1) -> bytes:
        if self.most is None:
            return self._file.read(size)
        # Without a size it is the end of the file that is read, for the place of the list.
        largest = _LARGEST_END if size < 0 else _LARGEST_LIST
        content = self._file.read(min(size, largest + 1) if size >= 0 else largest + 1)
        if len(content) > largest or content.count(_ENTRY) > self.most:
            raise ValueError(f"it has more than {self.most:,} members")
        return content

    def __getattr__(self, name: str) -> Any:
        return getattr(self._file, name)


def open_zip(file: IO[bytes], *, most: int, names_encoding: str | None = None) -> zipfile.ZipFile:
    """Opens a zip of at most `most` members; ValueError for more.

    `names_encoding` is that of names that are not marked as UTF-8.
    """
    counting: Any = _Counting(file, most)
    opened = zipfile.ZipFile(counting, metadata_encoding=names_encoding)
    counting.most = None
    return opened
