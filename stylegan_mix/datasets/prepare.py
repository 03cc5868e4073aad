"""`prepare`: decodes a source once into a pool in the store, from which every draw is taken.

Deciding (`open_source`: which image is what, of which shape) is apart from doing (`prepare`).
`M` training images held, `T` test images, `H W` pixels, `C` channels.
"""

from __future__ import annotations

import math
import os
import re
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import PIL

from stylegan_mix import arrays, store
from stylegan_mix.arrays import Container, Writer
from stylegan_mix.console import InvalidInput, Progress, UsageFailure
from stylegan_mix.datasets import cifar, layouts, official
from stylegan_mix.datasets.archives import Archive, open_archive, open_tar_bytes
from stylegan_mix.datasets.digits import NAME as DIGITS
from stylegan_mix.datasets.hashes import identity_of, image_hashes
from stylegan_mix.datasets.layouts import Entry, Listing
from stylegan_mix.datasets.pictures import CHANNELS, FITS, BadImage, Header, Shape, decode, inspect
from stylegan_mix.datasets.pool import KIND, moments, open_pool

__all__ = ["Prepared", "Request", "plan", "prepare", "verify"]

VERSION = 1
SHOWN_BAD = 200
KEPT_SKIPPED = 10_000
LARGEST_OFFICIAL = 512 << 20

_NAME = re.compile(r"[a-z0-9][a-z0-9_.-]{0,63}")


@dataclass(frozen=True)
class Request:
    """What to prepare: `source` (a folder, tar or zip) as data set `name`, and how.

    `index`, or `train_list` with or without `test_list`, say which file is what; without them
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


@dataclass(frozen=True)
class Prepared:
    """The outcome: where the set lies, whether it was there before, and what to know of it."""

    folder: Path
    existed: bool
    facts: dict[str, Any]


@dataclass(frozen=True, eq=False)
class _Content:
    """A source that is understood: labels and shapes are known, pixels are not yet read.

    `fill(images, test_images)` writes both parts and returns what could not be read.
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


def prepare(request: Request, *, replace: bool = False) -> Prepared:
    """Makes a prepared set of a source, or finds that it is there already.

    The same request finds the set that it made; another one that gives the same content, too.
    Different content under the same name is refused unless `replace`.
    Raises `UsageFailure` (exit code 2), `InvalidInput` (3) for a bad source, and
    `MissingEnvironment` (4) where disk space or permission is missing.
    """
    _check(request)
    final = store.home() / "datasets" / request.name
    with store.locked(final.with_name(f".{request.name}.lock")):
        present = _present(final)
        with open_archive(request.source) as archive:
            key = _request_key(request, archive)
            if present is not None and present.facts.get("request") == key:
                return Prepared(final, True, present.facts)
            temporary = final.with_name(f".{request.name}.{os.getpid()}")
            shutil.rmtree(temporary, ignore_errors=True)
            try:
                made = _write(request, archive, key, temporary)
                return _put(request, made, present, temporary, final, replace)
            finally:
                shutil.rmtree(temporary, ignore_errors=True)


def plan(request: Request) -> dict[str, Any]:
    """What `prepare` would make, from names and headers alone; nothing is written."""
    _check(request)
    with open_archive(request.source) as archive:
        _check_lists(request)
        content = _source(request, archive, {})
        _check_set(request, content)
        counts = np.bincount(content.labels, minlength=len(content.classes))
        images = len(content.labels) + len(content.test_labels)
        return {
            "name": request.name,
            "folder": str(store.home() / "datasets" / request.name),
            "source": {"kind": content.kind, "path": str(request.source)},
            "train_images": len(content.labels),
            "train_listed": len(content.listed),
            "test_images": len(content.test_labels),
            "classes": list(content.classes),
            "counts": counts.tolist(),
            "shape": list(content.shape),
            "bytes": images * math.prod(content.shape),
            "notes": list(content.notes),
        }


def verify(name: str) -> dict[str, Any]:
    """Checks a prepared set down to the pixels: file, image hashes, sums, test id.

    Returns what was checked. Raises `InvalidInput` (exit code 3) for the first thing that does
    not fit, and `MissingEnvironment` (4) where there is no such set.
    """
    pool, container = open_pool(name)
    found = {
        "hashes of the training images": (image_hashes(pool.images), pool.hashes),
        "hashes of the test images": (image_hashes(pool.test_images), pool.test_hashes),
        "channel sums": (moments(pool.images), pool.sums),
    }
    wrong = [what for what, (now, then) in found.items() if not np.array_equal(now, then)]
    test_id = identity_of(found["hashes of the test images"][0], pool.test_labels, pool.classes)
    if test_id != container.facts["test_id"]:
        wrong.append("test id")
    if wrong:
        raise InvalidInput(
            f"data set '{name}' in {container.folder}: wrong {', '.join(wrong)}",
            remedy="prepare it again with --replace",
        )
    return {
        "name": name,
        "folder": str(container.folder),
        "file_sha256": container.manifest["file_sha256"],
        "content_sha256": container.content_sha256,
        "train_images": len(pool.images),
        "test_images": len(pool.test_images),
        "test_id": test_id,
    }


def _check(request: Request) -> None:
    problems = []
    if not _NAME.fullmatch(request.name):
        problems.append(f"'{request.name}' cannot name a data set: small letters, digits and _ . -")
    if request.name == DIGITS:
        problems.append(f"{DIGITS} is built in and needs no preparation")
    if request.fit is not None and request.fit not in FITS:
        problems.append(f"no fit '{request.fit}'; known: {', '.join(FITS)}")
    if request.fit is not None and request.size is None:
        problems.append("--fit needs --size")
    if request.size is not None and not 4 <= request.size <= 1024:
        problems.append(f"--size must lie in 4 to 1024, got {request.size}")
    if request.channels not in (None, *CHANNELS):
        problems.append(f"--channels must be 1, 3 or 4, got {request.channels}")
    if request.index and (request.train_list or request.test_list):
        problems.append("--index and --train-list are two ways to say the same thing")
    if request.test_list and not request.train_list:
        problems.append("--test-list needs --train-list")
    if request.on_bad_image not in ("error", "skip"):
        problems.append(f"--on-bad-image is error or skip, not {request.on_bad_image}")
    if problems:
        raise UsageFailure("; ".join(problems))


def _present(final: Path) -> Container | None:
    if not final.is_dir():
        return None
    try:
        return arrays.open_container(final, kind=KIND)
    except InvalidInput as error:
        raise InvalidInput(
            f"the set that is there is damaged: {error}",
            remedy=f"delete the folder {final}, then run the same command",
        ) from error


def _request_key(request: Request, archive: Archive) -> str:
    """The digest of all that decides the content, files by their hashes."""
    lists = _check_lists(request)
    return store.digest(
        {
            "version": VERSION,
            "name": request.name,
            "source": archive.sha256(),
            "lists": [None if path is None else store.sha256_file(path) for path in lists],
            "size": request.size,
            "fit": request.fit,
            "channels": request.channels,
            "flip": request.flip,
            "on_bad_image": request.on_bad_image,
        }
    )


def _check_lists(request: Request) -> tuple[Path | None, ...]:
    lists = (request.index, request.train_list, request.test_list)
    for path in lists:
        if path is not None and not path.is_file():
            raise UsageFailure(f"{path} is missing, or not a file")
    return lists


def _put(
    request: Request,
    made: Container,
    present: Container | None,
    temporary: Path,
    final: Path,
    replace: bool,
) -> Prepared:
    if present is not None:
        same = ("classes", "flip", "default", "head")
        if present.content_sha256 == made.content_sha256 and all(
            present.facts.get(name) == made.facts[name] for name in same
        ):
            return Prepared(final, True, present.facts)
        if not replace:
            raise UsageFailure(
                f"data set '{request.name}' exists with other content "
                f"({_summary(present.facts)}; this one would have {_summary(made.facts)})",
                remedy="choose another name, or add --replace",
            )
        old = final.with_name(f".{request.name}.old.{os.getpid()}")
        os.rename(final, old)
        store.publish(temporary, final)
        shutil.rmtree(old, ignore_errors=True)
    else:
        store.publish(temporary, final)
    return Prepared(final, False, made.facts)


def _summary(facts: dict[str, Any]) -> str:
    return (
        f"{facts['train_images']:,} + {facts['test_images']:,} images, "
        f"{len(facts['classes'])} classes, test id {facts['test_id'][:12]}"
    )


# Writing


def _write(request: Request, archive: Archive, key: str, folder: Path) -> Container:
    """Decodes everything into a container at `folder`."""
    skipped: dict[str, str] = {}
    while True:
        content = _source(request, archive, skipped)
        _check_set(request, content)
        writer = _writer(folder, content)
        bad = content.fill(writer.view("images"), writer.view("test_images"))
        bad = {**content.skipped, **bad}
        if bad and request.on_bad_image == "error":
            raise _bad_images(archive, bad)
        if set(bad) == set(skipped):
            facts = _facts(request, archive, key, content, writer)
            writer.seal(KIND, facts)
            return arrays.open_container(folder, kind=KIND, verify=False)
        # Those that only decoding shows to be bad: again, without them.
        skipped = bad
        shutil.rmtree(folder)


def _check_set(request: Request, content: _Content) -> None:
    known = official.SETS.get(request.name)
    if known is not None and len(content.classes) != known.classes:
        raise InvalidInput(
            f"{request.name} has {known.classes} classes; {request.source} has "
            f"{len(content.classes)}",
            remedy="choose another name for this data set",
        )
    counts = np.bincount(content.labels, minlength=len(content.classes))
    empty = [content.classes[c] for c in np.flatnonzero(counts == 0)]
    if empty or not len(content.test_labels):
        raise InvalidInput(
            f"{request.source}: no readable training image of {', '.join(empty[:10])}"
            if empty
            else f"{request.source}: no readable test image"
        )


def _writer(folder: Path, content: _Content) -> Writer:
    held, tested, channels = len(content.labels), len(content.test_labels), content.shape[2]
    writer = Writer(
        folder,
        {
            "images": ("u1", (held, *content.shape)),
            "labels": ("i8", (held,)),
            "position": ("i8", (held,)),
            "listed": ("i8", (len(content.listed),)),
            "hashes": ("u1", (held, 32)),
            "sums": ("i8", (held, 2, channels)),
            "test_images": ("u1", (tested, *content.shape)),
            "test_labels": ("i8", (tested,)),
            "test_hashes": ("u1", (tested, 32)),
        },
        attributes={"schema": KIND, "schema_version": VERSION},
    )
    for name in ("labels", "position", "listed", "test_labels"):
        writer.view(name)[...] = getattr(content, name)
    return writer


def _facts(
    request: Request, archive: Archive, key: str, content: _Content, writer: Writer
) -> dict[str, Any]:
    """Hashes what was written, and says what it is."""
    images, tested = writer.view("images"), writer.view("test_images")
    writer.view("hashes")[...] = image_hashes(images)
    writer.view("test_hashes")[...] = image_hashes(tested)
    writer.view("sums")[...] = moments(images)
    known = official.SETS.get(request.name)
    return {
        "name": request.name,
        "classes": list(content.classes),
        "train_images": len(images),
        "train_listed": len(content.listed),
        "test_images": len(tested),
        "shape": list(content.shape),
        "test_id": identity_of(writer.view("test_hashes"), content.test_labels, content.classes),
        "head": int(np.bincount(content.listed).max()),
        "flip": request.flip,
        "default": list(known.default) if known else ["natural", None],
        "source": {
            "kind": content.kind,
            "file": request.source.name,
            "sha256": archive.sha256(),
            "index": request.index and request.index.name,
            "lists": [path.name for path in (request.train_list, request.test_list) if path],
        },
        "size": request.size,
        "fit": request.fit,
        "notes": list(content.notes),
        "skipped": dict(list(content.skipped.items())[:KEPT_SKIPPED]),
        "skipped_images": len(content.skipped),
        "decoder": f"Pillow {PIL.__version__}",
        "request": key,
    }


def _bad_images(archive: Archive, bad: dict[str, str]) -> InvalidInput:
    lines = [f"  '{name}' {why}" for name, why in sorted(bad.items())]
    if len(lines) > SHOWN_BAD:
        lines = [*lines[:SHOWN_BAD], f"  and {len(bad) - SHOWN_BAD:,} more"]
    return InvalidInput(
        "\n".join([f"{archive.path}: {len(bad):,} images cannot be used:", *lines]),
        remedy="repair or remove them, or leave them out with --on-bad-image skip",
    )


# Sources


def _source(request: Request, archive: Archive, skipped: dict[str, str]) -> _Content:
    """Understands a source, leaving out the files that were found to be bad."""
    if cifar.is_official_layout(archive.names):
        return _official(request, archive)
    if request.index is not None:
        listing = layouts.from_index(archive, request.index)
    elif request.train_list is not None:
        listing = layouts.from_lists(archive, request.train_list, request.test_list)
    else:
        listing = layouts.image_folder(archive)
    return _image_files(request, archive, _without(listing, skipped), skipped)


def _official(request: Request, archive: Archive) -> _Content:
    if request.index or request.train_list or request.size or request.channels:
        raise UsageFailure(
            "an official CIFAR archive knows its order and shape: leave --index, --train-list, "
            "--size and --channels out"
        )
    if archive.path.is_dir():
        _refuse_unknown(request, "a folder and not the published archive")
        batches = cifar.read_batches(archive)
    else:
        if archive.path.stat().st_size > LARGEST_OFFICIAL:
            raise InvalidInput(f"{archive.path} is too large for an official CIFAR archive")
        # The bytes that are parsed are the bytes that were hashed.
        content = archive.path.read_bytes()
        if official.known_by_hash(content) is None:
            _refuse_unknown(request, "not the published file: its hash is another")
        with open_tar_bytes(archive.path, content) as opened:
            batches = cifar.read_batches(opened)
    count = len(batches.labels)

    def fill(images: np.ndarray, test_images: np.ndarray) -> dict[str, str]:
        images[...] = batches.images
        test_images[...] = batches.test_images
        return {}

    return _Content(
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
    """The listing without some files: absent in an official order, else never there."""
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
    request: Request, archive: Archive, listing: Listing, skipped: dict[str, str]
) -> _Content:
    names = [entry.name for entry in (*listing.train, *listing.test)]
    headers, bad = _headers(archive, names)
    shape = _shape(request, archive, headers)
    side = shape.size or next(iter(headers.values())).width

    def fill(images: np.ndarray, test_images: np.ndarray) -> dict[str, str]:
        place = {entry.name: (images, row) for row, entry in enumerate(listing.train)}
        place |= {entry.name: (test_images, row) for row, entry in enumerate(listing.test)}
        return bad | _decoded(archive, [name for name in names if name not in bad], place, shape)

    return _Content(
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


def _headers(archive: Archive, names: Sequence[str]) -> tuple[dict[str, Header], dict[str, str]]:
    """The header of every image, and what is wrong with the files that have none."""
    headers, bad = {}, {}
    progress = Progress(len(names), "images", "checking")
    for count, (name, content) in enumerate(archive.read(names), 1):
        try:
            headers[name] = inspect(content)
        except BadImage as error:
            bad[name] = str(error)
        progress.update(count)
    progress.close()
    if not headers:
        raise _bad_images(archive, bad)
    return headers, bad


def _decoded(
    archive: Archive,
    names: Sequence[str],
    place: dict[str, tuple[np.ndarray, int]],
    shape: Shape,
) -> dict[str, str]:
    bad = {}
    progress = Progress(len(names), "images", "decoding")
    for count, (name, content) in enumerate(archive.read(names), 1):
        images, row = place[name]
        try:
            images[row] = decode(content, shape)
        except BadImage as error:
            bad[name] = str(error)
        progress.update(count)
    progress.close()
    return bad


def _shape(request: Request, archive: Archive, headers: dict[str, Header]) -> Shape:
    """The shape that all images get: as asked, or as they have it."""
    if request.size is None:
        sizes = sorted({(one.width, one.height) for one in headers.values()})
        if len(sizes) > 1 or sizes[0][0] != sizes[0][1]:
            widths, heights = [w for w, _ in sizes], [h for _, h in sizes]
            raise InvalidInput(
                f"the images of {archive.path} have {len(sizes):,} sizes, {min(widths)} to "
                f"{max(widths)} wide and {min(heights)} to {max(heights)} high; square ones of "
                "one size are needed",
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
