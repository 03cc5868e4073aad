"""Single images: every kind that is taken, and every kind that is refused with a reason."""

from __future__ import annotations

import io
import struct
import zlib
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageFile

from stylegan_mix.datasets import image_files
from stylegan_mix.datasets.image_files import BadImage, Shape, decode, inspect

AS_IS = {channels: Shape(None, None, channels) for channels in (1, 3, 4)}


def encoded(image: Image.Image, kind: str = "PNG", **options: Any) -> bytes:
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def noise(*shape: int) -> np.ndarray:
    return np.random.default_rng(1).integers(0, 256, shape, np.uint8)


@pytest.mark.parametrize(
    ("shape", "channels"), [((6, 5), 1), ((6, 5, 3), 3), ((6, 5, 4), 4)], ids=["L", "RGB", "RGBA"]
)
@pytest.mark.parametrize("kind", ["PNG", "WEBP", "TIFF"])
def test_lossless_pixels_arrive_unchanged(shape: Any, channels: int, kind: str) -> None:
    pixels = noise(*shape)
    options = {"lossless": True, "exact": True} if kind == "WEBP" else {}
    content = encoded(Image.fromarray(pixels), kind, **options)
    if kind == "WEBP" and channels == 1:
        channels, pixels = 3, np.repeat(pixels[..., None], 3, 2)
    assert np.array_equal(decode(content, AS_IS[channels]), pixels.reshape(6, 5, channels))


def test_the_centre_is_cut_from_images_of_every_size() -> None:
    """Seven eighths of 16 pixels are the middle 14, also where 14 or 16 pixels are wanted."""
    pixels = noise(16, 24, 3)
    content = encoded(Image.fromarray(pixels))
    assert np.array_equal(decode(content, Shape(14, "centre", 3)), pixels[1:15, 5:19])
    square = encoded(Image.fromarray(pixels[:, :16]))
    found = decode(square, Shape(16, "centre", 3))
    assert found.shape == (16, 16, 3) and not np.array_equal(found, pixels[:, :16])
    box = (1, 1, 15, 15)
    image = Image.fromarray(pixels[:, :16]).resize((16, 16), Image.Resampling.BILINEAR, box=box)
    assert np.array_equal(found, np.asarray(image))


def test_a_window_is_brought_to_the_size_with_the_channels_of_the_shape() -> None:
    pixels = noise(10, 20)
    content = encoded(Image.fromarray(pixels))
    sizes = []

    def window(width: int, height: int) -> tuple[float, float, float, float]:
        sizes.append((width, height))
        return (2, 1, 10, 9)

    found = image_files.decode_window(content, Shape(8, "centre", 3), window)
    assert sizes == [(20, 10)] and found.shape == (8, 8, 3)
    assert np.array_equal(found[:, :, 0], pixels[1:9, 2:10])
    turned = Image.fromarray(pixels)
    exif = turned.getexif()
    exif[0x0112] = 6  # a quarter turn
    image_files.decode_window(encoded(turned, "JPEG", exif=exif), Shape(8, None, 3), window)
    assert sizes[1] == (10, 20)


def test_grey_of_equal_channels_is_that_channel() -> None:
    grey = noise(8, 8)
    content = encoded(Image.fromarray(np.repeat(grey[..., None], 3, 2)))
    assert np.array_equal(decode(content, AS_IS[1])[..., 0], grey)


def test_alpha_is_laid_over_white_where_there_is_no_channel_for_it() -> None:
    pixels = np.zeros((4, 4, 4), np.uint8)
    pixels[0, 0] = (10, 20, 30, 255)
    content = encoded(Image.fromarray(pixels))
    assert inspect(content).alpha
    found = decode(content, AS_IS[3])
    assert found[0, 0].tolist() == [10, 20, 30]
    assert (found[1:] == 255).all()
    assert decode(content, AS_IS[1])[3, 3, 0] == 255
    opaque = decode(encoded(Image.fromarray(pixels[..., :3])), AS_IS[4])
    assert (opaque[..., 3] == 255).all()


def test_palette_and_transparent_colour_are_understood() -> None:
    palette = Image.fromarray(noise(6, 6, 3)).quantize(8)
    expected = np.asarray(palette.convert("RGB"))
    assert np.array_equal(decode(encoded(palette), AS_IS[3]), expected)
    clear = encoded(palette, transparency=0)
    assert inspect(clear).alpha
    assert (decode(clear, AS_IS[3])[np.asarray(palette) == 0] == 255).all()


def test_an_exif_rotation_is_applied_once() -> None:
    pixels = noise(4, 6, 3)
    exif = Image.Exif()
    exif[0x0112] = 6  # a quarter turn clockwise
    content = encoded(Image.fromarray(pixels), exif=exif)
    assert (inspect(content).width, inspect(content).height) == (4, 6)
    assert np.array_equal(decode(content, AS_IS[3]), np.rot90(pixels, -1))


def ihdr(width: int, height: int, depth: int = 8) -> bytes:
    """A PNG of this size whose pixels are few: what is refused by its header alone."""
    chunks = {
        b"IHDR": struct.pack(">IIBBBBB", width, height, depth, 2, 0, 0, 0),
        b"IDAT": zlib.compress(bytes(100)),
        b"IEND": b"",
    }
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))
        for name, body in chunks.items()
    )


FRAMES = [Image.new("L", (4, 4), level) for level in (0, 255)]
BAD = {
    "empty": (b"", "empty"),
    "text": (b"this is no image", "unknown format"),
    "huge header": (ihdr(20_000, 20_000), "64,000,000"),
    "large header": (ihdr(9_000, 9_000), "64,000,000|pixels"),
    "16-bit grey": (encoded(Image.fromarray(np.zeros((4, 4), np.uint16))), "8 bits"),
    "16-bit PGM": (b"P5 2 2 65535\n" + bytes(8), "8 bits"),
    "16-bit colour": (ihdr(4, 4, 16), "8 bits"),
    "float": (encoded(Image.fromarray(np.zeros((4, 4), np.float32)), "TIFF"), "8 bits"),
    "CMYK": (encoded(Image.new("CMYK", (4, 4)), "JPEG"), "CMYK"),
    "animated GIF": (
        encoded(FRAMES[0], "GIF", save_all=True, append_images=FRAMES[1:]),
        "animated",
    ),
    "EPS": (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 4 4\n", "unknown format"),
}


@pytest.mark.parametrize("kind", BAD)
def test_bad_images_are_refused_from_their_headers(kind: str) -> None:
    content, why = BAD[kind]
    with pytest.raises(BadImage, match=why):
        inspect(content)


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "GIF", "BMP", "TIFF", "PPM"])
def test_a_header_is_read_without_decoding(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ImageFile.ImageFile, "load", never)
    header = inspect(encoded(Image.fromarray(noise(5, 4, 3)), kind))
    assert (header.width, header.height, header.alpha) == (4, 5, False)


def never(*_: Any) -> None:
    raise AssertionError("decoded")


def test_an_image_over_the_limit_is_refused_before_it_is_decoded(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    content = encoded(Image.new("RGB", (40, 40)))
    monkeypatch.setattr(image_files, "LARGEST_PIXELS", 1599)
    monkeypatch.setattr(ImageFile.ImageFile, "load", never)
    with pytest.raises(BadImage, match="40 x 40"):
        decode(content, AS_IS[3])


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP", "GIF", "BMP", "TIFF"])
def test_a_truncated_file_is_refused(kind: str) -> None:
    content = encoded(Image.fromarray(noise(32, 32, 3)), kind)
    for cut in (len(content) // 3, len(content) // 2, len(content) - 40):
        with pytest.raises(BadImage):
            decode(content[:cut], AS_IS[3])


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP", "GIF", "BMP", "TIFF", "PPM"])
def test_flipped_bytes_give_an_image_or_a_reason(kind: str) -> None:
    whole = bytearray(encoded(Image.fromarray(noise(9, 9, 3)), kind))
    draws = np.random.default_rng(0)
    for _ in range(60):
        content = bytearray(whole)
        for place in draws.integers(0, len(whole), 3):
            content[place] = draws.integers(0, 256)
        try:
            assert decode(bytes(content), AS_IS[3]).shape[2] == 3
        except BadImage as error:
            assert str(error)


@pytest.mark.parametrize("fit", image_files.FITS)
@pytest.mark.parametrize("channels", [1, 3, 4])
def test_every_fit_gives_the_size(fit: str, channels: int) -> None:
    for shape in ((7, 20, 3), (20, 7, 3), (1, 30, 3), (3, 3, 3)):
        content = encoded(Image.fromarray(noise(*shape)))
        assert decode(content, Shape(16, fit, channels)).shape == (16, 16, channels)


def test_the_right_size_is_left_alone() -> None:
    pixels = noise(16, 16, 3)
    for fit in ("crop", "pad", "stretch"):  # "centre" cuts every image
        found = decode(encoded(Image.fromarray(pixels)), Shape(16, fit, 3))
        assert np.array_equal(found, pixels)


def test_crop_takes_the_middle_and_pad_adds_the_border_colour() -> None:
    pixels = np.full((8, 24, 3), 200, np.uint8)
    pixels[:, 8:16] = 50
    content = encoded(Image.fromarray(pixels))
    assert (decode(content, Shape(8, "crop", 3)) == 50).all()
    padded = decode(content, Shape(24, "pad", 3))
    assert np.array_equal(padded[8:16], pixels)
    assert (padded[:8] == 200).all()
    assert (padded[16:] == 200).all()
