"""The official CIFAR archives, python and binary format, read without running their pickles.

Krizhevsky, "Learning Multiple Layers of Features from Tiny Images", 2009. `N` images.
"""

from __future__ import annotations

import io
import math
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from stylegan_mix.datasets.archives import Archive
from stylegan_mix.errors import InvalidInput
from stylegan_mix.pickles import Budget, Names, OddArguments, Stateful, Symbol, read, taken

__all__ = ["Batches", "is_official_layout", "read_batches", "unpickle"]

SIDE, CHANNELS = 32, 3
PIXELS = SIDE * SIDE * CHANNELS
_MOST_DIMENSIONS = 8


@dataclass(frozen=True, eq=False)
class Batches:
    """Both parts in official order: images uint8 [N,32,32,3], labels int64 [N]."""

    classes: tuple[str, ...]
    images: np.ndarray
    labels: np.ndarray
    test_images: np.ndarray
    test_labels: np.ndarray


Parts = tuple[np.ndarray, np.ndarray]


@dataclass(frozen=True)
class _Format:
    """Patterns of file names (the last part of the path), and the readers of such files."""

    train: str
    test: str
    names: str
    read: Callable[[bytes], Parts]
    read_names: Callable[[bytes], Sequence[str]]


def is_official_layout(names: Sequence[str]) -> bool:
    """Tells if these are the file names of an official archive."""
    return _format(names) is not None


def read_batches(archive: Archive) -> Batches:
    """Reads an official archive. Raises `InvalidInput` (exit code 3) naming the bad file."""
    found = _format(archive.names)
    if found is None:
        raise InvalidInput(f"{archive.path} does not have the files of an official CIFAR archive")
    files = {name.rpartition("/")[2]: name for name in archive.names}
    train = sorted(name for name in files if re.fullmatch(found.train, name))
    wanted = {files[name] for name in (*train, found.test, found.names)}
    content = dict(archive.read(wanted))
    read = []
    for name in (*train, found.test):
        try:
            read.append(found.read(content[files[name]]))
        except _MALFORMED as error:
            raise InvalidInput(f"{archive.path}: '{files[name]}': {error}") from error
    try:
        classes = tuple(found.read_names(content[files[found.names]]))
    except _MALFORMED as error:
        raise InvalidInput(f"{archive.path}: '{files[found.names]}': {error}") from error
    images = np.concatenate([one for one, _ in read[:-1]])
    labels = np.concatenate([one for _, one in read[:-1]])
    for part in (labels, read[-1][1]):
        if len(part) and (part.min() < 0 or part.max() >= len(classes)):
            raise InvalidInput(f"{archive.path}: labels outside 0 to {len(classes) - 1}")
    absent = sorted(set(range(len(classes))) - set(labels.tolist()))
    if absent or not len(read[-1][1]):
        raise InvalidInput(f"{archive.path}: no training image of classes {absent}, or no test")
    return Batches(classes, images, labels, read[-1][0], read[-1][1])


def _format(names: Sequence[str]) -> _Format | None:
    last = [name.rpartition("/")[2] for name in names]
    for one in _FORMATS:
        train = any(re.fullmatch(one.train, name) for name in last)
        if train and one.test in last and one.names in last:
            return one
    return None


def _planes(rows: np.ndarray) -> np.ndarray:
    """Interleaves red, green and blue planes: [N,3072] -> [N,32,32,3]."""
    planes = rows.reshape(-1, CHANNELS, SIDE, SIDE)
    return np.ascontiguousarray(planes.transpose(0, 2, 3, 1))


# The binary format: records of label bytes (CIFAR-100: coarse, fine) and 3,072 pixels.


def _records(label_bytes: int) -> Callable[[bytes], Parts]:
    def read(content: bytes) -> Parts:
        size = label_bytes + PIXELS
        if not content or len(content) % size:
            raise ValueError(f"{len(content):,} bytes are no whole number of {size}-byte records")
        rows = np.frombuffer(content, np.uint8).reshape(-1, size)
        return _planes(rows[:, label_bytes:]), rows[:, label_bytes - 1].astype(np.int64)

    return read


def _lines(content: bytes) -> list[str]:
    return [line.strip() for line in content.decode("utf-8").splitlines() if line.strip()]


# The python format


def _batch(label_key: bytes) -> Callable[[bytes], Parts]:
    def read(content: bytes) -> Parts:
        batch = unpickle(content)
        if not isinstance(batch, dict) or not {b"data", label_key} <= set(batch):
            raise ValueError(f"expected a dict with 'data' and '{label_key.decode()}'")
        rows, labels = batch[b"data"], batch[label_key]
        if not isinstance(rows, _Array):
            raise ValueError("'data' is not an array")
        pixels = rows.uint8()
        if pixels.ndim != 2 or pixels.shape[1] != PIXELS:
            raise ValueError(f"'data' has shape {pixels.shape}, expected (N, {PIXELS})")
        if type(labels) is not list or any(type(one) is not int for one in labels):
            raise ValueError(f"'{label_key.decode()}' is not a list of integers")
        if len(labels) != len(pixels):
            raise ValueError(f"{len(pixels)} images and {len(labels)} labels")
        return _planes(pixels), np.array(labels, np.int64)

    return read


def _names(key: bytes) -> Callable[[bytes], list[str]]:
    def read(content: bytes) -> list[str]:
        names = unpickle(content)
        names = names.get(key) if isinstance(names, dict) else None
        if type(names) is not list or any(type(name) not in (bytes, str) for name in names):
            raise ValueError(f"expected a dict with a list of names '{key.decode()}'")
        return [name.decode("utf-8") if isinstance(name, bytes) else name for name in names]

    return read


class _Dtype(Stateful):
    """A stand-in for `numpy.dtype` while reading, which only remembers its name."""

    def __init__(self, arguments: tuple[Any, ...]) -> None:
        name = arguments[0] if arguments else ""
        self.name = name.decode("latin-1") if type(name) is bytes else name

    def take(self, state: Any) -> None:
        """Drops the state, which says no more of bytes than the name."""


class _Array(Stateful):
    """A stand-in for `numpy.ndarray` while reading, so that NumPy's own unpickling never runs."""

    def __init__(self, _: tuple[Any, ...]) -> None:
        self._state: tuple[Any, ...] = ()

    def take(self, state: Any) -> None:
        """Takes version, shape, dtype, order and content."""
        self._state = state if type(state) is tuple else ()

    def uint8(self) -> np.ndarray:
        """Returns the array, if its elements are bytes in C order."""
        if len(self._state) != 5:
            raise ValueError("an array without content")
        _, shape, dtype, fortran, content = self._state
        if type(dtype) is not _Dtype or dtype.name not in ("u1", "uint8", "|u1"):
            raise ValueError("an array that is not of unsigned bytes")
        sizes = type(shape) is tuple and len(shape) <= _MOST_DIMENSIONS
        if not sizes or any(type(one) is not int or not 0 <= one < 1 << 48 for one in shape):
            raise ValueError("an array with an odd shape")
        if type(content) is str:
            content = content.encode("latin-1")
        if fortran is not False or type(content) is not bytes:
            raise ValueError("an array that is not in C order")
        if math.prod(shape) != len(content):
            raise ValueError(f"an array of shape {shape} with {len(content):,} bytes")
        return np.frombuffer(content, np.uint8).reshape(shape)


def _from_buffer(arguments: tuple[Any, ...]) -> _Array:
    """Replaces `numpy.core.numeric._frombuffer`: content, dtype, shape, order."""
    content, dtype, shape, order = taken(arguments, bytes, _Dtype, tuple, str)
    array = _Array(())
    array.take((1, shape, dtype, order != "C", content))
    return array


def _reconstruct(arguments: tuple[Any, ...]) -> _Array:
    """Replaces `numpy.core.multiarray._reconstruct`: the content comes with the state."""
    taken(arguments, Symbol)
    return _Array(())


def _encode(arguments: tuple[Any, ...]) -> bytes:
    """Replaces `_codecs.encode`, which spells bytes of Python 3 for Python 2."""
    text, encoding = (*arguments, "latin1")[:2] if arguments else (None, None)
    if type(text) is not str or encoding not in ("latin1", b"latin1", "latin-1"):
        raise OddArguments("something else than latin-1 text")
    return text.encode("latin-1")


# All names in the official files, and in copies of them written by a newer Python.
_ADMITTED: Names = {
    ("numpy", "ndarray"): _Array,
    ("numpy", "dtype"): _Dtype,
    **{(f"numpy.{core}.multiarray", "_reconstruct"): _reconstruct for core in ("core", "_core")},
    **{(f"numpy.{core}.numeric", "_frombuffer"): _from_buffer for core in ("core", "_core")},
    ("_codecs", "encode"): _encode,
}


def unpickle(content: bytes) -> Any:
    """Reads a pickle of dicts, lists, strings, bytes, numbers and arrays of bytes.

    Arrays come as stand-ins with a method `uint8()`; text of Python 2 comes as bytes. Anything else
    raises `InvalidInput`. No code chosen by the file runs, and no more memory is taken than a few
    times the content.
    """
    return read(io.BytesIO(content), _ADMITTED, budget=Budget.of_file(len(content)))


_MALFORMED = (InvalidInput, ValueError)

_FORMATS = (
    _Format(
        r"data_batch_\d", "test_batch", "batches.meta", _batch(b"labels"), _names(b"label_names")
    ),
    _Format("train", "test", "meta", _batch(b"fine_labels"), _names(b"fine_label_names")),
    _Format(r"data_batch_\d\.bin", "test_batch.bin", "batches.meta.txt", _records(1), _lines),
    _Format(r"train\.bin", "test.bin", "fine_label_names.txt", _records(2), _lines),
)
