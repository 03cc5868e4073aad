"""A folder on the disk as an archive, with the links in it.

A real path wins over a link to it: a folder or file that has several names counts once, under its
own name, or under the first of the links if it lies outside.
"""

from __future__ import annotations

import hashlib
import os
import stat
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from stylegan_mix.datasets.members import LARGEST_MEMBER, Members, bytewise, damaged
from stylegan_mix.errors import InvalidInput, MissingEnvironment
from stylegan_mix.reading import read_bytes

__all__ = ["DiskFolder"]

SHOWN = 10

Identity = tuple[int, int]


@dataclass
class _Walk:
    """The state of a walk: names found, the links left, and the identities seen."""

    members: Members
    links: list[str] = field(default_factory=list)
    folders: dict[Identity, str] = field(default_factory=dict)
    files: dict[Identity, str] = field(default_factory=dict)
    broken: dict[str, str] = field(default_factory=dict)
    same_folders: list[str] = field(default_factory=list)
    same_files: list[str] = field(default_factory=list)


class DiskFolder:
    """The files below a folder, links followed; see `members.Archive`."""

    def __init__(self, path: Path) -> None:
        self.path = path
        walk = _Walk(Members(path))
        self._below("", walk)
        while walk.links:
            links, walk.links = sorted(walk.links, key=bytewise), []
            for name in links:
                self._follow(name, walk)
        self.names = sorted(walk.members.files, key=bytewise)
        self.folders = frozenset(walk.members.folders)
        self.broken = dict(sorted(walk.broken.items()))
        self.notes = _notes(walk)

    def _below(self, start: str, walk: _Walk) -> None:
        """Adds what lies in the folder at `start`, which ends with "/" or is empty."""
        for found, inner, files in os.walk(self.path / start, onerror=_unreadable):
            relative = Path(found).relative_to(self.path).as_posix()
            here = "" if relative == "." else f"{relative}/"
            status = os.stat(found)
            identity = (status.st_dev, status.st_ino)
            if identity in walk.folders:
                walk.same_folders.append(f"{here or '.'} is {walk.folders[identity]}")
                inner.clear()
                continue
            walk.folders[identity] = here or "."
            walk.members.add(here or ".", "folder", 0)
            inner.sort()
            walk.links += [here + name for name in inner if os.path.islink(self.path / here / name)]
            for name in sorted(files):
                if os.path.islink(self.path / here / name):
                    walk.links.append(here + name)
                else:
                    self._add_file(here + name, walk)

    def _follow(self, name: str, walk: _Walk) -> None:
        try:
            status = os.stat(self.path / name)
        except OSError:
            walk.members.add(name, "file", 0)
            walk.broken[name] = "is a link to nothing"
            return
        identity = (status.st_dev, status.st_ino)
        if not stat.S_ISDIR(status.st_mode):
            self._add_file(name, walk)
        elif identity in walk.folders:
            walk.same_folders.append(f"{name} is {walk.folders[identity].rstrip('/')}")
        else:
            self._below(f"{name}/", walk)

    def _add_file(self, name: str, walk: _Walk) -> None:
        status = os.stat(self.path / name)
        identity = (status.st_dev, status.st_ino)
        if os.path.islink(self.path / name) and identity in walk.files:
            walk.same_files.append(f"{name} is {walk.files[identity]}")
            return
        walk.files.setdefault(identity, name)
        kind = "file" if stat.S_ISREG(status.st_mode) else "no regular file"
        walk.members.add(name, kind, status.st_size)

    def read(self, wanted: Iterable[str]) -> Iterator[tuple[str, bytes]]:
        """Yields (name, content) of the wanted files, by their names."""
        for name in sorted(wanted, key=bytewise):
            if name in self.broken:
                raise InvalidInput(f"{self.path}: '{name}' {self.broken[name]}")
            with damaged(self.path, name):
                content = read_bytes(self.path / name, limit=LARGEST_MEMBER)
            yield name, content

    def sha256(self) -> str:
        """Hashes the names and the hashes of the files; a broken link has the hash of nothing."""
        whole = hashlib.sha256()
        for name in self.names:
            content = b"" if name in self.broken else next(iter(self.read([name])))[1]
            whole.update(bytewise(name) + b"\0" + hashlib.sha256(content).digest())
        return whole.hexdigest()


def _unreadable(error: OSError) -> None:
    raise MissingEnvironment(
        f"the folder {error.filename} cannot be read: {error.strerror}",
        remedy="give yourself the permission, or leave the folder out",
    )


def _notes(walk: _Walk) -> list[str]:
    """Composes notes on the names that are left out because others mean the same."""
    notes = []
    if walk.same_folders:
        notes.append(f"two names for one folder, counted once: {_some(walk.same_folders)}")
    if walk.same_files:
        folders = Counter(name.split(" is ")[0].rpartition("/")[0] for name in walk.same_files)
        places = _some([f"{folder or 'the source'} ({n:,})" for folder, n in folders.items()])
        notes.append(
            f"{len(walk.same_files):,} links to files that have another name here, counted once: "
            f"{places}; such as {walk.same_files[0]}"
        )
    return notes


def _some(texts: list[str]) -> str:
    more = f" and {len(texts) - SHOWN:,} more" if len(texts) > SHOWN else ""
    return ", ".join(texts[:SHOWN]) + more
