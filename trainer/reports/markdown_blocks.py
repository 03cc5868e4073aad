"""Generated blocks inside a hand-written Markdown file, between two comment lines.

<!-- block NAME: written by `COMMAND` -->
...
<!-- end of block NAME -->
"""

from __future__ import annotations

import re
from pathlib import Path

from stylegan_mix import output
from stylegan_mix.errors import UsageFailure, nearest
from stylegan_mix.reading import read_bytes

__all__ = ["commands", "fill", "is_fresh"]

_LARGEST_TEXT = 64 << 20
_BEGIN = re.compile(r"^<!-- block ([^\s:]+):(?: written by `(.*)`)? *-->$", re.MULTILINE)


def commands(path: Path) -> list[tuple[str, str]]:
    """Lists the blocks of a file in order: name, and the command that wrote it, or ""."""
    return _BEGIN.findall(_read(path))


def fill(path: Path, name: str, text: str, *, command: str) -> bool:
    """Writes `text` into the block; returns True if the file changed."""
    before = _read(path)
    after = _filled(before, path, name, text, command)
    if after != before:
        output.write_text(path, after, elsewhere="choose another file with --into")
    return after != before


def is_fresh(path: Path, name: str, text: str, *, command: str) -> bool:
    """Tells if the block holds `text` already."""
    before = _read(path)
    return _filled(before, path, name, text, command) == before


def _read(path: Path) -> str:
    try:
        return read_bytes(path, limit=_LARGEST_TEXT).decode()
    except OSError as error:
        raise UsageFailure(f"cannot read {path}: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise UsageFailure(f"cannot read {path}: {error}") from error


def _filled(source: str, path: Path, name: str, text: str, command: str) -> str:
    known = [match[1] for match in _BEGIN.finditer(source)]
    if known.count(name) != 1:
        what = "no block" if name not in known else f"{known.count(name)} blocks"
        raise UsageFailure(
            f"{path} has {what} '{name}'{nearest(name, known)}",
            remedy=f"put these two lines where it belongs:\n  <!-- block {name}: -->\n"
            f"  <!-- end of block {name} -->",
        )
    begin = next(match for match in _BEGIN.finditer(source) if match[1] == name)
    closing = f"<!-- end of block {name} -->"
    end = source.find(closing, begin.end())
    if end < 0:
        raise UsageFailure(f"block '{name}' of {path} has no end; expected {closing}")
    opening = f"<!-- block {name}: written by `{command}` -->"
    return f"{source[: begin.start()]}{opening}\n\n{text.strip()}\n\n{source[end:]}"
