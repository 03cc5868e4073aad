"""Files by name, from a folder, a tar or a zip, without extracting anything to the disk.

An archive comes from elsewhere and is not trusted (`members`); its compression ratio is limited.
"""

from __future__ import annotations

import codecs
import difflib
import gzip
import io
import os
import stat
import tarfile
import zipfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

from stylegan_mix import store
from stylegan_mix.datasets.disk_folder import DiskFolder
from stylegan_mix.datasets.members import (
    HARMLESS,
    LARGEST_RATIO,
    MOST_MEMBERS,
    Archive,
    Members,
    bytewise,
    damaged,
    is_hidden,
)
from stylegan_mix.errors import InvalidInput, UsageFailure
from stylegan_mix.reading import open_regular
from stylegan_mix.session import Session
from stylegan_mix.zips import open_zip

__all__ = ["Archive", "bytewise", "is_hidden", "nearest_path", "open_archive", "open_tar_bytes"]

_ZIP_UTF8 = 0x800
_ZIP_STANDARD = "cp437"
MOST_NAMES = 1000


def nearest_path(path: Path) -> str:
    """Ends an error about a missing path: the nearest name there, or the nearest folder there is.

    The names are those of the innermost folder around the path that exists.
    """
    around = path.absolute().parent
    missing = path.name
    while not around.is_dir() and around != around.parent:
        around, missing = around.parent, around.name
    try:
        there = sorted(one.name for one in around.iterdir())[:MOST_NAMES]
    except OSError:
        there = []
    shown = os.path.relpath(around) if not path.is_absolute() else str(around)
    close = difflib.get_close_matches(missing, there, n=1)
    if close:
        return f"; did you mean {os.path.join('' if shown == '.' else shown, close[0])}?"
    return f"; {'this folder' if shown == '.' else shown} is there, without '{missing}' in it"


@contextmanager
def open_archive(
    path: Path, names_encoding: str | None = None, session: Session = Session()
) -> Iterator[Archive]:
    """Opens a folder, `.tar`, `.tar.gz`, `.tgz` or `.zip`, by its content and not its name.

    `names_encoding` is that of the names in a zip or tar that are not marked as UTF-8. Raises
    `InvalidInput` (exit code 3), naming the member, for anything that is not admitted, and
    `UsageFailure` (2) for an encoding that is none.
    """
    _check_encoding(path, names_encoding)
    if path.is_dir():
        yield DiskFolder(path)
        return
    if not path.is_file():
        raise InvalidInput(
            f"{path} is missing, or neither a file nor a folder{nearest_path(path)}",
            remedy="expected a folder, tar, tar.gz or zip of images",
        )
    with damaged(path):
        stream = open_regular(path)
    with stream as file:
        start = file.read(265)
        file.seek(0)
        if start[:4] in (b"PK\x03\x04", b"PK\x05\x06"):
            with damaged(path):
                opened = open_zip(file, most=MOST_MEMBERS)
                encoding, notes = _zip_encoding(path, opened, names_encoding)
                if encoding is not None:
                    opened = open_zip(file, most=MOST_MEMBERS, names_encoding=encoding)
                found = _Zip(path, opened, notes)
            yield found
        else:
            size = path.stat().st_size
            with _open_tar(path, file, size, names_encoding, session) as tar:
                yield tar


def _check_encoding(path: Path, names_encoding: str | None) -> None:
    if names_encoding is None:
        return
    try:
        codecs.lookup(names_encoding)
    except LookupError:
        raise UsageFailure(
            f"--names-encoding {names_encoding}: no such encoding",
            remedy="such as cp932 (Japanese), gbk (Chinese), cp866 (Russian), cp437, latin-1",
        ) from None
    if path.is_dir():
        raise UsageFailure("--names-encoding is for names in a zip or tar, and this is a folder")


def _zip_encoding(
    path: Path, opened: zipfile.ZipFile, asked: str | None
) -> tuple[str | None, list[str]]:
    """Chooses the encoding of names that are not marked as UTF-8 -> it, and notes.

    Without a request they are read as UTF-8, which many programs write without the mark. Folders
    in another encoding are refused, for they are classes; for files the standard's is taken.
    """
    odd = [
        member.orig_filename
        for member in opened.infolist()
        if not member.flag_bits & _ZIP_UTF8 and not member.orig_filename.isascii()
    ]
    if asked is not None or not odd:
        return asked, []
    try:
        for name in odd:
            name.encode(_ZIP_STANDARD).decode("utf-8")
    except UnicodeError:
        folders = [name for name in odd if not name.rpartition("/")[0].isascii()]
        if folders:
            raise InvalidInput(
                f"{path}: the names of folders are in an unknown encoding, such as "
                f"{folders[0]!a} if it is {_ZIP_STANDARD}",
                remedy="say it: --names-encoding cp932 (Japanese), gbk (Chinese), cp866 (Russian) "
                f"or {_ZIP_STANDARD}",
            ) from None
        return None, [f"{len(odd):,} file names of {path.name} were read as {_ZIP_STANDARD}"]
    return "utf-8", []


@contextmanager
def open_tar_bytes(path: Path, content: bytes) -> Iterator[Archive]:
    """Opens a tar whose bytes are in memory, so that the parsed bytes are the hashed ones."""
    with _open_tar(path, io.BytesIO(content), len(content)) as found:
        yield found


@contextmanager
def _open_tar(
    path: Path,
    file: IO[bytes],
    size: int,
    names_encoding: str | None = None,
    session: Session = Session(),
) -> Iterator[Archive]:
    packed = file.read(2) == b"\x1f\x8b"
    file.seek(0)
    limit = max(LARGEST_RATIO * size, HARMLESS)
    inner: Any = _Limited(gzip.GzipFile(fileobj=file), limit, path) if packed else file
    with damaged(path):
        opened = tarfile.open(  # noqa: SIM115  (closed below)
            fileobj=inner, mode="r:", encoding=names_encoding or "utf-8"
        )
        track = session.track(size, "bytes", f"the members of {path.name}")
        found = _Tar(path, opened, lambda: track.update(file.tell()))
        track.close()
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


class _Tar:
    broken: Mapping[str, str] = {}
    notes: Sequence[str] = ()

    def __init__(self, path: Path, opened: tarfile.TarFile, told: Callable[[], None]) -> None:
        self.path = path
        self._opened = opened
        listing = Members(path)
        self._members: dict[str, tarfile.TarInfo] = {}
        source: Any = opened
        while (member := source.next()) is not None:
            told()
            source.members = []  # its own list of all members takes a gigabyte for a million
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
            with damaged(self.path, name):
                file = self._opened.extractfile(member)
                content = b"" if file is None else file.read(member.size)
                if len(content) != member.size:
                    raise ValueError("it ends too early")
            yield name, content

    def sha256(self) -> str:
        return store.sha256_file(self.path)


class _Zip:
    broken: Mapping[str, str] = {}

    def __init__(self, path: Path, opened: zipfile.ZipFile, notes: Sequence[str]) -> None:
        self.path = path
        self.notes = notes
        self._opened = opened
        listing = Members(path)
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

    def _refuse_overlaps(self, listing: Members) -> None:
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
            with damaged(self.path, name):
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
