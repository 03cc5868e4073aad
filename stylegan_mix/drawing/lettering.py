"""Names in pictures: any script is legible, and different names look different.

Most names are drawn with DejaVu Sans, which comes with matplotlib: Latin, Greek, Cyrillic, Arabic
and more. Other letters need a font of the machine. Where it has none, a name is written in Latin
letters, as a picture of empty boxes says nothing.
"""

from __future__ import annotations

import functools
import hashlib
import unicodedata
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from PIL import ImageFont

from stylegan_mix.columns import width

__all__ = ["LONGEST", "Face", "drawable", "face_of", "font", "legible"]

LONGEST = 40
"""The longest name in a picture, in letters; a Chinese letter counts twice."""

# Letters without a shape of their own: joiners and marks of direction.
_SHAPELESS = ("Cf", "Mn", "Me")


@dataclass(frozen=True)
class Face:
    """A font: its family, its file, and its place in a file of several fonts."""

    family: str
    file: str
    index: int = 0


def legible(names: Sequence[str], longest: int = LONGEST) -> list[str]:
    """Writes names so that they can be drawn, on one line and with at most `longest` letters.

    A long name loses its middle, since the names of species begin alike. Where two different names
    would look the same, they end in four digits of their hash.
    """
    found = {name: _shortened(drawable(name), longest) for name in names}
    times = Counter(found.values())
    for name, text in found.items():
        if times[text] > 1:
            found[name] = f"{_shortened(text, longest - 7)} ({_digits(name)})"
    return [found[name] for name in names]


def _digits(name: str) -> str:
    return hashlib.sha256(name.encode("utf-8", "surrogatepass")).hexdigest()[:4]


def drawable(name: str) -> str:
    """Writes a text of any length so that it can be drawn, on one line.

    Line breaks and control characters become spaces. If no font here has all of its letters, it is
    written in Latin ones.
    """
    text = " ".join("".join(c if c.isprintable() else " " for c in name).split())
    if text and face_of(text) is not None:
        return text
    from anyascii import anyascii

    latin = " ".join(anyascii(text).split())
    # Not every letter has a Latin one.
    return latin or " ".join(f"U+{ord(letter):04X}" for letter in name) or "(no name)"


def _shortened(text: str, longest: int) -> str:
    if width(text) <= longest:
        return text
    half = (longest - 3) // 2
    head, tail = text, text
    while width(head) > longest - 3 - half:
        head = head[:-1]
    while width(tail) > half:
        tail = tail[1:]
    return f"{head.rstrip()}...{tail.lstrip()}"


def font(size: int, text: str = "") -> Any:
    """Loads the font that draws `text` in an image of Pillow, at a size in pixels."""
    face = face_of(text) or _usual()
    return ImageFont.truetype(face.file, size, index=face.index)


def face_of(text: str) -> Face | None:
    """Finds a font that has every letter of a text: DejaVu Sans, else one of the machine."""
    needed = frozenset(ord(c) for c in text if unicodedata.category(c) not in _SHAPELESS)
    if needed <= _letters(_usual()):
        return _usual()
    return _other_face(needed)


@functools.cache
def _usual() -> Face:
    import matplotlib as mpl

    return Face("DejaVu Sans", str(Path(mpl.get_data_path(), "fonts", "ttf", "DejaVuSans.ttf")))


@functools.lru_cache(maxsize=4096)
def _other_face(needed: frozenset[int]) -> Face | None:
    return next((face for face in _faces() if needed <= _letters(face)), None)


def _faces() -> list[Face]:
    """Lists the upright fonts of the machine that can be scaled, plain ones first."""
    from matplotlib.font_manager import fontManager

    kept = [
        entry
        for entry in fontManager.ttflist
        if entry.style == "normal" and entry.size == "scalable" and not _useless(entry.name)
    ]
    kept.sort(key=lambda one: ("sans" not in one.name.lower(), abs(_weight(one) - 400), one.name))
    return [Face(one.name, one.fname, getattr(one, "index", 0)) for one in kept]


def _useless(family: str) -> bool:
    """Tells fonts of coloured pictures, and those that draw a box for every letter there is."""
    plain = family.lower().replace(" ", "")
    return "emoji" in plain or "lastresort" in plain


def _weight(entry: Any) -> int:
    # Some fonts give their weight as a word.
    return entry.weight if isinstance(entry.weight, int) else 400


@functools.cache
def _letters(face: Face) -> frozenset[int]:
    """Lists the code points that a font has; none of a file that cannot be read."""
    from matplotlib.ft2font import FT2Font

    try:
        opened = FT2Font(face.file, face_index=face.index) if face.index else FT2Font(face.file)
        return frozenset(opened.get_charmap())
    except (OSError, RuntimeError, TypeError):
        return frozenset()
