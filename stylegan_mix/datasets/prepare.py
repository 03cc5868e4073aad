"""Preparation: a source is decoded once into a pool in the store, and draws are taken from it.

Deciding (`sources`: the class and shape of each image) is apart from doing (`prepare`).
`M` training images held, `T` test images, `V` validation images, `H W` pixels, `C` channels.
"""

from __future__ import annotations

import hashlib
import math
import os
import shutil
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from stylegan_mix import arrays, store
from stylegan_mix.arrays import Container, Writer
from stylegan_mix.datasets import streaming
from stylegan_mix.datasets.archives import Archive, open_archive
from stylegan_mix.datasets.composed_facts import check_set, composed_facts, label_arrays
from stylegan_mix.datasets.hashes import identity_of, image_hashes
from stylegan_mix.datasets.label_files import asked_content
from stylegan_mix.datasets.pool import KIND, Pool, moments, open_pool
from stylegan_mix.datasets.present import differs, made_of, other_content, present_set, same
from stylegan_mix.datasets.request import Request
from stylegan_mix.datasets.request_checks import check_request
from stylegan_mix.datasets.sources import Content, bad_images, read_source
from stylegan_mix.datasets.streamed import as_files
from stylegan_mix.datasets.trained_sizes import size_note
from stylegan_mix.errors import InvalidInput, UsageFailure
from stylegan_mix.session import Session

__all__ = ["Prepared", "Request", "plan", "prepare", "verify"]

VERSION = 1


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
        with _opened(request, session) as archive:
            key = _request_key(request, archive)
            if present is not None and made_of(present, key, request, archive):
                return Prepared(final, True, present.facts)
            shutil.rmtree(temporary, ignore_errors=True)
            try:
                write = streaming.write if request.stream else _write
                made = write(request, archive, key, temporary, session)
                alike = present is not None and same(present, made)
                if present is not None and alike and not streaming.moved(present, made):
                    return Prepared(final, True, present.facts)
                if present is not None and not alike and not replace:
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
    with _opened(request, session) as archive:
        _check_lists(request)
        key = "" if present is None else _request_key(request, archive)
        read = streaming.listed if request.stream else read_source
        content = read(request, archive, {}, session)
        if content.bad and request.on_bad_image == "error":
            raise bad_images(archive, dict(content.bad))
        if content.bad:
            content = read(request, archive, dict(content.bad), session)
        check_set(request, content)
        counts = np.bincount(content.labels, minlength=len(content.classes))
        note = "" if request.stream else size_note(content.shape[0])
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
            "bytes": streaming.table_bytes(content)
            if request.stream
            else images * math.prod(content.shape),
            **({"streamed": True} if request.stream else {}),
            "notes": [*content.notes, *filter(None, [note])],
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
    streamed = as_files(pool.images) is not None
    wrong = _other_files(pool) if streamed else _other_pixels(pool)
    if identity_of(pool.test_hashes, pool.test_labels, pool.classes) != container.facts["test_id"]:
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
        "test_id": container.facts["test_id"],
    }


def _other_pixels(pool: Pool) -> list[str]:
    """Names the hashes and sums of a set that are not those of its images."""
    found: dict[str, tuple[Any, Any]] = {
        "hashes of the training images": (image_hashes(pool.images), pool.hashes),
        "hashes of the test images": (image_hashes(pool.test_images), pool.test_hashes),
        "channel sums": (moments(pool.images), pool.sums),
    }
    if pool.val is not None:
        held = (image_hashes(pool.val.images), pool.val_hashes)
        found["hashes of the validation images"] = held
    return [what for what, (now, then) in found.items() if not np.array_equal(now, then)]


def _other_files(pool: Pool) -> list[str]:
    """Reads all files of a streamed set; raises for one that is another than it was."""
    for part in (pool.images, pool.test_images, pool.val and pool.val.images):
        files = as_files(part)
        if files is not None:
            files.require_same()
    return []


def _opened(request: Request, session: Session) -> AbstractContextManager[Archive]:
    """Opens the source of a request."""
    if request.stream:
        _check_lists(request)
        return streaming.opened(request)
    return open_archive(request.source, request.names_encoding, session)


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
            "source": streaming.marks(archive) if request.stream else archive.sha256(),
            **({"stream": str(request.source.absolute())} if request.stream else {}),
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
        check_set(request, content)
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


def _images(part: str) -> str:
    """Names the array of a part's images."""
    return "images" if part == "train" else f"{part}_images"


def _writer(folder: Path, content: Content) -> Writer:
    declared: dict[str, tuple[str, tuple[int, ...]]] = {}
    for name, (dtype, shape) in label_arrays(content).items():
        part, _, kind = name.rpartition("_")
        if kind == "labels":
            declared[_images(part or "train")] = ("u1", (shape[0], *content.shape))
        declared[name] = (dtype, shape)
    writer = Writer(folder, declared, attributes={"schema": KIND, "schema_version": VERSION})
    for name in ("labels", "position", "listed", "test_labels"):
        writer.view(name)[...] = getattr(content, name)
    if len(content.val_labels):
        writer.view("val_labels")[...] = content.val_labels
    return writer


def _facts(
    request: Request, archive: Archive, key: str, content: Content, writer: Writer
) -> dict[str, Any]:
    """Hashes the written arrays, and composes the facts of the set."""
    hashes = {}
    for part in content.parts:
        hashes[part] = writer.view("hashes" if part == "train" else f"{part}_hashes")
        hashes[part][...] = image_hashes(writer.view(_images(part)))
    writer.view("sums")[...] = moments(writer.view("images"))
    source = {"sha256": archive.sha256()}
    return composed_facts(request, content, hashes, source=source, key=key)
