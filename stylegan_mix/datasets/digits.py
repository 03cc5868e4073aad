"""scikit-learn's real 8x8 digits as a data set: nothing to download, trained on in minutes."""

from __future__ import annotations

import gzip
from functools import cache
from importlib.util import find_spec
from pathlib import Path

import numpy as np

from stylegan_mix.datasets.pool import Pool, from_arrays

__all__ = ["NAME", "digits"]

NAME = "digits_lt"
TEST_PER_CLASS = 74
HEAD = 100


@cache
def digits() -> Pool:
    """Loads 1,797 grey images: UCI Optical Recognition of Handwritten Digits.

    Their range 0..16 is scaled to 0..255 and rounded, half to even. The last 74 images of each
    class in file order are the test part. The rest, at least 100 a class, is the pool. The rule's
    n_max is 100: at imbalance 20 the classes have 100 down to 5 images.
    """
    table = _table()
    images = np.rint(table[:, :-1].reshape(-1, 8, 8, 1) * (255.0 / 16.0)).astype(np.uint8)
    labels = table[:, -1].astype(np.int64)
    in_test = np.zeros(len(labels), bool)
    for c in range(10):
        in_test[np.flatnonzero(labels == c)[-TEST_PER_CLASS:]] = True
    parts = [(images[rows], labels[rows]) for rows in (~in_test, in_test)]
    for array in (*parts[0], *parts[1]):
        array.setflags(write=False)  # read-only as prepared sets are; all callers share it
    return from_arrays(
        NAME,
        [str(c) for c in range(10)],
        *parts,
        head=HEAD,
        flip=False,
        default=("exp", 20.0),
    )


def _table() -> np.ndarray:
    """Reads the rows of the file: 64 pixels in 0..16, then the digit -> float64 [1797,65]."""
    # Importing scikit-learn takes longer than everything else that a command does here.
    found = find_spec("sklearn")
    if found is not None and found.origin is not None:
        path = Path(found.origin).parent / "datasets" / "data" / "digits.csv.gz"
        if path.is_file():
            return np.loadtxt(gzip.decompress(path.read_bytes()).decode().split(), delimiter=",")
    from sklearn.datasets import load_digits

    source = load_digits()
    return np.column_stack([source.data, source.target])
