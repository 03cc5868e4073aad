"""The identity of images and of splits (stylegan_mix/README.md, "Data sets").

`N` images, `K` classes, `H W` pixels, `C` channels.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import numpy as np

__all__ = ["identity", "identity_of", "image_hashes"]


def image_hashes(images: np.ndarray) -> np.ndarray:
    """Hashes each image with SHA-256: uint8 [N,H,W,C] -> uint8 [N,32].

    The hashed bytes are height, width and channels as three unsigned 32-bit big-endian integers (12
    bytes), then the H*W*C bytes of the decoded image in row, column, channel order.
    """
    head = np.array(images.shape[1:], ">u4").tobytes()
    found = np.empty((len(images), 32), np.uint8)
    for row, image in enumerate(images):
        one = hashlib.sha256(head)
        one.update(np.ascontiguousarray(image).data)
        found[row] = np.frombuffer(one.digest(), np.uint8)
    return found


def identity(
    part_images: np.ndarray, labels: Sequence[int] | np.ndarray, class_names: Sequence[str]
) -> str:
    """Computes the id of a part: SHA-256 over its class names and its images, in any order.

    `part_images` is uint8 [N,H,W,C], `labels` [N] are indices into `class_names`. See
    `identity_of` for the exact bytes.
    """
    return identity_of(image_hashes(part_images), labels, class_names)


def identity_of(
    hashes: np.ndarray, labels: Sequence[int] | np.ndarray, class_names: Sequence[str]
) -> str:
    """Computes the id of a part from its `image_hashes` uint8 [N,32] -> 64 hex digits.

    The hashed bytes are these, with every integer unsigned and big-endian:

    1. the number of classes (32 bits), and for each class, in index order, the length in bytes
       of its name in UTF-8 (32 bits) and those bytes;
    2. the number of images (64 bits), and for each image its class index (32 bits) and its
       image hash (32 bytes). These records of 36 bytes are in ascending bytewise order, which is
       ascending (class index, hash). An image that occurs twice in a class stands twice.
    """
    whole = hashlib.sha256()
    whole.update(len(class_names).to_bytes(4, "big"))
    for name in class_names:
        spelled = name.encode("utf-8")
        whole.update(len(spelled).to_bytes(4, "big") + spelled)
    records = np.empty((len(hashes), 36), np.uint8)
    records[:, :4] = np.asarray(labels, np.int64).astype(">u4")[:, None].view(np.uint8)
    records[:, 4:] = hashes
    whole.update(len(records).to_bytes(8, "big"))
    whole.update(b"".join(sorted(record.tobytes() for record in records)))
    return whole.hexdigest()
