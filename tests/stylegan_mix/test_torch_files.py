"""Tensors of a foreign file lie in their storages, and storages in the file, or it is refused."""

from __future__ import annotations

import io
import struct
import zipfile
import zlib
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from stylegan_mix.errors import InvalidInput
from stylegan_mix.interop import foreign, torch_files

Refused = Callable[..., str]

# --------------------------------------------------------------------- tensors


def tensor(files: Any, storage: bytes, offset: Any, shape: Any, strides: Any) -> bytes:
    """A dictionary whose G_ema is one tensor; every number is its own declaration."""

    class Storage:
        def __reduce__(self) -> tuple[Any, ...]:
            return torch.storage._load_from_bytes, (storage,)

    class One:
        def __reduce__(self) -> tuple[Any, ...]:
            arguments = (Storage(), offset, shape, strides, False, OrderedDict())
            return torch._utils._rebuild_tensor_v2, arguments

    return files.root(One())


@pytest.mark.parametrize(
    ("offset", "shape", "strides"),
    [
        (0, (1 << 20, 1 << 20), (0, 0)),
        (0, (5,), (1,)),
        (1, (4,), (1,)),
        (0, (2, 2), (3, 1)),
        (0, (2,), (1 << 47,)),
        (-1, (2,), (1,)),
        (3, (2,), (-1,)),
        (0, (2,), (1, 1)),
        (0, (1,) * 20, (1,) * 20),
        (0, (2.0,), (1,)),
        (True, (2,), (1,)),
        (0, [4], [1]),
    ],
)
def test_a_tensor_that_is_not_in_its_storage_is_refused(
    offset: Any, shape: Any, strides: Any, files: Any, refused: Refused
) -> None:
    four = files.stored(np.ones(4, np.float32))
    assert "_rebuild_tensor_v2 with" in refused(tensor(files, four, offset, shape, strides))
    assert "no network under 'G_ema', but there a" in refused(tensor(files, four, 1, (3,), (1,)))


def test_a_storage_shorter_than_declared_is_refused(files: Any, refused: Refused) -> None:
    four = np.ones(4, np.float32)
    message = refused(tensor(files, files.stored(four, count=1 << 30), 0, (4,), (1,)))
    assert "a storage of 4,294,967,296 bytes is declared, 16 are there" in message
    message = refused(tensor(files, files.stored(four)[:-1], 0, (4,), (1,)))
    assert "16 bytes is declared, 15 are there" in message
    assert "8 bytes lie behind its end" in refused(
        tensor(files, files.stored(four) + bytes(8), 0, (4,), (1,))
    )


def other_key(content: bytes) -> bytes:
    """The stream with another key in its list of storages, at the end of the pickles."""
    at = content.rindex(b"q\x01a.") - 1
    return content[:at] + b"x" + content[at + 1 :]


@pytest.mark.parametrize(
    ("change", "why"),
    [
        (lambda data: data.replace(b"\x19.", b"\x18.", 1), "no stream of torch.save"),
        (lambda data: data.replace(b"M\xe9\x03", b"M\xe8\x03", 1), "version 1001"),
        (lambda data: data.replace(b"\x88", b"\x89", 1), "little-endian"),
        (other_key, "list of storages does not fit"),
        (lambda data: data.replace(struct.pack("<Q", 4), struct.pack("<Q", 5)), "is declared"),
        (lambda data: data.replace(struct.pack("<Q", 4), bytes(8)), "is declared"),
    ],
)
def test_a_stream_that_is_not_as_torch_wrote_it_is_refused(
    change: Any, why: str, files: Any, refused: Refused
) -> None:
    four = files.stored(np.ones(4, np.float32))
    assert change(four) != four
    assert why in refused(tensor(files, change(four), 0, (4,), (1,)))


def test_tensors_that_share_a_storage_many_times_are_refused(
    tmp_path: Path, files: Any, refused: Refused
) -> None:
    large = torch.zeros(100_000)
    content = files.port_content({**dict.fromkeys(map(str, range(9)), large)})
    content["g_ema"].update(
        {
            "style.1.weight": torch.ones(4, 4),
            "input.input": torch.ones(1, 4, 4, 4),
            "to_rgb1.bias": torch.ones(1, 3, 1, 1),
            "to_rgbs.0.bias": torch.ones(1, 3, 1, 1),
            "convs.0.conv.weight": torch.ones(1, 4, 4, 3, 3),
        }
    )
    path = files.port_file(tmp_path / "shared.pt", content)
    assert "its tensors share storages" in refused(path.read_bytes(), "bad.pt")


# --------------------------------------------------------------------- zip files


def rezipped(path: Path, change: Callable[[str, bytes], bytes | None], **options: Any) -> bytes:
    """The zip with `change(member, content)` in the place of each member; None leaves it out."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(path) as source, zipfile.ZipFile(buffer, "w", **options) as target:
        for member in source.namelist():
            content = change(member, source.read(member))
            if content is not None:
                target.writestr(member, content)
    return buffer.getvalue()


def is_first(member: str) -> bool:
    return member.endswith("/data/0")


@pytest.mark.parametrize(
    ("change", "why"),
    [
        (lambda name, data: data[:-1] if is_first(name) else data, "bytes is declared, "),
        (lambda name, data: data + b"x" if is_first(name) else data, "bytes is declared"),
        (lambda name, data: None if is_first(name) else data, "is declared, it is missing"),
        (lambda name, data: None if name.endswith("data.pkl") else data, "no data.pkl in it"),
        (lambda name, data: b"big" if name.endswith("byteorder") else data, "not little-endian"),
        (lambda name, data: data[:-9] if name.endswith("data.pkl") else data, "damaged pickle"),
    ],
)
def test_a_zip_that_is_not_as_torch_wrote_it_is_refused(
    change: Any, why: str, port: Path, refused: Refused
) -> None:
    assert why in refused(rezipped(port, change), "bad.pt")
    foreign.open_generator(rezipped(port, lambda _, data: data), port).network()


def test_members_that_unpack_or_lie_over_one_another_are_refused(
    port: Path, refused: Refused
) -> None:
    packed = rezipped(port, lambda _, data: data, compression=zipfile.ZIP_DEFLATED)
    assert "is compressed" in refused(packed, "bad.pt")
    content = port.read_bytes()
    with zipfile.ZipFile(port) as source:
        largest = max(source.infolist()[1:], key=lambda member: member.file_size)
    damaged = bytearray(content)
    damaged[largest.header_offset + 30 + 64 + largest.file_size // 2] ^= 1
    with pytest.raises(InvalidInput, match=r"'data/\d+' is damaged"):
        foreign.open_generator(bytes(damaged), port)
    with pytest.warns(UserWarning, match="Duplicate name"):
        twice = io.BytesIO(content)
        with zipfile.ZipFile(twice, "a") as target:
            target.writestr(target.namelist()[0], b"other")
    assert "two members of one name" in refused(twice.getvalue(), "bad.pt")


def test_members_inside_one_another_are_not_all_read() -> None:
    """Three members of nearly the whole file each: more is declared than the file holds."""
    content, offsets = bytes(5000), []
    for number in (2, 1, 0):
        buffer = io.BytesIO()
        with zipfile.ZipFile(buffer, "w") as target:
            target.writestr(f"x/data/{number}", content)
        # The local header and the content, without the directory behind them.
        content = buffer.getvalue()[: buffer.getvalue().index(b"PK\x01\x02")]
        offsets = [0, *(offset + 30 + len("x/data/0") for offset in offsets)]
    buffer = io.BytesIO(content)
    with zipfile.ZipFile(buffer, "a") as target:
        target.writestr("x/data.pkl", b"")
        for number, offset in enumerate(offsets):
            member = zipfile.ZipInfo(f"x/data/{number}")
            inner = content[offset + 38 :]
            member.header_offset, member.CRC = offset, zlib.crc32(inner)
            member.file_size = member.compress_size = len(inner)
            target.filelist.append(member)
            target.NameToInfo[member.filename] = member
    members = torch_files._Members(buffer.getvalue())
    with pytest.raises(InvalidInput, match="lie over one another|damaged"):
        for number in range(3):
            members.read(f"data/{number}", 1 << 20)
