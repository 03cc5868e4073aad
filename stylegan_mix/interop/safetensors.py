"""Files of the safetensors format: named arrays and texts, read and written as plain data.

A file is the length of its header (8 bytes, little endian), the header as JSON, and the bytes of
all arrays without gaps. The header gives dtype, shape and place of each array, and texts under
`__metadata__`. The format is small and fixed, so it is read here, under this project's bounds on
files and JSON; nothing in such a file can be run. No torch.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from stylegan_mix.reading import parse_json
from stylegan_mix.showing import is_plain, shown

__all__ = ["SIZES", "Stored", "begins_like", "read", "write"]

SIZES = {"F64": 8, "F32": 4, "F16": 2, "BF16": 2, "I64": 8, "I32": 4, "I16": 2, "U8": 1, "BOOL": 1}
"""Bytes of an element, by the format's names of dtypes."""

_METADATA = "__metadata__"
_LENGTH = 8
_LARGEST_HEADER = 4 << 20
_MOST_DIMENSIONS = 8
_LONGEST_NAME = 200


@dataclass(frozen=True)
class Stored:
    """An array in a file: its dtype, a name of `SIZES`, its shape, and its bytes in C order."""

    dtype: str
    shape: tuple[int, ...]
    data: bytes | memoryview


def begins_like(content: bytes) -> bool:
    """Tells if bytes begin as such a file does: a length that is no text, then an object."""
    return content[_LENGTH : _LENGTH + 1] == b"{" and content[4:_LENGTH] == bytes(4)


def write(arrays: Mapping[str, Stored], texts: Mapping[str, str]) -> bytes:
    """Composes a file; the same input gives the same bytes."""
    head: dict[str, Any] = {_METADATA: dict(texts)}
    end = 0
    for name, one in sorted(arrays.items()):
        begin, end = end, end + len(one.data)
        head[name] = {"dtype": one.dtype, "shape": list(one.shape), "data_offsets": [begin, end]}
    header = json.dumps(head, separators=(",", ":"), allow_nan=False).encode()
    header += b" " * (-len(header) % _LENGTH)
    if len(header) > _LARGEST_HEADER:
        raise ValueError(f"a header of {len(header):,} bytes is too long to be read")
    parts = [one.data for _, one in sorted(arrays.items())]
    return b"".join([len(header).to_bytes(_LENGTH, "little"), header, *parts])


def read(content: bytes) -> tuple[dict[str, Stored], dict[str, str]]:
    """Reads the arrays and texts of a file; the arrays are views of it. Raises ValueError."""
    length = int.from_bytes(content[:_LENGTH], "little")
    most = min(_LARGEST_HEADER, max(len(content) - _LENGTH, 0))
    if len(content) < _LENGTH or length > most:
        raise ValueError(
            f"its header is to have {length:,} bytes; at most {most:,} are there or are read"
        )
    start = _LENGTH + length
    try:
        head = parse_json(content[_LENGTH:start])
    except ValueError as error:
        raise ValueError(f"its header is no JSON: {shown(str(error), 200)}") from error
    if type(head) is not dict:
        raise ValueError("its header is no JSON object")
    texts = head.pop(_METADATA, {})
    if type(texts) is not dict or any(type(text) is not str for text in texts.values()):
        raise ValueError(f"its {_METADATA} does not hold texts alone")
    body = memoryview(content)[start:]
    return _arrays(head, body), texts


def _arrays(head: Mapping[str, Any], body: memoryview) -> dict[str, Stored]:
    """Cuts the arrays out of the body, which they must fill without gap or overlap."""
    places = {name: _place(name, entry) for name, entry in head.items()}
    found, end = {}, 0
    for name, (begin, stop, dtype, shape) in sorted(places.items(), key=lambda one: one[1][:2]):
        if begin != end:
            how = "overlaps the array before it" if begin < end else "leaves a gap before it"
            raise ValueError(
                f"array '{shown(name)}' at byte {begin:,} {how}, which ends at {end:,}"
            )
        if stop > len(body):
            raise ValueError(
                f"array '{shown(name)}' ends at byte {stop:,} of {len(body):,}: the file is cut"
            )
        found[name], end = Stored(dtype, shape, body[begin:stop]), stop
    if end != len(body):
        raise ValueError(f"{len(body) - end:,} bytes lie behind its last array")
    return found


def _place(name: str, entry: Any) -> tuple[int, int, str, tuple[int, ...]]:
    """Reads an entry of the header: (begin, end, dtype, shape)."""
    what = f"array '{shown(name)}'"
    if not (is_plain(name) and 0 < len(name) <= _LONGEST_NAME):
        raise ValueError(f"{what} has no name of an array")
    if type(entry) is not dict or set(entry) != {"dtype", "shape", "data_offsets"}:
        raise ValueError(f"{what} is not described by dtype, shape and data_offsets")
    dtype, shape, offsets = entry["dtype"], entry["shape"], entry["data_offsets"]
    if type(dtype) is not str or dtype not in SIZES:
        raise ValueError(f"{what} has dtype {shown(dtype)}; known: {', '.join(SIZES)}")
    if not _are_counts(shape) or len(shape) > _MOST_DIMENSIONS:
        raise ValueError(f"{what} has no shape of at most {_MOST_DIMENSIONS} sizes")
    if not _are_counts(offsets) or len(offsets) != 2:
        raise ValueError(f"{what} has no beginning and end")
    begin, end = offsets
    size = SIZES[dtype] * math.prod(shape)
    if end - begin != size:
        raise ValueError(f"{what} has {end - begin:,} bytes; its dtype and shape take {size:,}")
    return begin, end, dtype, tuple(shape)


def _are_counts(values: Any) -> bool:
    return type(values) is list and all(type(one) is int and one >= 0 for one in values)
