"""Texts of files in messages, listings and cards: nothing in them acts on the reader's terminal.

A name in a manifest, an archive or a folder may hold control characters, which move the cursor,
rename the window, or show another text than the one that is there.
"""

from __future__ import annotations

import re
import shlex
import unicodedata
from typing import Any

__all__ = [
    "for_markdown",
    "is_plain",
    "one_line",
    "plain_words",
    "printable",
    "shown",
    "shown_command",
]

# Control characters, lone surrogates, and separators of lines and paragraphs.
_ACTING = ("Cc", "Cs", "Zl", "Zp")
# Format characters that change the direction of the text around them. The others of their kind
# join letters, and belong to names in many scripts.
_TURNING = frozenset("\u061c\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")
_LAYOUT = "\n\t"
# Letters that mean something in Markdown or HTML, where they do: the end of a cell, code, formulas,
# the beginning of a tag or an entity, the middle of a link.
_MARKUP = re.compile(r"[|`$]|<(?=[A-Za-z/!?])|&(?=[#\w]+;)|(?<=\])\(")


def printable(text: str) -> str:
    """Escapes what would act on a terminal, such as ESC as ``\\x1b``; ends of lines stay."""
    if text.isprintable() and text.isascii():
        return text
    return "".join(letter if _harmless(letter, _LAYOUT) else _escape(letter) for letter in text)


def one_line(value: object) -> str:
    """Formats a value of a file for one line of a listing, ends of lines escaped."""
    text = str(value)
    return "".join(letter if _harmless(letter) else _escape(letter) for letter in text)


def is_plain(text: str) -> bool:
    """Tells if a text is one line without control characters, as names are."""
    return not any(unicodedata.category(letter) in _ACTING for letter in text)


def shown(value: Any, most: int = 60) -> str:
    """Shows a value of a foreign file in a message: printable, on one line, not long."""
    if type(value) not in (str, int, float, bool, type(None)):
        return f"a {type(value).__name__}"  # its text could be endless
    text = str(value)
    plain = ascii(text[: most + 1])[1:-1]
    return plain if len(plain) <= most else plain[: most - 3] + "..."


def plain_words(command: object, *start: str) -> list[str]:
    """Splits a command of a file into words, if it begins so and a shell would only split it.

    No words for any other text: a file may hold one that does harm when it is typed.
    """
    try:
        words = shlex.split(command) if type(command) is str else []
    except ValueError:
        return []
    plain = shlex.join(words) == command and is_plain(command)
    return words if plain and tuple(words[: len(start)]) == start else []


def shown_command(command: object, *start: str) -> str:
    """Shows a command of a file if it is a plain one that begins so; else tells that it is not."""
    words = plain_words(command, *start)
    return shlex.join(words) if words else f"(not shown: it is no plain {' '.join(start)})"


def for_markdown(text: str) -> str:
    """Escapes a name for Markdown, so that it is neither a link, nor HTML, nor a cell's end."""
    return _MARKUP.sub(lambda found: f"&#{ord(found[0])};", one_line(text))


def _harmless(letter: str, allowed: str = "") -> bool:
    if letter in allowed:
        return True
    return unicodedata.category(letter) not in _ACTING and letter not in _TURNING


def _escape(letter: str) -> str:
    return letter.encode("unicode_escape", "surrogatepass").decode("ascii")
