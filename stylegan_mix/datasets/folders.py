"""The listing of images whose folders are their classes."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from dataclasses import replace
from functools import partial

from stylegan_mix.datasets.archives import Archive, bytewise
from stylegan_mix.datasets.class_folders import (
    TOP,
    class_of_files,
    decide_levels,
    empty_classes,
    refuse_unlabelled_parts,
)
from stylegan_mix.datasets.image_files import heif_hint
from stylegan_mix.datasets.inner_parts import inner_parts
from stylegan_mix.datasets.label_files import labels_beside
from stylegan_mix.datasets.left_aside import IMAGE_ENDINGS
from stylegan_mix.datasets.listing import (
    HELD_OUT_SHARE,
    MOST_CLASSES,
    Listing,
    held_out,
    listing_of,
    ordered,
    some,
    twins,
)
from stylegan_mix.datasets.parts import Parts, find_parts, inside, named_parts
from stylegan_mix.datasets.request import Request
from stylegan_mix.datasets.tree import Branch
from stylegan_mix.errors import InvalidInput

__all__ = ["folder_listing"]


def folder_listing(archive: Archive, root: Branch, request: Request) -> Listing:
    """Lists `train/<class>/...` and `test/<class>/...`, or `<class>/...` with a test part held out.

    Classes and, within them, files are in bytewise order. Without a test part, each class gives a
    fifth of its images, at least two, to it (`listing.held_out`).
    """
    parts = _parts(archive, root, request)
    by_folder = {part: one for part, one in parts.folders.items() if part not in parts.labels}
    levels, said = _levels(archive, parts, request)
    files, notes = class_of_files(by_folder, levels)
    for part, labels in parts.labels.items():
        files[part] = labels
    if not files["train"]:
        raise InvalidInput(
            f"{archive.path}: the images lie in no class folders: expected <class>/<file>"
            + (f", {levels} folders deep" if levels.isdigit() else ""),
            remedy="put the images of each class into a folder of its name, or name a file with "
            "the labels: --labels FILE --file-column NAME --label-column NAME",
        )
    found = {part: set(named.values()) for part, named in files.items()}
    empty = empty_classes(
        archive, parts.folders if parts.inside_classes else by_folder, levels, found
    )
    _refuse_empty(archive, empty, twins([*found["train"], *empty]))
    classes = sorted(found["train"], key=bytewise)
    if len(classes) > MOST_CLASSES:
        raise InvalidInput(f"{archive.path} has {len(classes):,} classes; at most {MOST_CLASSES:,}")
    index = {name: label for label, name in enumerate(classes)}
    pairs = {
        part: ordered((index[label], name) for name, label in named.items())
        for part, named in files.items()
    }
    notes = [*parts.notes, *twins(classes), *said, *notes]
    if "test" not in pairs:
        keys = _keys(parts.folders["train"])
        cut, changed = held_out(pairs["train"], keys, classes)
        pairs |= cut
        notes.append(
            f"no test part: {len(pairs['test']):,} images held out, in each class the first "
            f"{HELD_OUT_SHARE:.0%} by SHA-256 of class/file"
        )
        notes += changed
    return replace(listing_of(archive, classes, pairs, notes), label_files=tuple(parts.files))


def _levels(archive: Archive, parts: Parts, request: Request) -> tuple[str, list[str]]:
    """Decides which folders of the training part are its classes -> levels, and notes."""
    if request.levels:
        return request.levels, []
    if parts.inside_classes:
        return TOP, []
    decided = [
        decide_levels(branch, archive, settled="test" in parts.folders)
        for branch in parts.folders["train"]
    ]
    return TOP, [note for _, notes in decided for note in notes]


def _keys(branches: Sequence[Branch]) -> dict[str, str]:
    """Names the images of a part by their paths below its folder; by whole paths if it has several.

    These names decide which images are held out.
    """
    cut = len(branches[0].path) if len(branches) == 1 else 0
    return {name: name[cut:] for branch in branches for name in branch.images()}


def _parts(archive: Archive, root: Branch, request: Request) -> Parts:
    if request.folders:
        return named_parts(root, archive, request.folders)
    if request.levels is None and (inner := inner_parts(inside(root), archive)) is not None:
        return inner
    found = find_parts(
        root,
        archive,
        partial(labels_beside, archive, inside(root).path),
        settled=request.levels is not None,
    )
    if found is not None:
        return found
    around = inside(root)
    if request.levels is None:
        refuse_unlabelled_parts(around, archive)
    return Parts({"train": (around,)})


def _refuse_empty(archive: Archive, empty: list[str], alike: list[str]) -> None:
    """Raises for classes without training images; `alike` tells of classes of almost one name."""
    if not empty:
        return
    unread = {
        name
        for name in archive.names
        if name[name.rfind(".") :].lower() in IMAGE_ENDINGS and set(name.split("/")) & set(empty)
    }
    endings = sorted({name[name.rfind(".") :].lower() for name in unread})
    why = [f"their {', '.join(endings)} files cannot be read here"] if endings else []
    raise InvalidInput(
        f"{archive.path}: no training image in {len(empty)} class folders: {some(empty)}"
        f"{''.join(f'; {note}' for note in (*why, *alike, *archive.notes))}",
        remedy=_remedy(archive, endings, alike, heif_hint(unread)),
    )


def _remedy(archive: Archive, endings: list[str], alike: list[str], hint: str) -> str:
    if endings:
        return "; ".join(filter(None, [hint, "convert the images to PNG or JPEG"]))
    if alike:
        return "spell the names of a class alike in all parts"
    if archive.notes:
        copy = shlex.join(["cp", "-rL", str(archive.path), "COPY"])
        return (
            "an image that has several names counts once, under its real path; to have each name "
            f"count: {copy}, and leave the folder of the originals out of it"
        )
    return (
        "remove these classes, or add images to them; if the training part is another folder, "
        "name it: --train-dir FOLDER"
    )
