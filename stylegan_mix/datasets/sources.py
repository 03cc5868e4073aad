"""Sources: the class and shape of each image, and a way to get its pixels.

`M` training images held, `T` test images, `H W` pixels, `C` channels.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from stylegan_mix.datasets import cifar, layouts, official
from stylegan_mix.datasets.archives import Archive, open_tar_bytes
from stylegan_mix.datasets.image_files import BadImage, Header, Shape, decode, inspect
from stylegan_mix.datasets.layouts import Entry, Listing
from stylegan_mix.errors import InvalidInput, UsageFailure
from stylegan_mix.reading import read_bytes
from stylegan_mix.session import Session

__all__ = ["Content", "Request", "bad_images", "read_source"]

SHOWN_BAD = 200
LARGEST_OFFICIAL = 512 << 20


@dataclass(frozen=True)
class Request:
    """A preparation: `source` (a folder, tar or zip) as data set `name`, and its options.

    `index`, or `train_list` with or without `test_list`, assign files to classes; without them the
    folders do. `size` and `fit` bring all images to squares; None keeps them. `flip`: a mirrored
    image keeps its label. `on_bad_image` is "error" or "skip".
    """

    name: str
    source: Path
    index: Path | None = None
    train_list: Path | None = None
    test_list: Path | None = None
    size: int | None = None
    fit: str | None = None
    channels: int | None = None
    flip: bool = True
    on_bad_image: str = "error"
    allow_unknown_hash: bool = False


@dataclass(frozen=True, eq=False)
class Content:
    """A source whose labels and shapes are known; its pixels are not yet read.

    `fill(images, test_images)` writes both parts and returns the files that could not be read.
    """

    kind: str
    classes: tuple[str, ...]
    listed: np.ndarray
    position: np.ndarray
    labels: np.ndarray
    test_labels: np.ndarray
    shape: tuple[int, int, int]
    fill: Callable[[np.ndarray, np.ndarray], dict[str, str]]
    notes: tuple[str, ...] = ()
    skipped: dict[str, str] = field(default_factory=dict)


def read_source(
    request: Request, archive: Archive, skipped: dict[str, str], session: Session
) -> Content:
    """Reads labels and shapes of a source, without the files that were found to be bad."""
    if cifar.is_official_layout(archive.names):
        return _official(request, archive)
    if request.index is not None:
        listing = layouts.from_index(archive, request.index)
    elif request.train_list is not None:
        listing = layouts.from_lists(archive, request.train_list, request.test_list)
    else:
        listing = layouts.image_folder(archive)
    return _image_files(request, archive, _without(listing, skipped), skipped, session)


def _official(request: Request, archive: Archive) -> Content:
    if request.index or request.train_list or request.size or request.channels:
        raise UsageFailure(
            "an official CIFAR archive knows its order and shape: leave --index, --train-list, "
            "--size and --channels out"
        )
    if archive.path.is_dir():
        _refuse_unknown(request, "a folder and not the published archive")
        batches = cifar.read_batches(archive)
    else:
        # Parsed are the same bytes that were hashed.
        try:
            content = read_bytes(archive.path, limit=LARGEST_OFFICIAL)
        except OSError as error:
            raise InvalidInput(
                f"{archive.path} is no official CIFAR archive: {error.strerror}"
            ) from error
        if official.known_by_hash(content) is None:
            _refuse_unknown(request, "not the published file: its hash is another")
        with open_tar_bytes(archive.path, content) as opened:
            batches = cifar.read_batches(opened)
    count = len(batches.labels)

    def fill(images: np.ndarray, test_images: np.ndarray) -> dict[str, str]:
        images[...] = batches.images
        test_images[...] = batches.test_images
        return {}

    return Content(
        kind="official archive",
        classes=batches.classes,
        listed=batches.labels,
        position=np.arange(count),
        labels=batches.labels,
        test_labels=batches.test_labels,
        shape=batches.images.shape[1:],
        fill=fill,
    )


def _refuse_unknown(request: Request, why: str) -> None:
    if request.allow_unknown_hash:
        return
    known = [
        f"{one.file} (SHA-256 {one.sha256[:16]}..., MD5 {one.md5})"
        for named in official.SETS.values()
        for one in named.archives
    ]
    raise InvalidInput(
        f"{request.source} looks like an official CIFAR archive and is {why}. "
        f"Published are {'; '.join(known)}",
        remedy="get the published file, or trust this one with --allow-unknown-hash",
    )


def _without(listing: Listing, skipped: dict[str, str]) -> Listing:
    """Removes files from a listing: in an official order they are absent, else never there."""
    if not skipped:
        return listing
    train = [entry for entry in listing.train if entry.name not in skipped]
    test = tuple(entry for entry in listing.test if entry.name not in skipped)
    listed = listing.listed
    if not listing.official:
        listed = listed[[entry.position for entry in train]]
        train = [Entry(place, one.label, one.name) for place, one in enumerate(train)]
    notes = (*listing.notes, f"{len(skipped):,} images that cannot be used were left out")
    return Listing(listing.classes, tuple(train), test, listed, listing.official, notes)


def _image_files(
    request: Request,
    archive: Archive,
    listing: Listing,
    skipped: dict[str, str],
    session: Session,
) -> Content:
    names = [entry.name for entry in (*listing.train, *listing.test)]
    headers, bad = _headers(archive, names, session)
    shape = _shape(request, archive, headers)
    side = shape.size or next(iter(headers.values())).width

    def fill(images: np.ndarray, test_images: np.ndarray) -> dict[str, str]:
        place = {entry.name: (images, row) for row, entry in enumerate(listing.train)}
        place |= {entry.name: (test_images, row) for row, entry in enumerate(listing.test)}
        sound = [name for name in names if name not in bad]
        return bad | _decoded(archive, sound, place, shape, session)

    return Content(
        kind="index" if request.index else "lists" if request.train_list else "image folder",
        classes=listing.classes,
        listed=listing.listed,
        position=np.array([entry.position for entry in listing.train], np.int64),
        labels=np.array([entry.label for entry in listing.train], np.int64),
        test_labels=np.array([entry.label for entry in listing.test], np.int64),
        shape=(side, side, shape.channels),
        fill=fill,
        notes=listing.notes,
        skipped=skipped,
    )


def _headers(
    archive: Archive, names: Sequence[str], session: Session
) -> tuple[dict[str, Header], dict[str, str]]:
    """Reads the header of every image, and the reason for each file that has none."""
    headers, bad = {}, {}
    progress = session.track(len(names), "images", "checking")
    for count, (name, content) in enumerate(archive.read(names), 1):
        try:
            headers[name] = inspect(content)
        except BadImage as error:
            bad[name] = str(error)
        progress.update(count)
        session.go_on(f"{archive.path} was being read")
    progress.close()
    if not headers:
        raise bad_images(archive, bad)
    return headers, bad


def _decoded(
    archive: Archive,
    names: Sequence[str],
    place: dict[str, tuple[np.ndarray, int]],
    shape: Shape,
    session: Session,
) -> dict[str, str]:
    bad = {}
    progress = session.track(len(names), "images", "decoding")
    for count, (name, content) in enumerate(archive.read(names), 1):
        images, row = place[name]
        try:
            found = decode(content, shape)
            if found.shape != images.shape[1:]:
                raise BadImage("is turned by EXIF data that stand behind its pixels")
            images[row] = found
        except BadImage as error:
            bad[name] = str(error)
        progress.update(count)
        session.go_on(f"{archive.path} was being read")
    progress.close()
    return bad


def _shape(request: Request, archive: Archive, headers: dict[str, Header]) -> Shape:
    """Chooses the shape of all images: the requested one, or the one they have."""
    if request.size is None:
        sizes = sorted({(one.width, one.height) for one in headers.values()})
        if len(sizes) > 1 or sizes[0][0] != sizes[0][1]:
            widths, heights = [w for w, _ in sizes], [h for _, h in sizes]
            found = (
                f"have {len(sizes):,} sizes, {min(widths)} to {max(widths)} wide and "
                f"{min(heights)} to {max(heights)} high"
                if len(sizes) > 1
                else f"are {widths[0]} by {heights[0]} pixels"
            )
            raise InvalidInput(
                f"the images of {archive.path} {found}; square ones of one size are needed",
                remedy="choose one, such as --size 64 --fit pad (or crop, or stretch)",
            )
    channels = request.channels
    if channels is None:
        alpha = {one.alpha for one in headers.values()}
        if len(alpha) > 1:
            raise InvalidInput(
                f"some images of {archive.path} have alpha and some have not",
                remedy="choose --channels 3 (alpha over white) or --channels 4",
            )
        channels = 4 if alpha == {True} else 3 if any(h.colour for h in headers.values()) else 1
    return Shape(request.size, request.fit or "crop", channels)


def bad_images(archive: Archive, bad: dict[str, str]) -> InvalidInput:
    lines = [f"  '{name}' {why}" for name, why in sorted(bad.items())]
    if len(lines) > SHOWN_BAD:
        lines = [*lines[:SHOWN_BAD], f"  and {len(bad) - SHOWN_BAD:,} more"]
    return InvalidInput(
        "\n".join([f"{archive.path}: {len(bad):,} images cannot be used:", *lines]),
        remedy="repair or remove them, or leave them out with --on-bad-image skip",
    )
