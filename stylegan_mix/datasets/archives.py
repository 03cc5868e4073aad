"""Files by name, from a folder, a tar or a zip, without extracting anything to the disk.

An archive comes from elsewhere and is not trusted. Only regular files are admitted, each once,
under names that stay inside the archive; their number, size and compression ratio are limited.
"""

from __future__ import annotations

import gzip
import hashlib
import io
import os
import stat
import tarfile
import zipfile
import zlib
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any, Protocol

from stylegan_mix import store
from stylegan_mix.errors import InvalidInput

__all__ = ["Archive", "bytewise", "is_hidden", "open_archive", "open_tar_bytes"]

MOST_MEMBERS = 1_000_000
LARGEST_MEMBER = 256 << 20
LARGEST_WHOLE = 1 << 40
LARGEST_RATIO = 200
DEEPEST = 100
# Below this size nothing can be a zip bomb, at any ratio: one grey pixel compresses well.
HARMLESS = 16 << 20

_DAMAGED = (
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

    def read(self, wanted: Iterable[str]) -> Iterator[tuple[str, bytes]]:
        """Yields (name, content) of the wanted files, in the order that is quickest to read."""
        ...

    def sha256(self) -> str:
        """Hashes the archive file; or, of a folder, its names and the hashes of its files."""
        ...


def bytewise(name: str) -> bytes:
    """Makes the key that sorts names by their UTF-8 bytes, on every system and in every locale."""
    return name.encode("utf-8", "surrogateescape")


def is_hidden(name: str) -> bool:
    """Tells if a file or folder is one that systems hide, or that macOS adds to zips."""
    return any(part.startswith(".") or part == "__MACOSX" for part in name.split("/"))


@contextmanager
def open_archive(path: Path) -> Iterator[Archive]:
    """Opens a folder, `.tar`, `.tar.gz`, `.tgz` or `.zip`, by its content and not its name.

    Raises `InvalidInput` (exit code 3), naming the member, for anything that is not admitted.
    """
    if path.is_dir():
        yield _Folder(path)
        return
    if not path.is_file():
        raise InvalidInput(f"{path} is missing, or neither a file nor a folder")
    with _damage(path):
        opened = path.open("rb")
    with opened as file:
        start = file.read(265)
        file.seek(0)
        if start[:4] in (b"PK\x03\x04", b"PK\x05\x06"):
            with _damage(path):
                found = _Zip(path, zipfile.ZipFile(file))
            yield found
        else:
            with _open_tar(path, file, path.stat().st_size) as tar:
                yield tar


@contextmanager
def open_tar_bytes(path: Path, content: bytes) -> Iterator[Archive]:
    """Opens a tar whose bytes are in memory, so that the parsed bytes are the hashed ones."""
    with _open_tar(path, io.BytesIO(content), len(content)) as found:
        yield found


@contextmanager
def _open_tar(path: Path, file: IO[bytes], size: int) -> Iterator[Archive]:
    packed = file.read(2) == b"\x1f\x8b"
    file.seek(0)
    limit = max(LARGEST_RATIO * size, HARMLESS)
    inner: Any = _Limited(gzip.GzipFile(fileobj=file), limit, path) if packed else file
    with _damage(path):
        opened = tarfile.open(fileobj=inner, mode="r:")  # noqa: SIM115  (closed below)
        found = _Tar(path, opened)
        _check_end(opened, inner)
    try:
        yield found
    finally:
        opened.close()


def _check_end(opened: tarfile.TarFile, file: Any) -> None:
    """Raises if a listing did not end at a block of zeros: tarfile does not report damage there."""
    if isinstance(file, _Limited):  # seeking back would unpack it all again
        last = file.last
    else:
        file.seek(opened.offset)
        last = file.read(tarfile.BLOCKSIZE)
    if last != bytes(tarfile.BLOCKSIZE):
        raise ValueError(f"no end mark where the members end, at byte {opened.offset:,}")


@contextmanager
def _damage(path: Path, name: str | None = None) -> Iterator[None]:
    """Turns the archive modules' exceptions on bad content into an error that names it."""
    try:
        yield
    except _DAMAGED as error:
        where = path if name is None else f"{path}: '{name}'"
        raise InvalidInput(f"{where} is damaged, or no folder, tar, tar.gz or zip: {error}") from (
            error
        )


class _Limited(io.RawIOBase):
    """A decompressed stream that raises beyond `limit` bytes."""

    def __init__(self, inner: gzip.GzipFile, limit: int, path: Path) -> None:
        super().__init__()
        self._inner, self._limit, self._path = inner, limit, path
        self.last = b""

    def _check(self, position: int) -> None:
        if position > self._limit:
            raise InvalidInput(
                f"{self._path} unpacks to more than {LARGEST_RATIO} times its size: refused"
            )

    def read(self, size: int = -1) -> bytes:
        wanted = self._limit + 1 - self._inner.tell() if size < 0 else size
        content = self._inner.read(max(wanted, 0))
        self._check(self._inner.tell())
        self.last = content
        return content

    def seek(self, offset: int, whence: int = 0) -> int:
        self._check(offset if whence == 0 else self._inner.tell() + offset)
        return self._inner.seek(offset, whence)

    def tell(self) -> int:
        return self._inner.tell()

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True


class _Listing:
    """The names of an archive; anything else than regular files and folders is refused."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._whole = 0
        self._seen = 0
        self.files: dict[str, int] = {}
        self.folders: set[str] = set()

    def add(self, name: str, kind: str, size: int) -> str | None:
        """Admits one member ("file", "folder" or another kind) -> its plain name if a file."""
        self._seen += 1
        if self._seen >= MOST_MEMBERS:
            raise InvalidInput(f"{self._path} has {MOST_MEMBERS:,} members or more: refused")
        plain = self._plain(name)
        if kind == "folder":
            self._imply(f"{plain}/" if plain else "")
            return None
        if kind != "file":
            self.refuse(name, f"is {kind}; only regular files are read")
        if not plain:
            self.refuse(name, "has no name")
        if plain in self.files:
            self.refuse(name, "stands in it twice")
        if size > LARGEST_MEMBER:
            self.refuse(name, f"has {size:,} bytes; at most {LARGEST_MEMBER:,} are read")
        self._whole += size
        if self._whole > LARGEST_WHOLE:
            raise InvalidInput(f"{self._path} unpacks to more than {LARGEST_WHOLE:,} bytes")
        self.files[plain] = size
        self._imply(plain)
        return plain

    def refuse(self, name: str, why: str) -> None:
        raise InvalidInput(f"{self._path}: '{name}' {why}")

    def _plain(self, name: str) -> str:
        parts = [part for part in name.split("/") if part not in ("", ".")]
        if name.startswith(("/", "\\")) or ".." in parts or name[1:2] == ":" or "\\" in name:
            self.refuse(name, "leads out of the archive, or has a name that could")
        if any(ord(letter) < 32 for letter in name):
            self.refuse(name.encode("unicode_escape").decode(), "has control characters in it")
        try:
            name.encode("utf-8")
        except UnicodeEncodeError:
            self.refuse(ascii(name), "has a name that is not UTF-8")
        if len(parts) > DEEPEST:
            self.refuse(f"{name[:80]}...", f"lies more than {DEEPEST} folders deep")
        return "/".join(parts)

    def _imply(self, name: str) -> None:
        for end, letter in enumerate(name):
            if letter == "/":
                self.folders.add(name[:end])


class _Folder:
    def __init__(self, path: Path) -> None:
        self.path = path
        listing = _Listing(path)
        seen: set[tuple[int, int]] = set()
        for folder, inner, files in os.walk(path, followlinks=True):
            status = os.stat(folder)
            identity = (status.st_dev, status.st_ino)
            if identity in seen:  # a link that leads back
                inner.clear()
                continue
            seen.add(identity)
            inner.sort()
            relative = Path(folder).relative_to(path).as_posix()
            start = "" if relative == "." else f"{relative}/"
            listing.add(start or ".", "folder", 0)
            for name in sorted(files):
                try:
                    status = os.stat(os.path.join(folder, name))
                except OSError:
                    listing.refuse(start + name, "is a link to nothing")
                kind = "file" if stat.S_ISREG(status.st_mode) else "no regular file"
                listing.add(start + name, kind, status.st_size)
        self.names = sorted(listing.files, key=bytewise)
        self.folders = frozenset(listing.folders)

    def read(self, wanted: Iterable[str]) -> Iterator[tuple[str, bytes]]:
        for name in sorted(wanted, key=bytewise):
            with _damage(self.path, name):
                content = (self.path / name).read_bytes()
            yield name, content

    def sha256(self) -> str:
        whole = hashlib.sha256()
        for name, content in self.read(self.names):
            whole.update(bytewise(name) + b"\0" + hashlib.sha256(content).digest())
        return whole.hexdigest()


class _Tar:
    def __init__(self, path: Path, opened: tarfile.TarFile) -> None:
        self.path = path
        self._opened = opened
        listing = _Listing(path)
        self._members: dict[str, tarfile.TarInfo] = {}
        for member in opened:
            kind = (
                "file"
                if member.isreg() and not member.issparse()
                else "folder"
                if member.isdir()
                else "a link"
                if member.issym() or member.islnk()
                else "a device or special file"
            )
            name = listing.add(member.name, kind, member.size)
            if name is not None:
                self._members[name] = member
        self.names = sorted(listing.files, key=bytewise)
        self.folders = frozenset(listing.folders)

    def read(self, wanted: Iterable[str]) -> Iterator[tuple[str, bytes]]:
        # In the order of the file: seeking back would unpack a tar.gz from its start.
        for name in sorted(wanted, key=lambda one: self._members[one].offset_data):
            member = self._members[name]
            with _damage(self.path, name):
                file = self._opened.extractfile(member)
                content = b"" if file is None else file.read(member.size)
                if len(content) != member.size:
                    raise ValueError("it ends too early")
            yield name, content

    def sha256(self) -> str:
        return store.sha256_file(self.path)


class _Zip:
    def __init__(self, path: Path, opened: zipfile.ZipFile) -> None:
        self.path = path
        self._opened = opened
        listing = _Listing(path)
        self._members: dict[str, zipfile.ZipInfo] = {}
        for member in opened.infolist():
            name = listing.add(member.filename, _zip_kind(member), member.file_size)
            if name is None:
                continue
            if member.file_size > max(LARGEST_RATIO * member.compress_size, HARMLESS):
                listing.refuse(name, f"unpacks to more than {LARGEST_RATIO} times its size")
            self._members[name] = member
        self._refuse_overlaps(listing)
        self.names = sorted(listing.files, key=bytewise)
        self.folders = frozenset(listing.folders)

    def _refuse_overlaps(self, listing: _Listing) -> None:
        end = 0
        for member in sorted(self._members.values(), key=lambda one: one.header_offset):
            if member.header_offset < end:
                listing.refuse(member.filename, "lies over another member")
            end = member.header_offset + member.compress_size
        whole = sum(member.file_size for member in self._members.values())
        if whole > max(LARGEST_RATIO * end, HARMLESS):
            raise InvalidInput(f"{self.path} unpacks to more than {LARGEST_RATIO} times its size")

    def read(self, wanted: Iterable[str]) -> Iterator[tuple[str, bytes]]:
        for name in sorted(wanted, key=lambda one: self._members[one].header_offset):
            with _damage(self.path, name):
                content = self._opened.read(self._members[name])
            yield name, content

    def sha256(self) -> str:
        return store.sha256_file(self.path)


def _zip_kind(member: zipfile.ZipInfo) -> str:
    if member.is_dir():
        return "folder"
    if member.flag_bits & 1:
        return "encrypted"
    mode = member.external_attr >> 16
    if stat.S_IFMT(mode) not in (0, stat.S_IFREG):
        return "a link or special file"
    return "file"
