"""Images that are slow by construction: refused by counting, before they take minutes.

Decoders read headers and comments piece by piece, some letter by letter, and put comments together
in a time that grows with the square of their length.
"""

from __future__ import annotations

import io

__all__ = ["Pieces", "why_slow"]

# Reads of a header: an honest one takes a few hundred, with a comment of a page.
_HEADER_READS = 6_000
# Reads of the rest of a file; a GIF of the smallest pieces takes two for 256 bytes.
_BYTES_A_READ = 64
_GIF_COMMENT = 4_000  # pieces of 255 bytes
_PLAIN_COMMENTS = 1_000
_PLAIN_BYTES = 16 << 20
_PLAIN = (b"P1", b"P2", b"P3")


class Pieces(io.BytesIO):
    """The bytes of an image, of which a decoder may take so many pieces; OSError for more."""

    def __init__(self, content: bytes) -> None:
        super().__init__(content)
        self._size, self._left = len(content), _HEADER_READS

    def go_on(self) -> None:
        """Admits the reads of pixels, once the header is read."""
        self._left += self._size // _BYTES_A_READ

    def read(self, size: int | None = -1, /) -> bytes:
        self._left -= 1
        if self._left < 0:
            raise OSError("it is in too many small pieces")
        return super().read(size)


def why_slow(content: bytes) -> str | None:
    """Tells why an image would take minutes to read, from its bytes alone; None for others."""
    if content[:2] in _PLAIN:
        if len(content) > _PLAIN_BYTES:
            return f"has its numbers as {len(content):,} letters: save it in binary"
        if content.count(b"#") > _PLAIN_COMMENTS:
            return f"has more than {_PLAIN_COMMENTS:,} comments"
    if content[:4] == b"GIF8" and _has_long_comment(content):
        return f"has a comment of more than {_GIF_COMMENT:,} pieces"
    return None


def _has_long_comment(content: bytes) -> bool:
    """Walks through the blocks of a GIF; at a damaged one it ends, for the decoder to tell."""
    at = 13 + _colours(content, 10)
    while at + 1 < len(content):
        kind, label = content[at], content[at + 1]
        if kind == 0x2C and at + 9 < len(content):  # an image: position, colours, code size
            at += 11 + _colours(content, at + 9)
        elif kind == 0x21:
            at += 2
        else:
            return False
        pieces = 0
        while at < len(content) and content[at]:
            at += 1 + content[at]
            pieces += 1
        if kind == 0x21 and label == 0xFE and pieces > _GIF_COMMENT:
            return True
        at += 1
    return False


def _colours(content: bytes, at: int) -> int:
    """Computes the size of the table of colours that a byte of flags declares."""
    flags = content[at] if at < len(content) else 0
    return 3 << ((flags & 7) + 1) if flags & 0x80 else 0
