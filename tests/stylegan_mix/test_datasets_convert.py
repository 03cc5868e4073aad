"""Images that lose something when they are taken, and kinds that Pillow may or may not read."""

from __future__ import annotations

import io
import struct
import subprocess
import sys
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from image_folders import folder
from PIL import Image, features

from stylegan_mix import datasets
from stylegan_mix.datasets import image_files
from stylegan_mix.datasets.image_files import BadImage, Shape, decode, inspect
from stylegan_mix.datasets.prepare import Request, prepare
from stylegan_mix.errors import InvalidInput

GREY, COLOUR = (Shape(None, None, channels, convert=True) for channels in (1, 3))


def encoded(image: Image.Image, kind: str = "PNG", **options: Any) -> bytes:
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def rising() -> np.ndarray:
    return np.linspace(0, 65535, 64).astype(np.uint16).reshape(8, 8)


def png_16(pixels: np.ndarray, colour: int) -> bytes:
    """A 16-bit PNG of this colour type: 2 is RGB, 4 grey with alpha, 6 RGBA."""
    height, width = pixels.shape[:2]
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in pixels)
    chunks = {
        b"IHDR": struct.pack(">IIBBBBB", width, height, 16, colour, 0, 0, 0),
        b"IDAT": zlib.compress(rows),
        b"IEND": b"",
    }
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))
        for name, body in chunks.items()
    )


SIXTEEN = {
    "PNG": encoded(Image.fromarray(rising())),
    "TIFF": encoded(Image.fromarray(rising()), "TIFF"),
    "TIFF of big bytes first": encoded(
        Image.frombytes("I;16B", (8, 8), rising().astype(">u2").tobytes()), "TIFF"
    ),
    "PGM": b"P5 8 8 65535\n" + rising().astype(">u2").tobytes(),
}


@pytest.mark.parametrize("kind", SIXTEEN)
def test_16_bit_grey_is_scaled_to_its_upper_8_bits(kind: str) -> None:
    with pytest.raises(BadImage, match="more than 8 bits a channel .--convert"):
        inspect(SIXTEEN[kind])
    header = inspect(SIXTEEN[kind], convert=True)
    assert (header.width, header.colour, header.alpha) == (8, False, False)
    found = decode(SIXTEEN[kind], GREY)[..., 0]
    assert np.array_equal(found, (rising() >> 8).astype(np.uint8))
    assert np.array_equal(decode(SIXTEEN[kind], COLOUR)[..., 2], found)


@pytest.mark.parametrize(("colour", "channels"), [(2, 3), (6, 4)])
def test_16_bit_colour_is_scaled_as_grey_is(colour: int, channels: int) -> None:
    pixels = np.random.default_rng(0).integers(0, 65536, (8, 8, channels)).astype(np.uint16)
    content = png_16(pixels, colour)
    with pytest.raises(BadImage, match="8 bits"):
        inspect(content)
    assert inspect(content, convert=True).alpha == (channels == 4)
    shape = Shape(None, None, channels, convert=True)
    assert np.array_equal(decode(content, shape), (pixels >> 8).astype(np.uint8))


def test_cmyk_becomes_rgb() -> None:
    content = encoded(Image.new("CMYK", (8, 8), (255, 0, 0, 0)), "TIFF")
    with pytest.raises(BadImage, match="is CMYK .--convert makes it RGB"):
        inspect(content)
    assert inspect(content, convert=True).colour
    assert decode(content, COLOUR)[0, 0].tolist() == [0, 255, 255]
    jpeg = encoded(Image.new("CMYK", (8, 8), (0, 0, 0, 0)), "JPEG")
    assert decode(jpeg, COLOUR)[0, 0].tolist() == [255, 255, 255]


@pytest.mark.parametrize("kind", ["GIF", "PNG", "WEBP", "TIFF"])
def test_the_first_frame_of_an_animation_is_taken(kind: str) -> None:
    frames = [Image.new("RGB", (8, 8), level) for level in ((250, 0, 0), (0, 250, 0), (0, 0, 250))]
    options = {"lossless": True} if kind == "WEBP" else {}
    content = encoded(frames[0], kind, save_all=True, append_images=frames[1:], **options)
    with pytest.raises(BadImage, match="is animated .--convert takes the first frame"):
        inspect(content)
    assert (decode(content, COLOUR)[..., 0] >= 249).all()


def test_values_of_unknown_range_stay_refused() -> None:
    for kind in (np.float32, np.int32):
        content = encoded(Image.fromarray(np.zeros((4, 4), kind)), "TIFF")
        with pytest.raises(BadImage, match="of unknown range"):
            inspect(content, convert=True)


@pytest.mark.parametrize("kind", ["PNG", "TIFF"])
@pytest.mark.parametrize("bits", [8, 16])
def test_a_turned_image_is_turned_once_in_every_kind(kind: str, bits: int) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    upper = (rising()[:4] >> 8).astype(np.uint8)
    content = encoded(Image.fromarray(upper if bits == 8 else rising()[:4]), kind, exif=exif)
    header = inspect(content, convert=True)
    assert (header.width, header.height) == (4, 8)
    assert np.array_equal(decode(content, GREY)[..., 0], np.rot90(upper, -1))


def test_the_option_decides_and_is_another_request(home: Path) -> None:
    source = folder(home.parent / "source", {"cat": 6, "dog": 6})
    (source / "cat" / "001.png").write_bytes(SIXTEEN["PNG"])
    with pytest.raises(InvalidInput, match="--convert scales them to 8"):
        prepare(Request("odd", source))
    done = prepare(Request("odd", source, convert=True))
    assert (done.facts["convert"], done.facts["skipped_images"]) == (True, 0)
    skipped = prepare(Request("less", source, on_bad_image="skip"))
    assert (skipped.facts["skipped_images"], "convert" in skipped.facts) == (1, False)
    assert len(datasets.load("odd").train) + len(datasets.load("odd").test) == 12


# --------------------------------------------------------------------- other kinds


@pytest.mark.skipif(not features.check("avif"), reason="this Pillow reads no AVIF")
def test_avif_is_read_and_its_10_bits_are_seen(home: Path) -> None:
    pixels = np.zeros((8, 8, 3), np.uint8) + 200
    content = encoded(Image.fromarray(pixels), "AVIF", quality=100)
    found = decode(content, Shape(None, None, 3))
    assert abs(found.astype(int) - 200).max() <= 2
    # Pillow writes 8 bits only, and its decoder refuses a file whose header says something else.
    opened = Image.open(io.BytesIO(content))
    place = content.find(b"av1C") + 6
    deep = content[:place] + bytes([content[place] | 0x40]) + content[place + 1 :]
    assert (image_files._bits(opened, content), image_files._bits(opened, deep)) == (8, 10)
    source = folder(home.parent / "source", {"cat": 5, "dog": 5})
    (source / "cat" / "more.avif").write_bytes(content)
    done = prepare(Request("odd", source))
    assert done.facts["train_images"] + done.facts["test_images"] == 11


HEIF = """
import sys, types
from PIL import Image, ImageFile
called = []
plugin = types.ModuleType("pillow_heif")
plugin.register_heif_opener = lambda: called.append(1)
if "with" in sys.argv:
    sys.modules["pillow_heif"] = plugin
else:
    sys.modules["pillow_heif"] = None
from stylegan_mix.datasets.image_files import FORMATS, SUFFIXES
print(called, ".heic" in SUFFIXES, "HEIF" in FORMATS)
"""


@pytest.mark.parametrize(("word", "said"), [("with", "[1] True True"), ("none", "[] False False")])
def test_heic_is_read_where_pillow_has_the_plugin(word: str, said: str, repo_root: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", HEIF, word], capture_output=True, text=True, cwd=repo_root
    )
    assert (done.stdout.strip(), done.stderr) == (said, "")


WITHOUT = """
import sys, runpy
sys.modules["pillow_heif"] = None
sys.argv = ["stylegan-mix", *sys.argv[1:]]
runpy.run_module("stylegan_mix", run_name="__main__")
"""


def without_plugin(repo_root: Path, *words: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", WITHOUT, *map(str, words)]
    return subprocess.run(command, capture_output=True, text=True, cwd=repo_root)


def test_heic_that_is_not_read_tells_what_to_install(home: Path, repo_root: Path) -> None:
    install = "pip install 'stylegan-mix[heic]'"
    heic = b"\0\0\0\x18ftypheic" + bytes(64)
    source = folder(home.parent / "source", {"cat": 5, "dog": 5})
    words = ("dataset", "prepare", "odd", "--from", source, "--dry-run")
    (source / "cat" / "more.HEIC").write_bytes(heic)
    some = without_plugin(repo_root, *words)
    assert some.returncode == 0, some.stderr
    assert f"by class: cat 1 .heic; to read HEIC: {install}" in some.stderr
    (source / "cat" / "called.jpg").write_bytes(heic)
    called = without_plugin(repo_root, *words)
    assert called.returncode == 3
    assert f"'cat/called.jpg' is HEIC, which {install} makes readable" in called.stderr
    for path in source.rglob("*.*"):
        path.rename(path.with_suffix(".heif"))
    none = without_plugin(repo_root, *words)
    assert none.returncode == 3 and install in none.stderr
    folder(source, {"cow": 5})
    lost = without_plugin(repo_root, *words)
    assert lost.returncode == 3 and "their .heif files cannot be read here" in lost.stderr
    assert install in lost.stderr


HEIF_FILES = """
import io, sys, types
import numpy as np
from PIL import Image, ImageFile

# A plugin of the same calls: bytes that Pillow knows under another name.
class File(ImageFile.ImageFile):
    format = "HEIF"
    def _open(self):
        self._size, self._mode = (6, 4), "RGB"
        self.info = {"bit_depth": self.fp.read(12)[11]}
        self.tile = [ImageFile._Tile("raw", (0, 0, 6, 4), 12, ("RGB", 0, 1))]

def register_heif_opener():
    Image.register_open("HEIF", File, lambda start: start[4:11] == b"ftyphei")

sys.modules["pillow_heif"] = types.SimpleNamespace(register_heif_opener=register_heif_opener)
from stylegan_mix.datasets.image_files import BadImage, Shape, decode, inspect
pixels = np.arange(72, dtype=np.uint8).reshape(4, 6, 3)
def content(depth):
    return b"\\0\\0\\0\\x18ftyphei" + bytes([depth]) + pixels.tobytes()
assert (inspect(content(8)).width, inspect(content(8)).height) == (6, 4)
assert (decode(content(8), Shape(None, None, 3)) == pixels).all()
try:
    decode(content(10), Shape(None, None, 3))
except BadImage as error:
    print(error)
assert (decode(content(10), Shape(None, None, 3, True)) == pixels).all()
"""


def test_heic_of_more_than_8_bits_is_converted_only_if_asked(repo_root: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", HEIF_FILES], capture_output=True, text=True, cwd=repo_root
    )
    assert done.stderr == ""
    assert done.stdout == "has more than 8 bits a channel (--convert scales them to 8)\n"
