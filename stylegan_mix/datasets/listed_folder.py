"""The files of a folder that a list names, as an archive: the rest of the folder is not looked at.

The whole of ImageNet has more files than an archive may have, and lists of it name a tenth.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path

from stylegan_mix.datasets.disk_folder import DiskFolder
from stylegan_mix.datasets.members import LARGEST_MEMBER, bytewise, damaged
from stylegan_mix.errors import InvalidInput
from stylegan_mix.reading import read_bytes
from stylegan_mix.showing import is_plain, one_line
from stylegan_mix.store import digest

__all__ = ["ListedFolder", "file_marks"]


class ListedFolder:
    """Some files below a folder, links followed; see `members.Archive`.

    `names` are those of `wanted` that are there as files.
    """

    broken: Mapping[str, str] = {}
    notes: Sequence[str] = ()

    def __init__(self, path: Path, wanted: Iterable[str]) -> None:
        self.path = path
        names = sorted(set(wanted), key=bytewise)
        odd = [name for name in names if not is_plain(name)]
        if odd:
            raise InvalidInput(
                f"{path}: the name '{one_line(odd[0])}' has control characters in it"
            )
        self.names = [name for name in names if _is_file(path / name)]
        self.folders = frozenset(
            folder.as_posix() for name in self.names for folder in list(Path(name).parents)[:-1]
        )

    def read(self, wanted: Iterable[str]) -> Iterator[tuple[str, bytes]]:
        """Yields (name, content) of the wanted files, by their names."""
        for name in sorted(wanted, key=bytewise):
            with damaged(self.path, name):
                yield name, read_bytes(self.path / name, limit=LARGEST_MEMBER)

    def sha256(self) -> str:
        """Computes the digest of the files' `file_marks`: their contents are not read."""
        return file_marks(self)


def _is_file(path: Path) -> bool:
    try:
        return stat.S_ISREG(os.stat(path).st_mode)
    except (OSError, ValueError):
        return False


def file_marks(archive: ListedFolder | DiskFolder) -> str:
    """Computes a digest of the names, sizes and times of the files of a folder; reads none."""
    found = []
    for name in archive.names:
        if name not in archive.broken:
            status = os.stat(archive.path / name)
            found.append([name, status.st_size, status.st_mtime_ns])
    return digest({"files": found})
