"""The names of an archive and its limits: only regular files are admitted, each once.

An archive comes from elsewhere and is not trusted. Names stay inside it; number and size of files
are limited.
"""

from __future__ import annotations

import gzip
import tarfile
import zipfile
import zlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Protocol

from stylegan_mix.errors import InvalidInput
from stylegan_mix.showing import is_plain, one_line

__all__ = [
    "DEEPEST",
    "HARMLESS",
    "LARGEST_MEMBER",
    "LARGEST_RATIO",
    "LARGEST_WHOLE",
    "MOST_MEMBERS",
    "Archive",
    "Members",
    "bytewise",
    "damaged",
    "is_hidden",
]

MOST_MEMBERS = 1_000_000
# Folders and files without content: they take a reader's time and memory, and no room.
MOST_EMPTY = 100_000
LARGEST_MEMBER = 256 << 20
LARGEST_WHOLE = 1 << 40
LARGEST_RATIO = 200
DEEPEST = 100
# Below this size nothing can be a zip bomb, at any ratio: one grey pixel compresses well.
HARMLESS = 16 << 20

# Of macOS in zips, of network drives, of Windows and of Linux at the top of a disk.
_OF_SYSTEMS = frozenset(
    ("__MACOSX", "@eaDir", "#recycle", "$RECYCLE.BIN", "System Volume Information", "lost+found")
)

DAMAGED = (
    tarfile.TarError,
    zipfile.BadZipFile,
    gzip.BadGzipFile,
    zlib.error,
    EOFError,
    NotImplementedError,
    RuntimeError,
    ValueError,
    OSError,
)


class Archive(Protocol):
    """Named files. `names` are relative, with `/`; `folders` are named or implied by them."""

    @property
    def path(self) -> Path: ...

    @property
    def names(self) -> Sequence[str]: ...

    @property
    def folders(self) -> frozenset[str]: ...

    @property
    def broken(self) -> Mapping[str, str]:
        """The names among `names` that lead to nothing, with the reason; `read` refuses them."""
        ...

    @property
    def notes(self) -> Sequence[str]:
        """Messages for the user, such as on links."""
        ...

    def read(self, wanted: Iterable[str]) -> Iterator[tuple[str, bytes]]:
        """Yields (name, content) of the wanted files, in the order that is quickest to read."""
        ...

    def sha256(self) -> str:
        """Hashes the archive file; or, of a folder, its names and the hashes of its files."""
        ...


def bytewise(name: str) -> bytes:
    """Makes the key that sorts names by their UTF-8 bytes, on every system and in every locale."""
    return name.encode("utf-8", "surrogatepass")


def is_hidden(name: str) -> bool:
    """Tells if a file or folder is one that systems hide, or make for themselves."""
    return any(part.startswith(".") or part in _OF_SYSTEMS for part in name.split("/"))


@contextmanager
def damaged(path: Path, name: str | None = None) -> Iterator[None]:
    """Turns the archive modules' exceptions on bad content into an error that names it."""
    try:
        yield
    except DAMAGED as error:
        where = path if name is None else f"{path}: '{name}'"
        raise InvalidInput(f"{where} is damaged, or no folder, tar, tar.gz or zip: {error}") from (
            error
        )


class Members:
    """The names of an archive. Anything else than regular files and folders is refused."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._whole = 0
        self._seen = 0
        self._empty = 0
        self.files: dict[str, int] = {}
        self.folders: set[str] = set()

    def add(self, name: str, kind: str, size: int) -> str | None:
        """Admits one member ("file", "folder" or another kind) -> its plain name if a file."""
        self._seen += 1
        if self._seen >= MOST_MEMBERS:
            raise InvalidInput(f"{self._path} has {MOST_MEMBERS:,} members or more: refused")
        plain = self._plain(name)
        if kind == "folder":
            self._empty += 1
            self._imply(f"{plain}/" if plain else "")
            self._check_empty()
            return None
        if kind != "file":
            remedy = "pack the files themselves: tar --dereference" if kind == "a link" else None
            self.refuse(name, f"is {kind}; only regular files are read", remedy)
        if not plain:
            self.refuse(name, "has no name")
        if plain in self.files:
            self.refuse(name, "stands in it twice")
        if size > LARGEST_MEMBER:
            self.refuse(name, f"has {size:,} bytes; at most {LARGEST_MEMBER:,} are read")
        self._whole += size
        if self._whole > LARGEST_WHOLE:
            raise InvalidInput(f"{self._path} unpacks to more than {LARGEST_WHOLE:,} bytes")
        self._empty += not size
        self._check_empty()
        self.files[plain] = size
        self._imply(plain)
        return plain

    def _check_empty(self) -> None:
        if self._empty > MOST_EMPTY:
            raise InvalidInput(
                f"{self._path} has more than {MOST_EMPTY:,} empty members: it is no set of images"
            )

    def refuse(self, name: str, why: str, remedy: str | None = None) -> None:
        """Raises `InvalidInput` that names a member."""
        raise InvalidInput(f"{self._path}: '{name}' {why}", remedy=remedy)

    def _plain(self, name: str) -> str:
        parts = [part for part in name.split("/") if part not in ("", ".")]
        if name.startswith(("/", "\\")) or ".." in parts or name[1:2] == ":" or "\\" in name:
            self.refuse(name, "leads out of the archive, or has a name that could")
        try:
            name.encode("utf-8")
        except UnicodeEncodeError:
            self.refuse(
                ascii(name), "has a name that is not UTF-8", "say its encoding: --names-encoding"
            )
        if not is_plain(name):
            self.refuse(one_line(name), "has control characters in it")
        if len(parts) > DEEPEST:
            self.refuse(f"{name[:80]}...", f"lies more than {DEEPEST} folders deep")
        return "/".join(parts)

    def _imply(self, name: str) -> None:
        for end, letter in enumerate(name):
            if letter == "/":
                self.folders.add(name[:end])
