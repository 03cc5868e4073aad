"""The safetensors format: round trips, the bytes of a known file, and every way to be no file."""

from __future__ import annotations

import json
from typing import Any

import pytest

from stylegan_mix.interop import safetensors
from stylegan_mix.interop.safetensors import Stored

ARRAYS = {
    "b": Stored("F32", (2, 3), bytes(range(24))),
    "a": Stored("BF16", (), b"\x80\x3f"),
    "none": Stored("I64", (0, 4), b""),
}


def file_of(header: Any, body: bytes = b"") -> bytes:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return len(text).to_bytes(8, "little") + text + body


def entry(dtype: Any = "F32", shape: Any = (1,), offsets: Any = (0, 4)) -> dict[str, Any]:
    return {"dtype": dtype, "shape": list(shape), "data_offsets": list(offsets)}


def test_what_is_written_is_read() -> None:
    content = safetensors.write(ARRAYS, {"format": "pt", "card": 'Käse "x"\n'})
    arrays, texts = safetensors.read(content)
    assert texts == {"format": "pt", "card": 'Käse "x"\n'}
    assert {
        name: Stored(one.dtype, one.shape, bytes(one.data)) for name, one in arrays.items()
    } == (ARRAYS)
    assert int.from_bytes(content[:8], "little") % 8 == 0
    assert safetensors.begins_like(content)
    shuffled = dict(reversed(ARRAYS.items()))
    assert safetensors.write(shuffled, {"format": "pt", "card": 'Käse "x"\n'}) == content


def test_the_arrays_of_other_writers_are_read_in_any_order() -> None:
    head = {"__metadata__": {"k": "v"}, "x": entry(), "a": entry("U8", (3,), (4, 7))}
    text = json.dumps(head).encode() + b"     "
    arrays, texts = safetensors.read(file_of(text, b"\0\0\x80\x3fabc"))
    assert texts == {"k": "v"}
    assert bytes(arrays["a"].data) == b"abc"
    assert bytes(arrays["x"].data) == b"\0\0\x80\x3f"


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "its header is to have 0 bytes"),
        (b"\x08\0\0\0\0\0\0", "its header"),
        (file_of({"x": entry()}, bytes(4))[:30], "its header is to have"),
        ((1 << 62).to_bytes(8, "little") + b"{}", "at most 2 are there or are read"),
        ((5 << 20).to_bytes(8, "little") + b"{" + bytes(6 << 20), "at most 4,194,304"),
        (file_of(b"{"), "no JSON"),
        (file_of(b"\xff\xfe"), "no JSON"),
        (file_of(b'{"x": 1, "x": 2}'), "no JSON"),
        (file_of(b"[" * 1000), "no JSON"),
        (file_of(b"[]"), "no JSON object"),
        (file_of({"__metadata__": {"k": 1}}), "texts alone"),
        (file_of({"__metadata__": []}), "texts alone"),
        (file_of({"x": entry()}, bytes(3)), "the file is cut"),
        (file_of({"x": entry()}, bytes(5)), "1 bytes lie behind"),
        (file_of({"x": entry(), "y": entry()}, bytes(4)), "overlaps the array before it"),
        (file_of({"x": entry(), "y": entry(offsets=(2, 6))}, bytes(6)), "overlaps"),
        (file_of({"x": entry(), "y": entry(offsets=(5, 9))}, bytes(9)), "leaves a gap"),
        (file_of({"x": entry(offsets=(4, 0))}, bytes(4)), "has -4 bytes"),
        (
            file_of({"x": entry(offsets=(0, 8))}, bytes(8)),
            "has 8 bytes; its dtype and shape take 4",
        ),
        (file_of({"x": entry(shape=(2,))}, bytes(4)), "take 8"),
        (file_of({"x": entry(shape=(1 << 40, 1 << 40))}, bytes(4)), "its dtype and shape take"),
        (file_of({"x": entry(shape=(1,) * 9)}, bytes(4)), "no shape"),
        (file_of({"x": entry(shape=(-1,))}, bytes(4)), "no shape"),
        (file_of({"x": entry(shape=(1.0,))}, bytes(4)), "no shape"),
        (file_of({"x": entry(shape=(True,))}, bytes(4)), "no shape"),
        (file_of({"x": entry(offsets=(0,))}, bytes(4)), "no beginning and end"),
        (file_of({"x": entry(dtype="F8_E4M3")}, bytes(4)), "has dtype F8_E4M3; known: F64"),
        (file_of({"x": entry(dtype=["F32"])}, bytes(4)), "has dtype a list"),
        (file_of({"x": {"dtype": "F32"}}, bytes(4)), "is not described by"),
        (file_of({"x": []}, bytes(4)), "is not described by"),
        (file_of({"": entry()}, bytes(4)), "has no name"),
        (file_of({"x\x1b": entry()}, bytes(4)), r"'x\\x1b' has no name"),
        (file_of({"x" * 201: entry()}, bytes(4)), "has no name"),
    ],
)
def test_what_is_no_file_says_why(content: bytes, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        safetensors.read(content)


def test_a_header_that_no_reader_takes_is_not_written() -> None:
    with pytest.raises(ValueError, match="too long"):
        safetensors.write({}, {"card": "x" * (5 << 20)})
