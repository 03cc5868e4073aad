"""Preparation: a source is decoded once into a pool in the store, and draws are taken from it.

Deciding (`sources`: the class and shape of each image) is apart from doing (`prepare`).
`M` training images held, `T` test images, `V` validation images, `H W` pixels, `C` channels.
"""

from __future__ import annotations

import hashlib
import math
import os
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import PIL

from stylegan_mix import arrays, store
from stylegan_mix.arrays import Container, Writer
from stylegan_mix.datasets import official
from stylegan_mix.datasets.archives import Archive, open_archive
from stylegan_mix.datasets.hashes import identity_of, image_hashes
from stylegan_mix.datasets.label_files import asked_content
from stylegan_mix.datasets.pool import KIND, moments, open_pool
from stylegan_mix.datasets.present import (
    FOLDER_RULES,
    differs,
    made_of,
    other_content,
    present_set,
    same,
)
from stylegan_mix.datasets.repeats import repeat_notes
from stylegan_mix.datasets.request import Request
from stylegan_mix.datasets.request_checks import check_request
from stylegan_mix.datasets.sources import Content, bad_images, read_source
from stylegan_mix.datasets.trained_sizes import size_note
from stylegan_mix.errors import InvalidInput, UsageFailure
from stylegan_mix.session import Session
from stylegan_mix.showing import is_plain, one_line

__all__ = ["Prepared", "Request", "plan", "prepare", "verify"]

VERSION = 1
KEPT_SKIPPED = 10_000


@dataclass(frozen=True)
class Prepared:
    """The outcome: the folder of the set, a flag if it was there before, and notes for the user."""

    folder: Path
    existed: bool
    facts: dict[str, Any]


def prepare(request: Request, *, replace: bool = False, session: Session = Session()) -> Prepared:
    """Makes a prepared set of a source, or finds it if it is there already.

    A request finds the set that it made, or one with the same content. Different content under the
    same name is refused unless `replace`. Raises `UsageFailure` (exit code 2), `InvalidInput` (3)
    for a bad source, and `MissingEnvironment` (4) if disk space or permission is missing.
    """
    check_request(request)
    final = store.home() / "datasets" / request.name
    temporary, old = (final.with_name(f".{request.name}.{end}") for end in ("part", "old"))
    with store.locked(final.with_name(f".{request.name}.lock"), session=session):
        if old.is_dir() and not final.is_dir():  # stopped in the middle of a replacement
            os.rename(old, final)
        present = present_set(final, replace)
        with open_archive(request.source, request.names_encoding, session) as archive:
            key = _request_key(request, archive)
            if present is not None and made_of(present, key, request, archive):
                return Prepared(final, True, present.facts)
            shutil.rmtree(temporary, ignore_errors=True)
            try:
                made = _write(request, archive, key, temporary, session)
                if present is not None and same(present, made):
                    return Prepared(final, True, present.facts)
                if present is not None and not replace:
                    raise other_content(request.name, present.facts, made.facts)
                if final.is_dir():
                    os.rename(final, old)
                store.publish(temporary, final)
                return Prepared(final, False, made.facts)
            finally:
                shutil.rmtree(temporary, ignore_errors=True)
                shutil.rmtree(old, ignore_errors=True)


def plan(
    request: Request, session: Session = Session(), *, replace: bool = False
) -> dict[str, Any]:
    """Describes the outcome of `prepare` from names and headers alone; nothing is written.

    `outcome` is "new"; "already there"; "replacement" of other content; or "comparison" with the
    set that is there, whose pixels may be the same. Raises the errors of `prepare`.
    """
    check_request(request)
    present = present_set(store.home() / "datasets" / request.name, replace)
    with open_archive(request.source, request.names_encoding, session) as archive:
        _check_lists(request)
        key = "" if present is None else _request_key(request, archive)
        content = read_source(request, archive, {}, session)
        if content.bad and request.on_bad_image == "error":
            raise bad_images(archive, dict(content.bad))
        if content.bad:
            content = read_source(request, archive, dict(content.bad), session)
        _check_set(request, content)
        counts = np.bincount(content.labels, minlength=len(content.classes))
        images = sum(map(len, (content.labels, content.test_labels, content.val_labels)))
        found = {
            "name": request.name,
            "folder": str(store.home() / "datasets" / request.name),
            "source": {"kind": content.kind, "path": str(request.source)},
            "train_images": len(content.labels),
            "train_listed": len(content.listed),
            "test_images": len(content.test_labels),
            "val_images": len(content.val_labels),
            "classes": list(content.classes),
            "counts": counts.tolist(),
            "shape": list(content.shape),
            "flip": request.flip,
            "bytes": images * math.prod(content.shape),
            "notes": [*content.notes, *filter(None, [size_note(content.shape[0])])],
        }
        made = present is not None and made_of(present, key, request, archive)
    if present is None:
        outcome = "new"
    elif made:
        outcome = "already there"
    elif request.on_bad_image == "skip" or not differs(present.facts, found):
        outcome = "comparison"
    elif replace:
        outcome = "replacement"
    else:
        raise other_content(request.name, present.facts, found)
    return {**found, "outcome": outcome}


def verify(name: str) -> dict[str, Any]:
    """Checks a prepared set down to the pixels: file, image hashes, sums, test id.

    Returns the checked facts. Raises `InvalidInput` (exit code 3) for the first mismatch, and
    `MissingEnvironment` (4) if there is no such set.
    """
    pool, container = open_pool(name)
    found: dict[str, tuple[Any, Any]] = {
        "hashes of the training images": (image_hashes(pool.images), pool.hashes),
        "hashes of the test images": (image_hashes(pool.test_images), pool.test_hashes),
        "channel sums": (moments(pool.images), pool.sums),
    }
    if pool.val is not None:
        held = (image_hashes(pool.val.images), pool.val_hashes)
        found["hashes of the validation images"] = held
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
        **({} if pool.val is None else {"val_images": len(pool.val)}),
        "test_id": test_id,
    }


def _request_key(request: Request, archive: Archive) -> str:
    """Computes the digest of everything that decides the content, files by their hashes."""
    lists = _check_lists(request)
    labels = [asked_content(archive, path)[1:] for path in request.labels]
    said = {
        "labels": [[folder, hashlib.sha256(content).hexdigest()] for folder, content in labels],
        "columns": [name for name in (request.file_column, request.label_column) if name],
        "folders": {
            part: paths[0] if len(paths) == 1 else list(paths)
            for part, paths in request.folders.items()
        },
        "levels": request.levels,
        "names_encoding": request.names_encoding,
        "convert": request.convert,
    }
    return store.digest(
        {
            "version": VERSION,
            **({"layout": said} if any(said.values()) else {}),
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


# Writing


def _write(
    request: Request, archive: Archive, key: str, folder: Path, session: Session
) -> Container:
    """Decodes everything into a container at `folder`."""
    skipped: dict[str, str] = {}
    while True:
        content = read_source(request, archive, skipped, session)
        _check_set(request, content)
        if not skipped and (note := size_note(content.shape[0])):
            session.say(f"note: {note}")
        writer = _writer(folder, content)
        bad = content.fill({part: writer.view(_images(part)) for part in content.parts})
        bad = {**content.skipped, **bad}
        if bad and request.on_bad_image == "error":
            raise bad_images(archive, bad)
        if set(bad) == set(skipped):
            facts = _facts(request, archive, key, content, writer)
            writer.seal(KIND, facts)
            return arrays.open_container(folder, kind=KIND, verify=False)
        # Again, without the images that only decoding shows to be bad.
        skipped = bad
        shutil.rmtree(folder)


def _check_set(request: Request, content: Content) -> None:
    known = official.SETS.get(request.name)
    if known is not None and len(content.classes) != known.classes:
        raise InvalidInput(
            f"{request.name} has {known.classes} classes; {request.source} has "
            f"{len(content.classes)}",
            remedy="choose another name for this data set",
        )
    odd = [name for name in content.classes if not is_plain(name)]
    if odd:
        raise InvalidInput(
            f"{request.source}: the class name '{one_line(odd[0])}' has control characters in it",
            remedy="rename the class",
        )
    counts = np.bincount(content.labels, minlength=len(content.classes))
    empty = [content.classes[c] for c in np.flatnonzero(counts == 0)]
    if empty or not len(content.test_labels):
        raise InvalidInput(
            f"{request.source}: no readable training image of {', '.join(empty[:10])}"
            if empty
            else f"{request.source}: no readable test image"
        )


def _images(part: str) -> str:
    """Names the array of a part's images."""
    return "images" if part == "train" else f"{part}_images"


def _writer(folder: Path, content: Content) -> Writer:
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
            **_validation_arrays(content),
        },
        attributes={"schema": KIND, "schema_version": VERSION},
    )
    for name in ("labels", "position", "listed", "test_labels"):
        writer.view(name)[...] = getattr(content, name)
    if len(content.val_labels):
        writer.view("val_labels")[...] = content.val_labels
    return writer


def _validation_arrays(content: Content) -> dict[str, tuple[str, tuple[int, ...]]]:
    """Declares the arrays of a validation part of the source's own, if it has one."""
    held = len(content.val_labels)
    if not held:
        return {}
    return {
        "val_images": ("u1", (held, *content.shape)),
        "val_labels": ("i8", (held,)),
        "val_hashes": ("u1", (held, 32)),
    }


def _facts(
    request: Request, archive: Archive, key: str, content: Content, writer: Writer
) -> dict[str, Any]:
    """Hashes the written arrays, and composes the facts of the set."""
    images, tested = writer.view("images"), writer.view("test_images")
    writer.view("hashes")[...] = image_hashes(images)
    writer.view("test_hashes")[...] = image_hashes(tested)
    writer.view("sums")[...] = moments(images)
    parts = {
        "train": (writer.view("hashes"), content.labels),
        "test": (writer.view("test_hashes"), content.test_labels),
    }
    if len(content.val_labels):
        writer.view("val_hashes")[...] = image_hashes(writer.view("val_images"))
        parts["val"] = (writer.view("val_hashes"), content.val_labels)
    known = official.SETS.get(request.name)
    return {
        "name": request.name,
        "classes": list(content.classes),
        "train_images": len(images),
        "train_listed": len(content.listed),
        "test_images": len(tested),
        **({"val_images": len(content.val_labels)} if len(content.val_labels) else {}),
        "shape": list(content.shape),
        "test_id": identity_of(writer.view("test_hashes"), content.test_labels, content.classes),
        "head": int(np.bincount(content.listed).max()),
        "flip": request.flip,
        "default": list(known.default) if known else ["natural", None],
        "source": _source(request, archive, content.kind),
        "folder_rules": FOLDER_RULES,
        "size": request.size,
        "fit": request.fit,
        **({"convert": True} if request.convert else {}),
        "notes": [*content.notes, *repeat_notes(parts, content.files, content.classes)],
        "skipped": dict(list(content.skipped.items())[:KEPT_SKIPPED]),
        "skipped_images": len(content.skipped),
        "decoder": f"Pillow {PIL.__version__}",
        "request": key,
    }


def _source(request: Request, archive: Archive, kind: str) -> dict[str, Any]:
    lists = (request.train_list, request.test_list, *request.labels)
    return {
        "kind": kind,
        "file": request.source.name,
        "sha256": archive.sha256(),
        "index": request.index and request.index.name,
        "lists": [path.name for path in lists if path],
    }
