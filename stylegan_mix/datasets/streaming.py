"""Preparation of a streamed set: every file is read and decoded once, and a table of them is kept.

So an image that cannot be read is found before a training begins. `S` is the side of the views.
"""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path

import numpy as np

from stylegan_mix import arrays
from stylegan_mix.arrays import Container, Writer
from stylegan_mix.datasets.archives import nearest_path
from stylegan_mix.datasets.composed_facts import check_set, composed_facts, label_arrays
from stylegan_mix.datasets.decoders import Pending, decoders
from stylegan_mix.datasets.disk_folder import DiskFolder
from stylegan_mix.datasets.image_files import BadImage, Shape, decode
from stylegan_mix.datasets.layouts import recognise
from stylegan_mix.datasets.listed_folder import ListedFolder, file_marks
from stylegan_mix.datasets.listing import Listing
from stylegan_mix.datasets.lists import listed_names
from stylegan_mix.datasets.members import LARGEST_MEMBER, Archive, bytewise, is_hidden
from stylegan_mix.datasets.pool import KIND, moments
from stylegan_mix.datasets.request import Request
from stylegan_mix.datasets.sources import Content, bad_images, listed_content, without
from stylegan_mix.datasets.streamed import file_hash
from stylegan_mix.errors import InvalidInput
from stylegan_mix.reading import read_bytes
from stylegan_mix.session import Session

__all__ = ["listed", "marks", "moved", "opened", "table_bytes", "write"]

VERSION = 1
# The side of the views of the protocols on ImageNet, and the way to them.
SIDE, FIT, CHANNELS = 224, "centre", 3
# Files that are read ahead of the one that is waited for.
_AHEAD = 256
# A table has labels, hashes, sums, sizes and ends of each file, beside its path.
_BYTES_A_FILE = 150


@contextmanager
def opened(request: Request) -> Iterator[Archive]:
    """Opens the folder of a request: the files that its lists name, or all."""
    root = request.source
    if not root.is_dir():
        raise InvalidInput(
            f"{root} is missing, or not a folder{nearest_path(root)}",
            remedy="expected a folder of images",
        )
    if request.train_list is not None:
        yield ListedFolder(root, listed_names(root, request.train_list, request.test_list))
    else:
        yield DiskFolder(root)


def marks(archive: Archive) -> str:
    """Computes a digest of names, sizes and times: a request of unchanged files is known by it."""
    assert isinstance(archive, ListedFolder | DiskFolder)
    return file_marks(archive)


def moved(present: Container, made: Container) -> bool:
    """Tells if the files of a set that is there lie in another folder by now."""
    before, now = (one.facts["source"].get("root") for one in (present, made))
    return bool(before != now)


def table_bytes(content: Content) -> int:
    """Estimates the bytes of the table of a set."""
    files = [name for names in content.files.values() for name in names]
    return sum(len(bytewise(name)) + _BYTES_A_FILE for name in files)


def listed(
    request: Request, archive: Archive, skipped: dict[str, str], session: Session
) -> Content:
    """Reads the labels of a source, without the files that were found to be bad; no image."""
    kind, listing = recognise(archive, request)
    return _content(request, archive, kind, listing, skipped)


def _content(
    request: Request, archive: Archive, kind: str, listing: Listing, skipped: dict[str, str]
) -> Content:
    view = _view(request)
    assert view.size is not None
    broken = {name: why for name, why in archive.broken.items() if not is_hidden(name)}
    return listed_content(
        kind,
        without(listing, skipped),
        (view.size, view.size, view.channels),
        fill=lambda views: {},  # a table holds no pixels
        skipped=skipped,
        bad={name: why for name, why in broken.items() if name not in skipped},
    )


def _view(request: Request) -> Shape:
    """Chooses the views at test: 224 pixels of the centre, in colour, unless asked for others."""
    return Shape(
        request.size or SIDE, request.fit or FIT, request.channels or CHANNELS, request.convert
    )


def write(
    request: Request, archive: Archive, key: str, folder: Path, session: Session
) -> Container:
    """Reads and decodes every file once, and writes the table of them into a container."""
    kind, listing = recognise(archive, request)
    everything = _content(request, archive, kind, listing, {})
    bad = dict(everything.bad)
    names = [name for part in everything.files.values() for name in part if name not in bad]
    found = _scanned(archive.path, names, _view(request), session)
    bad |= found.bad
    if bad and request.on_bad_image == "error":
        raise bad_images(archive, bad)
    content = _content(request, archive, kind, listing, bad) if bad else everything
    check_set(request, content)
    view = _view(request)
    asked = replace(request, size=view.size, fit=view.fit)
    writer = _table(folder, content, found)
    hashes = {part: writer.view(_named(part, "hashes")) for part in content.parts}
    root = {"root": str(archive.path.absolute())}
    facts = composed_facts(asked, content, hashes, source=root, key=key)
    writer.seal(KIND, {**facts, "streamed": True})
    return arrays.open_container(folder, kind=KIND, verify=False)


@dataclass(frozen=True, eq=False)
class _Scanned:
    """The facts of files, by their places in `place`; `bad` are those that cannot be used."""

    place: dict[str, int]
    hashes: np.ndarray  # [n, 32] uint8
    sizes: np.ndarray  # [n] int64
    sums: np.ndarray  # [n, 2, C] int64
    bad: dict[str, str]


@dataclass(frozen=True)
class _Scan:
    """The reading and decoding of one file, as work for a thread."""

    path: Path
    view: Shape

    def __call__(self) -> tuple[bytes, int, np.ndarray] | str:
        """Returns hash, size and sums [2, C] of a file, or the reason why it cannot be used."""
        try:
            content = read_bytes(self.path, limit=LARGEST_MEMBER)
        except OSError as error:
            return f"cannot be read: {error.strerror or error}"
        try:
            pixels = decode(content, self.view)
        except BadImage as error:
            return str(error)
        return file_hash(content, self.view), len(content), moments(pixels[None])[0]


def _scanned(root: Path, names: list[str], view: Shape, session: Session) -> _Scanned:
    """Reads and decodes all files by several threads; few of them are in memory at once."""
    count = len(names)
    found = _Scanned(
        {name: place for place, name in enumerate(names)},
        np.zeros((count, 32), np.uint8),
        np.zeros(count, np.int64),
        np.zeros((count, 2, view.channels), np.int64),
        {},
    )
    progress = session.track(count, "images", "reading and decoding")
    waiting: deque[Pending[tuple[bytes, int, np.ndarray] | str]] = deque()
    coming = iter(names)
    for done, name in enumerate(names):
        for one in islice(coming, _AHEAD - len(waiting)):
            waiting.append(decoders().give(_Scan(root / one, view), f"'{one}' in {root}"))
        result = decoders().result(waiting.popleft())
        if isinstance(result, str):
            found.bad[name] = result
        else:
            found.hashes[done] = np.frombuffer(result[0], np.uint8)
            found.sizes[done], found.sums[done] = result[1:]
        progress.update(done + 1)
        session.go_on(f"{root} was being read")
    progress.close()
    return found


def _named(part: str, array: str) -> str:
    return array if part == "train" else f"{part}_{array}"


def _table(folder: Path, content: Content, found: _Scanned) -> Writer:
    """Writes labels, and the names, sizes, hashes and sums of the files of each part."""
    paths = {
        part: [os.fsencode(name) for name in names]
        for part, names in content.files.items()
        if names
    }
    declared = label_arrays(content)
    for part, ones in paths.items():
        declared[_named(part, "names")] = ("u1", (sum(map(len, ones)),))
        declared[_named(part, "ends")] = ("i8", (len(ones),))
        declared[_named(part, "sizes")] = ("i8", (len(ones),))
    writer = Writer(folder, declared, attributes={"schema": KIND, "schema_version": VERSION})
    for name in ("labels", "position", "listed", "test_labels"):
        writer.view(name)[...] = getattr(content, name)
    if "val" in paths:
        writer.view("val_labels")[...] = content.val_labels
    for part, ones in paths.items():
        places = [found.place[name] for name in content.files[part]]
        writer.view(_named(part, "names"))[...] = np.frombuffer(b"".join(ones), np.uint8)
        writer.view(_named(part, "ends"))[...] = np.cumsum([len(one) for one in ones])
        writer.view(_named(part, "sizes"))[...] = found.sizes[places]
        writer.view(_named(part, "hashes"))[...] = found.hashes[places]
    writer.view("sums")[...] = found.sums[[found.place[name] for name in content.files["train"]]]
    return writer
