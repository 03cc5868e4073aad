"""Sources: the class and shape of each image, and a way to get its pixels.

`M` training images held, `T` test images, `V` validation images, `H W` pixels, `C` channels.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from statistics import median

import numpy as np

from stylegan_mix.datasets import cifar, layouts, official
from stylegan_mix.datasets.archives import Archive, is_hidden, open_tar_bytes
from stylegan_mix.datasets.image_files import BadImage, Header, Shape, decode, inspect
from stylegan_mix.datasets.listing import Entry, Listing
from stylegan_mix.datasets.request import Request
from stylegan_mix.datasets.trained_sizes import TRAINED, nearest_size
from stylegan_mix.errors import InvalidInput, UsageFailure
from stylegan_mix.reading import read_bytes
from stylegan_mix.session import Session

__all__ = ["Content", "bad_images", "listed_content", "read_source", "without"]

SHOWN_BAD = 200
LARGEST_OFFICIAL = 512 << 20


@dataclass(frozen=True, eq=False)
class Content:
    """A source whose labels and shapes are known; its pixels are not yet read.

    `files` are the names of the images of each part, if they are files. `fill(parts)` writes the
    images of "train", "test" and, if there is one, "val", and returns the files that could not be
    read; `bad` are those that their headers show to be so. `val_labels` [V] is empty without a
    validation part.
    """

    kind: str
    classes: tuple[str, ...]
    listed: np.ndarray
    position: np.ndarray
    labels: np.ndarray
    test_labels: np.ndarray
    shape: tuple[int, int, int]
    fill: Callable[[Mapping[str, np.ndarray]], dict[str, str]]
    val_labels: np.ndarray = field(default_factory=lambda: np.empty(0, np.int64))
    notes: tuple[str, ...] = ()
    skipped: dict[str, str] = field(default_factory=dict)
    files: Mapping[str, Sequence[str]] = field(default_factory=dict)
    bad: Mapping[str, str] = field(default_factory=dict)

    @property
    def parts(self) -> tuple[str, ...]:
        """The parts that there are."""
        return ("train", "test", "val") if len(self.val_labels) else ("train", "test")


def read_source(
    request: Request, archive: Archive, skipped: dict[str, str], session: Session
) -> Content:
    """Reads labels and shapes of a source, without the files that were found to be bad."""
    if cifar.is_official_layout(archive.names):
        return _official(request, archive)
    kind, listing = layouts.recognise(archive, request)
    return _image_files(request, archive, kind, without(listing, skipped), skipped, session)


def _official(request: Request, archive: Archive) -> Content:
    said = (request.index, request.train_list, request.labels, request.folders, request.levels)
    if any(said) or request.size or request.channels:
        raise UsageFailure(
            "an official CIFAR archive knows its order and shape: leave --index, --train-list, "
            "--labels, --levels, the folders of parts, --size and --channels out"
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

    def fill(parts: Mapping[str, np.ndarray]) -> dict[str, str]:
        parts["train"][...] = batches.images
        parts["test"][...] = batches.test_images
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


def without(listing: Listing, skipped: dict[str, str]) -> Listing:
    """Removes files from a listing: in an official order they are absent, else never there."""
    if not skipped:
        return listing
    train, test, val = (
        tuple(entry for entry in part if entry.name not in skipped)
        for part in (listing.train, listing.test, listing.val)
    )
    listed = listing.listed
    if not listing.official:
        listed = listed[[entry.position for entry in train]]
        train = tuple(Entry(place, one.label, one.name) for place, one in enumerate(train))
    notes = (*listing.notes, f"{len(skipped):,} images that cannot be used were left out")
    return replace(listing, train=train, test=test, val=val, listed=listed, notes=notes)


def _image_files(
    request: Request,
    archive: Archive,
    kind: str,
    listing: Listing,
    skipped: dict[str, str],
    session: Session,
) -> Content:
    parts = {"train": listing.train, "test": listing.test, "val": listing.val}
    names = [entry.name for part in parts.values() for entry in part]
    headers, bad = _headers(request, archive, names, session)
    shape = _shape(request, archive, headers)
    side = shape.size or next(iter(headers.values())).width

    def fill(views: Mapping[str, np.ndarray]) -> dict[str, str]:
        place = {
            entry.name: (images, row)
            for part, images in views.items()
            for row, entry in enumerate(parts[part])
        }
        sound = [name for name in names if name not in bad]
        return bad | _decoded(archive, sound, place, shape, session)

    size = (side, side, shape.channels)
    return listed_content(kind, listing, size, fill=fill, skipped=skipped, bad=bad)


def listed_content(
    kind: str,
    listing: Listing,
    shape: tuple[int, int, int],
    *,
    fill: Callable[[Mapping[str, np.ndarray]], dict[str, str]],
    skipped: dict[str, str],
    bad: dict[str, str],
) -> Content:
    """Makes the content of a source whose images are listed; the arguments are its fields."""
    parts = {"train": listing.train, "test": listing.test, "val": listing.val}
    return Content(
        kind=kind,
        classes=listing.classes,
        listed=listing.listed,
        position=np.array([entry.position for entry in listing.train], np.int64),
        labels=_labels(listing.train),
        test_labels=_labels(listing.test),
        val_labels=_labels(listing.val),
        shape=shape,
        fill=fill,
        notes=listing.notes,
        skipped=skipped,
        files={part: [entry.name for entry in entries] for part, entries in parts.items()},
        bad=bad,
    )


def _labels(part: Sequence[Entry]) -> np.ndarray:
    return np.array([entry.label for entry in part], np.int64)


def _headers(
    request: Request, archive: Archive, names: Sequence[str], session: Session
) -> tuple[dict[str, Header], dict[str, str]]:
    """Reads the header of every image, and the reason for each file that has none.

    A link to nothing is such a file under any name: it may have been a folder of images.
    """
    headers = {}
    bad = {name: why for name, why in archive.broken.items() if not is_hidden(name)}
    sound = [name for name in names if name not in bad]
    progress = session.track(len(sound), "images", "checking")
    for count, (name, content) in enumerate(archive.read(sound), 1):
        try:
            headers[name] = inspect(content, convert=request.convert)
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
            size = nearest_size(median(min(one.width, one.height) for one in headers.values()))
            raise InvalidInput(
                f"the images of {archive.path} {found}; square ones of one size are needed",
                remedy=f"such as --size {size} --fit pad (or crop, or stretch); {TRAINED}",
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
    return Shape(request.size, request.fit or "crop", channels, request.convert)


def bad_images(archive: Archive, bad: dict[str, str]) -> InvalidInput:
    lines = [f"  '{name}' {why}" for name, why in sorted(bad.items())]
    if len(lines) > SHOWN_BAD:
        lines = [*lines[:SHOWN_BAD], f"  and {len(bad) - SHOWN_BAD:,} more"]
    return InvalidInput(
        "\n".join([f"{archive.path}: {len(bad):,} images cannot be used:", *lines]),
        remedy="repair or remove them, or leave them out with --on-bad-image skip",
    )
