"""The layout of a source: lists, label files or folders give each image its class and part."""

from __future__ import annotations

from dataclasses import replace

from stylegan_mix.datasets import lists
from stylegan_mix.datasets.archives import Archive
from stylegan_mix.datasets.folders import folder_listing
from stylegan_mix.datasets.image_files import SUFFIXES, heif_hint, is_image_name
from stylegan_mix.datasets.label_files import asked_files, known_files, of_a_part, refuse_unused
from stylegan_mix.datasets.labelled import labelled_listing
from stylegan_mix.datasets.left_aside import left_aside
from stylegan_mix.datasets.listing import Listing
from stylegan_mix.datasets.parts import named_parts
from stylegan_mix.datasets.request import Request
from stylegan_mix.datasets.tree import Branch, tree_of
from stylegan_mix.errors import InvalidInput

__all__ = ["recognise"]


def recognise(archive: Archive, request: Request) -> tuple[str, Listing]:
    """Lists the images of a source -> the kind of its layout, and the listing.

    Raises `InvalidInput` (exit code 3) where the content leaves a doubt, with the options that
    settle it.
    """
    kind, listing = _listed(archive, request)
    return kind, replace(listing, notes=(*archive.notes, *listing.notes))


def _listed(archive: Archive, request: Request) -> tuple[str, Listing]:
    if request.index is not None:
        return "index", lists.from_index(archive, request.index)
    if request.train_list is not None:
        return "lists", lists.from_lists(archive, request.train_list, request.test_list)
    names = [name for name in archive.names if is_image_name(name)]
    if not names:
        raise InvalidInput(
            f"{archive.path} holds no image files ({', '.join(SUFFIXES)})",
            remedy=heif_hint(archive.names)
            or "expected train/<class>/<file> and test/<class>/<file>, or <class>/<file>",
        )
    root = tree_of(names)
    around = root.surrounding
    kind, listing = _recognised(archive, root, around, request)
    entries = (*listing.train, *listing.test, *listing.val)
    places = {entry.name.rpartition("/")[0]: listing.classes[entry.label] for entry in entries}
    used = [*(entry.name for entry in entries), *listing.label_files]
    notes = left_aside(archive, used, places)
    return kind, replace(listing, notes=(*listing.notes, *notes))


def _recognised(
    archive: Archive, root: Branch, around: list[Branch], request: Request
) -> tuple[str, Listing]:
    if request.labels:
        files = asked_files(archive, request.labels)
    elif request.by_folders:
        files = []
    else:
        files = known_files(archive, around)
    if files:
        parts = named_parts(root, archive, request.folders).folders if request.folders else {}
        named = {
            part: {name for branch in branches for name in branch.images()}
            for part, branches in parts.items()
        }
        return "label file", labelled_listing(archive, files, around[-1], request, named)
    if request.by_folders:
        return "image folder", folder_listing(archive, root, request)
    waiting = of_a_part(archive, around)
    refuse_unused(archive, around, waiting)
    listing = folder_listing(archive, root, request)
    refuse_unused(archive, around, listing.label_files, listing.classes)
    return "image folder", listing
