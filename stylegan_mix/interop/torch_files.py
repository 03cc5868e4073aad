"""Tensors of PyTorch's files as NumPy arrays: the zip format, the older stream, single storages.

This is our own reader of the files that `torch.save` writes, on the machine of `pickles`. PyTorch's
restricted unpickler was bypassed twice; it allocates as much as a file declares, and checks no CRC.
Here a tensor must lie inside its storage and a storage inside the file. Unused storages are not
read. No torch.
"""

from __future__ import annotations

import io
import math
import zipfile
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from stylegan_mix import pickles
from stylegan_mix.errors import InvalidInput
from stylegan_mix.pickles import (
    NUMPY,
    Budget,
    Left,
    Names,
    OddArguments,
    Symbol,
    called_with_nothing,
    taken,
)
from stylegan_mix.showing import shown
from stylegan_mix.zips import open_zip

__all__ = ["MAGIC", "TENSORS", "Storage", "Tensor", "read_stream", "read_zip", "storage_maker"]

MAGIC = b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19."
_MAGIC_NUMBER = 0x1950A86A20F9469CFC6C
_STREAM_VERSION = 1001
_LARGEST_PROGRAM = 64 << 20
_MOST_MEMBERS = 100_000
_MOST_DIMENSIONS = 8
# Parts of a reference to a storage; letters of its key, a number in most files.
_REFERENCE, _LONGEST_KEY = 6, 200

_BFLOAT16 = "bfloat16"
# Class of a storage -> type of its numbers, their size in bytes.
_KINDS = {
    "FloatStorage": ("<f4", 4),
    "DoubleStorage": ("<f8", 8),
    "HalfStorage": ("<f2", 2),
    "BFloat16Storage": (_BFLOAT16, 2),
    "LongStorage": ("<i8", 8),
    "IntStorage": ("<i4", 4),
    "ShortStorage": ("<i2", 2),
    "CharStorage": ("<i1", 1),
    "ByteStorage": ("<u1", 1),
    "BoolStorage": ("<u1", 1),
}

Content = Callable[[], memoryview]


@dataclass(frozen=True, slots=True, eq=False)
class Storage:
    """`count` numbers of `kind` and `itemsize`; `content` reads their bytes from the file."""

    kind: str
    itemsize: int
    count: int
    content: Content


@dataclass(frozen=True, slots=True, eq=False)
class Tensor:
    """A tensor of the file: a part of a storage, checked to lie inside it, not read yet."""

    storage: Storage
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]

    @property
    def bytes(self) -> int:
        """The size of its numbers, once they are read."""
        return math.prod(self.shape) * self.storage.itemsize

    def array(self) -> np.ndarray:
        """Reads the numbers, as a view of the file's bytes if NumPy knows their type."""
        size, wide = self.storage.itemsize, self.storage.kind == _BFLOAT16
        array = np.ndarray(
            self.shape,
            "<u2" if wide else self.storage.kind,
            buffer=self.storage.content(),
            offset=self.offset * size,
            strides=[stride * size for stride in self.strides],
        )
        # The upper half of a float32.
        return (array.astype("<u4") << np.uint32(16)).view("<f4") if wide else array


# --------------------------------------------------------------------- calls in the pickles


def _tensor(arguments: tuple[Any, ...]) -> Tensor:
    """Replaces `torch._utils._rebuild_tensor_v2`: storage, offset, shape, strides; rest unused."""
    storage, offset, shape, strides = taken(arguments, Storage, int, tuple, tuple)
    # First the lengths: one long tuple could be gone through again and again.
    if len(shape) != len(strides) or len(shape) > _MOST_DIMENSIONS:
        raise OddArguments(f"{len(shape)} dimensions and {len(strides)} strides")
    numbers = (offset, *shape, *strides)
    if any(type(number) is not int or not 0 <= number < 1 << 48 for number in numbers):
        raise OddArguments("a shape, a stride or an offset that is no small whole number")
    count = math.prod(shape)
    if count:
        steps = zip(shape, strides, strict=True)
        end = offset + sum((size - 1) * stride for size, stride in steps) + 1
        if end > storage.count or count > storage.count:
            raise OddArguments(
                f"a tensor of shape {list(shape)} and strides {list(strides)} at {offset}, beyond "
                f"its storage of {storage.count:,} numbers"
            )
    return Tensor(storage, offset if count else 0, shape, strides)


def _parameter(arguments: tuple[Any, ...]) -> Tensor:
    """Replaces `torch._utils._rebuild_parameter`: returns the tensor, trained or not."""
    tensor: Tensor = taken(arguments, Tensor)[0]
    return tensor


def _set(arguments: tuple[Any, ...]) -> Left:
    """Replaces `set`, as protocols before 4 spell it; no network needs its members."""
    taken(arguments, list)
    return Left("set")


TENSORS: Names = {
    ("torch._utils", "_rebuild_tensor_v2"): _tensor,
    ("torch._utils", "_rebuild_parameter"): _parameter,
    ("collections", "OrderedDict"): called_with_nothing(dict),
    ("builtins", "set"): _set,
    ("__builtin__", "set"): _set,
    **NUMPY,
}
"""The names that every file with tensors refers to; ordered dictionaries become plain ones."""


def _never(_: tuple[Any, ...]) -> Any:
    raise OddArguments("arguments, where it is only referred to")


_STORAGE_KINDS: Names = {("torch", name): _never for name in _KINDS}

Find = Callable[[str, int], Content]


def _references(find: Find) -> pickles.Maker:
    """Resolves ("storage", class, key, device, count, None); `find(key, bytes)` finds the bytes."""

    def resolve(reference: tuple[Any, ...]) -> Storage:
        word, kind, key, _, count = taken(reference, str, Symbol, str, str, int)
        name = kind.name.removeprefix("torch.")
        others = len(reference) > _REFERENCE or any(one is not None for one in reference[5:])
        if word != "storage" or name not in _KINDS or others or len(key) > _LONGEST_KEY:
            raise OddArguments("something else than a storage")
        if not 0 <= count < 1 << 48:
            raise OddArguments(f"a storage of {count} numbers")
        numbers, itemsize = _KINDS[name]
        return Storage(numbers, itemsize, count, find(key, count * itemsize))

    return resolve


# --------------------------------------------------------------------- the older stream


def read_stream(content: bytes, names: Names, budget: Budget) -> Any:
    """Reads a file in the format before PyTorch 1.6, or of a single storage.

    Pickles follow one another: a magic number, a version, facts of the machine, the value, the keys
    of its storages. Then for each key come a count of 8 bytes and the numbers.
    """
    file, declared = io.BytesIO(content), _Declared()
    start = [pickles.read(file, {}, budget=budget) for _ in range(3)]
    facts = start[2] if type(start[2]) is dict else {}
    if start[:2] != [_MAGIC_NUMBER, _STREAM_VERSION] or facts.get("little_endian") is not True:
        raise InvalidInput("it is no stream of torch.save, version 1001, little-endian")
    names = {**names, **_STORAGE_KINDS}
    value = pickles.read(file, names, persistent=_references(declared.find), budget=budget)
    keys = pickles.read(file, {}, budget=budget)
    if type(keys) is not list or set(map(type, keys)) - {str} or not declared.are(keys):
        raise InvalidInput("its list of storages does not fit what refers to them")
    declared.fill(memoryview(content)[file.tell() :], keys)
    return value


class _Declared:
    """The storages that a stream refers to; their bytes follow behind."""

    def __init__(self) -> None:
        self._bytes: dict[str, int] = {}
        self._found: dict[str, memoryview] = {}

    def find(self, key: str, size: int) -> Content:
        if self._bytes.setdefault(key, size) != size:
            raise OddArguments("a storage that has another size elsewhere")
        return lambda: self._found[key]

    def are(self, keys: list[str]) -> bool:
        """Tells if these are the keys of the storages, each once."""
        return len(keys) == len(self._bytes) and set(keys) == set(self._bytes)

    def fill(self, content: memoryview, keys: list[str]) -> None:
        for key in keys:
            size = self._bytes[key]
            count, numbers = int.from_bytes(content[:8], "little"), content[8 : 8 + size]
            if len(numbers) != size or not _divides(count, size):
                raise InvalidInput(
                    f"a storage of {size:,} bytes is declared, {len(numbers):,} are there"
                )
            self._found[key], content = numbers, content[8 + size :]
        if content:
            raise InvalidInput(f"{len(content):,} bytes lie behind its end")


def _divides(count: int, size: int) -> bool:
    """Tells if `count` numbers of 1, 2, 4 or 8 bytes can have this size."""
    return size == 0 == count or (count > 0 and size % count == 0 and size // count in (1, 2, 4, 8))


def storage_maker(budget: Budget) -> pickles.Maker:
    """Makes the stand-in for `torch.storage._load_from_bytes`: a stream that holds one storage."""

    def load(arguments: tuple[Any, ...]) -> Storage:
        content = taken(arguments, bytes)[0]
        storage = read_stream(content, {}, budget)
        if type(storage) is not Storage:
            raise OddArguments("a stream that holds no storage")
        return storage

    return load


# --------------------------------------------------------------------- the zip format

_DAMAGED = (
    zipfile.BadZipFile,
    zlib.error,
    EOFError,
    KeyError,
    NotImplementedError,
    OSError,
    OverflowError,
    RuntimeError,
    ValueError,
)


def read_zip(content: bytes, names: Names, budget: Budget) -> Any:
    """Reads a file in today's format: a zip of `data.pkl` and a member for each storage."""
    members = _Members(content)
    program = io.BytesIO(members.read("data.pkl", _LARGEST_PROGRAM))
    if members.has("byteorder") and members.read("byteorder", 16) != b"little":
        raise InvalidInput("its numbers are not little-endian")

    def find(key: str, size: int) -> Content:
        members.require(f"data/{key}", size)
        return lambda: memoryview(members.read(f"data/{key}", size))

    names = {**names, **_STORAGE_KINDS}
    return pickles.read(program, names, persistent=_references(find), budget=budget)


class _Members:
    """The members of a zip in memory, stored and not compressed, under the folder of `data.pkl`.

    The file's size bounds the bytes read altogether: overlapping members could be many times as
    large.
    """

    def __init__(self, content: bytes) -> None:
        self._left = len(content)
        self._read: dict[str, bytes] = {}
        try:
            self._zip = open_zip(io.BytesIO(content), most=_MOST_MEMBERS)
        except _DAMAGED as error:
            raise InvalidInput(f"it is a damaged zip: {shown(str(error), 120)}") from error
        listed = self._zip.infolist()
        self._members = {member.filename: member for member in listed}
        if len(self._members) != len(listed):
            raise InvalidInput("it is a zip with two members of one name")
        programs = [name for name in self._members if name.split("/")[1:] == ["data.pkl"]]
        if len(programs) != 1:
            raise InvalidInput("it is a zip, but none that torch.save wrote: no data.pkl in it")
        self._folder = programs[0].removesuffix("data.pkl")

    def has(self, name: str) -> bool:
        return self._folder + name in self._members

    def require(self, name: str, size: int) -> None:
        """Raises unless the member is there, stored, with that many bytes."""
        member = self._members.get(self._folder + name)
        found = -1 if member is None else member.file_size
        if member is None or found != size:
            there = "it is missing" if member is None else f"{found:,} are there"
            raise InvalidInput(f"member '{shown(name)}' of {size:,} bytes is declared, {there}")
        if member.compress_type != zipfile.ZIP_STORED:
            raise InvalidInput(f"member '{shown(name)}' is compressed")

    def read(self, name: str, most: int) -> bytes:
        """Reads a member of at most `most` bytes, and checks its CRC."""
        if name in self._read:
            return self._read[name]
        size = self._members[self._folder + name].file_size
        if size > most:
            raise InvalidInput(f"member '{name}' has {size:,} bytes; at most {most:,} are read")
        self.require(name, size)
        self._left -= size
        if self._left < 0:
            raise InvalidInput("its members lie over one another")
        try:
            content = self._zip.read(self._folder + name)
        except _DAMAGED as error:
            raise InvalidInput(f"member '{name}' is damaged") from error
        if len(content) != size:
            raise InvalidInput(f"member '{name}' ends too early")
        self._read[name] = content
        return content
