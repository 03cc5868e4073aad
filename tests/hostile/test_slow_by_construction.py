"""Small files that take hours or gigabytes in honest readers are refused, or read at once."""

from __future__ import annotations

import io
import struct
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from confined import RETURNED, confined
from PIL import Image

from stylegan_mix.datasets import archives, members
from stylegan_mix.datasets.image_files import BadImage, Shape, decode, inspect
from stylegan_mix.interop import torch_files
from stylegan_mix.pickles import Budget

SHAPE = Shape(8, "crop", 3)


def opened(path: Path) -> None:
    with archives.open_archive(path):
        pass


def header(name: str, kind: bytes = b"0") -> bytes:
    made = tarfile.TarInfo(name)
    made.type = kind
    return made.tobuf(tarfile.USTAR_FORMAT)


@pytest.mark.parametrize("kind", [b"0", b"5"], ids=["files", "folders"])
def test_a_tar_of_a_million_empty_members_is_refused(kind: bytes, tmp_path: Path) -> None:
    one, path = header("a/0000000", kind), tmp_path / "a.tar"
    with open(path, "wb") as file:
        for number in range(members.MOST_EMPTY + 10):
            text = one.replace(b"0000000", b"%07d" % number, 1)
            sums = sum(text[:148]) + sum(text[156:512]) + 8 * 32
            file.write(text[:148] + b"%06o\0 " % sums + text[156:])
        file.write(bytes(1024))
    told = confined(lambda: opened(path), memory=512 << 20, seconds=20)
    assert "more than 100,000 empty members" in told


def test_a_long_tar_tells_how_far_it_is(tmp_path: Path, home: Path) -> None:
    from stylegan_mix.session import Session

    with tarfile.open(tmp_path / "a.tar", "w") as target:
        for number in range(5):
            made = tarfile.TarInfo(f"a/{number}.png")
            made.size = 3
            target.addfile(made, io.BytesIO(b"abc"))
    seen: list[float] = []

    class Track:
        def update(self, done: float, **_: object) -> None:
            seen.append(done)

        def close(self) -> None: ...

    class Listener:
        def say(self, text: str) -> None: ...

        def track(self, total: float, unit: str, label: str, *, start: float = 0.0) -> Track:
            assert (unit, label) == ("bytes", "the members of a.tar")
            return Track()

    session = Session(reporter=Listener())
    with archives.open_archive(tmp_path / "a.tar", None, session) as archive:
        assert len(archive.names) == 5
        assert dict(archive.read(["a/3.png"])) == {"a/3.png": b"abc"}
    assert len(seen) == 5


def directory(count: int) -> bytes:
    """A zip whose list of members repeats one entry without a name."""
    entry = struct.pack("<4s4B4HL2L5H2L", b"PK\x01\x02", *[0] * 4, *[0] * 4, 0, *[0] * 9)
    assert len(entry) == 46
    size = 46 * count
    end = struct.pack("<4s4H2LH", b"PK\x05\x06", 0, 0, 0xFFFF, 0xFFFF, size, 4, 0)
    return b"PK\x03\x04" + entry * count + end


@pytest.mark.parametrize("count", [1_100_000])
def test_a_zip_of_very_many_members_is_refused_before_they_are_made(
    count: int, tmp_path: Path
) -> None:
    content, path = directory(count), tmp_path / "a.zip"
    path.write_bytes(content)
    assert "members" in confined(lambda: opened(path), memory=256 << 20)

    def read() -> None:
        torch_files.read_zip(content, {}, Budget())

    assert "damaged zip: it has more than 100,000 members" in confined(read, memory=256 << 20)


def png(*chunks: bytes) -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (8, 8)).save(buffer, format="PNG")
    whole = buffer.getvalue()
    return whole[:33] + b"".join(chunks) + whole[33:]


def chunk(kind: bytes, content: bytes) -> bytes:
    import zlib

    code = zlib.crc32(kind + content)
    return struct.pack(">L", len(content)) + kind + content + struct.pack(">L", code)


def gif(comment: int) -> bytes:
    buffer = io.BytesIO()
    Image.new("P", (8, 8)).save(buffer, format="GIF")
    whole = buffer.getvalue()
    return whole[:-1] + b"\x21\xfe" + (b"\xff" + b"c" * 255) * comment + b"\0" + whole[-1:]


def jpeg(fill: int) -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (8, 8)).save(buffer, format="JPEG")
    whole = buffer.getvalue()
    return whole[:2] + b"\xff" * fill + whole[2:]


SLOW: dict[str, Callable[[], bytes]] = {
    "a comment in a PPM": lambda: b"P6\n#" + b"c" * (16 << 20) + b"\n8 8\n255\n" + bytes(192),
    "a comment in the size of a PPM": lambda: b"P6 8#" + b"c" * (16 << 20) + b"\n 8 255\n",
    "zeros before the size of a PPM": lambda: (
        b"P6 " + b" " * (16 << 20) + b"8 8 255\n" + bytes(192)
    ),
    "comments in plain pixels": lambda: b"P3 999 999 255\n" + b"#\n" * (2 << 20) + b"0 " * 100,
    "many plain pixels": lambda: b"P2 6000 6000 255\n" + b"0 " * 36_000_000,
    "a comment in a GIF": lambda: gif(200_000),
    "many chunks in a PNG": lambda: png(chunk(b"abCd", b"") * 500_000),
    "many texts in a PNG": lambda: png(chunk(b"tEXt", b"a\0b") * 200_000),
    "fill bytes in a JPEG": lambda: jpeg(8 << 20),
}


@pytest.mark.parametrize("name", SLOW)
def test_an_image_that_takes_minutes_is_refused(name: str) -> None:
    content = SLOW[name]()

    def read() -> None:
        for reader in (inspect, lambda one: decode(one, SHAPE)):
            try:
                reader(content)
            except BadImage:
                continue

    assert confined(read, memory=1 << 30) == RETURNED


@pytest.mark.parametrize("form", ["png", "jpeg", "gif", "ppm", "bmp", "webp", "tiff"])
def test_large_honest_images_are_read(form: str) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (700, 900, 3), np.uint8)
    buffer = io.BytesIO()
    options: dict[str, Any] = {"comment": b"c" * 2000} if form in ("gif", "jpeg") else {}
    Image.fromarray(pixels).save(buffer, format=form, **options)
    assert decode(buffer.getvalue(), Shape(None, None, 3)).shape == (700, 900, 3)


def test_a_ppm_with_an_honest_comment_is_read() -> None:
    content = b"P5\n# made by a camera" + b" c" * 1000 + b"\n8 8\n255\n" + bytes(64)
    assert decode(content, SHAPE).shape == (8, 8, 3)
