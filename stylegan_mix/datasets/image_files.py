"""Decoding of one image -> uint8 [H,W,C], with every limit checked before anything is decoded.

Images that lose something are refused unless it is asked for (`convert`): of 16 bits the upper 8
are taken, of an animation the first frame, and CMYK becomes RGB without its profile.
"""

from __future__ import annotations

import importlib
import struct
import warnings
import zlib
from collections.abc import Callable, Iterable
from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageOps, features

from stylegan_mix.datasets.archives import is_hidden
from stylegan_mix.datasets.slow_images import Pieces, why_slow

__all__ = [
    "CHANNELS",
    "FITS",
    "HEIF_ENDINGS",
    "HEIF_INSTALL",
    "SUFFIXES",
    "BadImage",
    "Header",
    "Shape",
    "Window",
    "decode",
    "decode_window",
    "heif_hint",
    "inspect",
    "is_image_name",
    "resized",
]


def _heif() -> bool:
    """Registers the plugin for HEIF in Pillow, if it is installed."""
    try:
        plugin = importlib.import_module("pillow_heif")
    except ImportError:
        return False
    plugin.register_heif_opener()
    return True


HEIF_ENDINGS = (".heic", ".heif")
HEIF_INSTALL = "pip install 'stylegan-mix[heic]'"
"""The command that makes HEIC readable."""

LARGEST_PIXELS = 64_000_000
# With AVIF, and HEIF by its plugin, where Pillow has them.
_AVIF, _HEIF = features.check("avif"), _heif()
FORMATS = (
    *("PNG", "JPEG", "WEBP", "BMP", "GIF", "TIFF", "PPM"),
    *(["AVIF"] if _AVIF else []),
    *(["HEIF"] if _HEIF else []),
)
SUFFIXES = (
    *(".png", ".jpg", ".jpeg", ".jfif", ".jpe", ".webp", ".bmp", ".gif", ".tif", ".tiff"),
    *(".ppm", ".pgm", ".pbm"),
    *([".avif"] if _AVIF else []),
    *(HEIF_ENDINGS if _HEIF else ()),
)
FITS = ("crop", "pad", "stretch", "centre")
# The share of the shorter side that "centre" takes: 224 of 256 pixels, the protocol on ImageNet.
_CENTRAL = 0.875
CHANNELS = {1: "L", 3: "RGB", 4: "RGBA"}

# Modes that --convert brings to 8 bits and to the modes below: whether they have colour.
_CONVERTIBLE = {"I;16": False, "I;16L": False, "I;16B": False, "CMYK": True, "YCbCr": True}
_COLOUR = {"1": False, "L": False, "LA": False, "P": True, "PA": True, "RGB": True, "RGBA": True}
_ALPHA = ("LA", "PA", "RGBA")
_WHITE = (255, 255, 255, 255)
_EXIF_ORIENTATION = 0x0112
_TIFF_BITS = 258
_HIGH_BIT_DEPTH = 0x40
_HEIF_BRANDS = (b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"mif1", b"msf1")


def heif_hint(names: Iterable[str]) -> str:
    """Says how HEIC is read if some of these names are such files, and it is not read; else ""."""
    if _HEIF or not any(name.lower().endswith(HEIF_ENDINGS) for name in names):
        return ""
    return f"to read HEIC: {HEIF_INSTALL}"


def is_image_name(name: str) -> bool:
    """Tells by its name if a file is an image that is read: a known ending, and not hidden."""
    return name.lower().endswith(SUFFIXES) and not is_hidden(name)


Window = Callable[[int, int], tuple[float, float, float, float]]
"""A choice of a part of an image of some width and height: left, top, right and bottom, pixels."""


class BadImage(Exception):
    """An image that cannot be taken; the text gives the reason."""


@dataclass(frozen=True)
class Header:
    """The size and channels in an image's header; `width`, `height` after its EXIF rotation."""

    width: int
    height: int
    colour: bool
    alpha: bool


@dataclass(frozen=True)
class Shape:
    """The common shape of images: `size` pixels square by `fit`, or unchanged; `channels`.

    `convert` admits images that lose something.
    """

    size: int | None
    fit: str | None
    channels: int
    convert: bool = False


_BROKEN = (
    OSError,
    SyntaxError,
    ValueError,
    TypeError,
    KeyError,
    IndexError,
    EOFError,
    AttributeError,
    OverflowError,
    struct.error,
    zlib.error,
    Image.DecompressionBombError,
    Image.DecompressionBombWarning,
)


def inspect(content: bytes, *, convert: bool = False) -> Header:
    """Reads an image's header without decoding its pixels. Raises `BadImage`."""
    return _open(content, convert)[1]


def decode(content: bytes, shape: Shape) -> np.ndarray:
    """Decodes a whole image -> uint8 [H,W,C]. Raises `BadImage`.

    The EXIF rotation is applied once. Colour becomes grey by ITU-R 601 luma. Alpha without a target
    channel is laid over white; an image without alpha is opaque. Fits: "crop" takes the largest
    centred square, "pad" adds the median colour of the image's own border, "stretch" ignores the
    aspect ratio. These resample with Lanczos; an image of the right size is not resampled. "centre"
    takes the centred square of seven eighths of the shorter side, of every image, and resamples
    linearly, with antialiasing.
    """
    image = _decoded(content, shape)
    if shape.size is not None and (shape.fit == "centre" or image.size != (shape.size,) * 2):
        image = _fitted(image, shape.size, shape.fit or "crop")
    return _array(image, shape.channels)


def decode_window(content: bytes, shape: Shape, window: Window) -> np.ndarray:
    """Decodes a part of an image -> uint8 [size,size,C], resampled linearly with antialiasing.

    Raises `BadImage`. `window` chooses the part by the image's size after its EXIF rotation.
    """
    assert shape.size is not None
    image = _decoded(content, shape)
    size, linear = (shape.size, shape.size), Image.Resampling.BILINEAR
    return _array(image.resize(size, linear, box=window(*image.size)), shape.channels)


def _decoded(content: bytes, shape: Shape) -> Image.Image:
    """Decodes an image at its own size, with the channels of `shape`."""
    image, _ = _open(content, shape.convert)
    try:
        image.load()
        image = _plain(ImageOps.exif_transpose(image))
    except _BROKEN as error:
        raise BadImage(f"cannot be decoded: {' '.join(str(error).split())}") from error
    return _converted(image, CHANNELS[shape.channels])


def _array(image: Image.Image, channels: int) -> np.ndarray:
    return np.asarray(image, np.uint8).reshape(image.height, image.width, channels)


def resized(pixels: np.ndarray, size: int, fit: str) -> np.ndarray:
    """Brings uint8 [H,W,C] to `size` pixels square by a fit of `decode` -> uint8 [size,size,C]."""
    channels = pixels.shape[2]
    image = Image.fromarray(pixels[:, :, 0] if channels == 1 else pixels)
    return _array(_fitted(image, size, fit), channels)


def _open(content: bytes, convert: bool) -> tuple[Image.Image, Header]:
    if not content:
        raise BadImage("is empty")
    if slow := why_slow(content):
        raise BadImage(slow)
    pieces = Pieces(content)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            warnings.simplefilter("ignore", UserWarning)  # odd metadata that is not used
            image = Image.open(pieces, formats=FORMATS)
            pieces.go_on()
            _check(image, content, convert)
            # The base class's method: a PNG's own would decode the image to look behind it.
            exif = Image.Image.getexif(image)
            # The size of a TIFF has its rotation in it.
            turned = image.format != "TIFF" and exif.get(_EXIF_ORIENTATION, 1) in (5, 6, 7, 8)
    except _BROKEN as error:
        if isinstance(error, Image.UnidentifiedImageError) and _is_heif(content):
            raise BadImage(f"is HEIC, which {HEIF_INSTALL} makes readable") from error
        raise BadImage(f"is not an image, or too large a one: {_reason(error)}") from error
    width, height = image.size[::-1] if turned else image.size
    alpha = image.mode in _ALPHA or "transparency" in image.info
    colour = {**_COLOUR, **_CONVERTIBLE, "I": False}[image.mode]
    return image, Header(width, height, colour, alpha)


def _is_heif(content: bytes) -> bool:
    """Tells by its first bytes if a file is HEIC, which telephones also call .jpg."""
    return not _HEIF and content[4:8] == b"ftyp" and content[8:12] in _HEIF_BRANDS


def _reason(error: Exception) -> str:
    if isinstance(error, (Image.DecompressionBombError, Image.DecompressionBombWarning)):
        return f"more than {LARGEST_PIXELS:,} pixels"
    # For an unknown format, Pillow's text names a Python object.
    return "unknown format" if isinstance(error, Image.UnidentifiedImageError) else str(error)


def _check(image: Image.Image, content: bytes, convert: bool) -> None:
    width, height = image.size
    if width * height > LARGEST_PIXELS:
        raise BadImage(f"has {width} x {height} pixels; at most {LARGEST_PIXELS:,} are decoded")
    if width == 0 or height == 0:
        raise BadImage("has no pixels")
    if image.mode == "F" or (image.mode == "I" and image.format != "PPM"):
        raise BadImage("has more than 16 bits a channel, of unknown range: convert it to 8 bits")
    if not convert:
        _refuse_losses(image, content)
    if image.mode not in (*_COLOUR, *_CONVERTIBLE, "I"):
        raise BadImage(f"is {image.mode}: convert it to grey or RGB first")


def _refuse_losses(image: Image.Image, content: bytes) -> None:
    """Raises for images that only `convert` admits."""
    if image.format != "MPO" and getattr(image, "is_animated", False):
        raise BadImage("is animated (--convert takes the first frame)")
    if _bits(image, content) > 8 or image.mode.startswith("I"):
        raise BadImage("has more than 8 bits a channel (--convert scales them to 8)")
    if image.mode in _CONVERTIBLE:
        raise BadImage(f"is {image.mode} (--convert makes it RGB)")


def _bits(image: Image.Image, content: bytes) -> int:
    """Reads the bits a channel if Pillow's mode does not tell (it opens 16-bit RGB as 8-bit)."""
    if content.startswith(b"\x89PNG"):
        return content[24]
    if image.format == "TIFF":
        return max(image.tag_v2.get(_TIFF_BITS, (8,)))  # type: ignore[attr-defined]
    if image.format == "HEIF":
        depth = image.info.get("bit_depth")
        return depth if isinstance(depth, int) else 8
    if image.format == "AVIF":
        place = content.find(b"av1C")
        high = 0 <= place < len(content) - 6 and content[place + 6] & _HIGH_BIT_DEPTH
        return 10 if high else 8
    return 8


def _plain(image: Image.Image) -> Image.Image:
    """Brings 16 bits to the upper 8 of them, and CMYK and YCbCr to RGB; others stay."""
    if image.mode.startswith("I"):
        values = np.asarray(image).astype(np.int64)
        return Image.fromarray((values >> 8).clip(0, 255).astype(np.uint8))
    return image.convert("RGB") if image.mode in _CONVERTIBLE else image


def _converted(image: Image.Image, mode: str) -> Image.Image:
    alpha = image.mode in _ALPHA or "transparency" in image.info
    if mode == "RGBA":
        return image.convert("RGBA")
    if alpha:
        full = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", full.size, _WHITE), full)
    return image if image.mode == mode else image.convert("RGB").convert(mode)


def _fitted(image: Image.Image, size: int, fit: str) -> Image.Image:
    width, height = image.size
    lanczos = Image.Resampling.LANCZOS
    if fit == "stretch":
        return image.resize((size, size), lanczos)
    if fit in ("crop", "centre"):
        side = min(width, height) * (_CENTRAL if fit == "centre" else 1)
        left, top = (width - side) / 2, (height - side) / 2
        way = Image.Resampling.BILINEAR if fit == "centre" else lanczos
        return image.resize((size, size), way, box=(left, top, left + side, top + side))
    scale = size / max(width, height)
    small = (max(round(width * scale), 1), max(round(height * scale), 1))
    canvas = Image.new(image.mode, (size, size), _border(image))
    canvas.paste(image.resize(small, lanczos), ((size - small[0]) // 2, (size - small[1]) // 2))
    return canvas


def _border(image: Image.Image) -> tuple[int, ...] | int:
    """Computes the median colour of an image's outermost pixels."""
    pixels = np.asarray(image).reshape(image.height, image.width, -1)
    edges = np.concatenate([pixels[0], pixels[-1], pixels[:, 0], pixels[:, -1]])
    middle = tuple(int(value) for value in np.median(edges, axis=0))
    return middle if len(middle) > 1 else middle[0]
