"""The facts of a prepared set, composed from its content; the rest of a preparation is elsewhere.

`M` training images held, `T` test images, `V` validation images.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import PIL

from stylegan_mix.datasets import official
from stylegan_mix.datasets.hashes import identity_of
from stylegan_mix.datasets.present import FOLDER_RULES
from stylegan_mix.datasets.repeats import repeat_notes
from stylegan_mix.datasets.request import Request
from stylegan_mix.datasets.sources import Content
from stylegan_mix.errors import InvalidInput
from stylegan_mix.showing import is_plain, one_line

__all__ = ["check_set", "composed_facts", "label_arrays"]

KEPT_SKIPPED = 10_000

Arrays = dict[str, tuple[str, tuple[int, ...]]]


def check_set(request: Request, content: Content) -> None:
    """Raises `InvalidInput` (exit code 3) for classes that cannot be, or that have no image."""
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


def label_arrays(content: Content) -> Arrays:
    """Declares the arrays of a set that say classes and places, and the sums of its channels."""
    held, channels = len(content.labels), content.shape[2]
    tested, validated = len(content.test_labels), len(content.val_labels)
    return {
        "labels": ("i8", (held,)),
        "position": ("i8", (held,)),
        "listed": ("i8", (len(content.listed),)),
        "hashes": ("u1", (held, 32)),
        "sums": ("i8", (held, 2, channels)),
        "test_labels": ("i8", (tested,)),
        "test_hashes": ("u1", (tested, 32)),
        **(
            {"val_labels": ("i8", (validated,)), "val_hashes": ("u1", (validated, 32))}
            if validated
            else {}
        ),
    }


def composed_facts(
    request: Request,
    content: Content,
    hashes: Mapping[str, np.ndarray],
    *,
    source: Mapping[str, Any],
    key: str,
) -> dict[str, Any]:
    """Composes the facts of a set; `hashes` are those of the images of each part, [.,32] uint8.

    `source` says where the images come from beside the kind of its layout and the name of its file.
    """
    labels = {"train": content.labels, "test": content.test_labels, "val": content.val_labels}
    parts = {part: (found, labels[part]) for part, found in hashes.items()}
    known = official.SETS.get(request.name)
    return {
        "name": request.name,
        "classes": list(content.classes),
        "train_images": len(content.labels),
        "train_listed": len(content.listed),
        "test_images": len(content.test_labels),
        **({"val_images": len(content.val_labels)} if len(content.val_labels) else {}),
        "shape": list(content.shape),
        "test_id": identity_of(hashes["test"], content.test_labels, content.classes),
        "head": int(np.bincount(content.listed).max()),
        "flip": request.flip,
        "default": list(known.default) if known else ["natural", None],
        "source": {"kind": content.kind, "file": request.source.name, **source, **_said(request)},
        "folder_rules": FOLDER_RULES,
        "size": request.size,
        "fit": request.fit,
        **({"convert": True} if request.convert else {}),
        "notes": [
            # A label file can name half a surrogate pair, which no text in UTF-8 can hold.
            note.encode(errors="backslashreplace").decode()
            for note in (*content.notes, *repeat_notes(parts, content.files, content.classes))
        ],
        "skipped": dict(list(content.skipped.items())[:KEPT_SKIPPED]),
        "skipped_images": len(content.skipped),
        "decoder": f"Pillow {PIL.__version__}",
        "request": key,
    }


def _said(request: Request) -> dict[str, Any]:
    """Names the files beside the images that say their classes."""
    lists = (request.train_list, request.test_list, *request.labels)
    return {
        "index": request.index and request.index.name,
        "lists": [path.name for path in lists if path],
    }
