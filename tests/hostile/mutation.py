"""Seeded mutations of files: their bytes, the words of their texts, the values of their JSON.

A container's manifest is sealed again after a mutation of its values: anyone can do that.
"""

from __future__ import annotations

import copy
import json
import random
from pathlib import Path
from typing import Any

from stylegan_mix import store

DEEP = "[" * 1000 + "]" * 1000
ODD_VALUES: tuple[Any, ...] = (
    *(None, True, False, 0, -1, 1, 2, 255, 1 << 31, -(1 << 63), (1 << 64) - 1, 1 << 200, 10**400),
    *(0.5, -0.0, 1e308, -1e308, "", "x", "..", "../../etc/passwd", "/dev/zero", "9" * 5000),
    *("\x1b[31mred\x07", "a\nb", "\u202eturned", "<script>alert(1)</script>", "[red]x[/red]"),
    *("$\\frac$", "`; touch executed; `", "a" * 100_000, "\x00", "\ud800"),
    *([], {}, [[]], [None], {"a": 1}, [1, 2, 3], ["a"] * 3000),
)
# Texts that stand for a number where Python's own JSON writer has none.
ODD_LITERALS = ("1e400", "-1e999", "NaN", "Infinity", "9" * 5000, "1" + "0" * 400, DEEP)
ODD_WORDS = (
    *("", " ", ",", ";", "\t", "\n", "\r", "\x00", '"', "'", "=", ".", "[", "]", "{", "}", "#"),
    *(
        "-1",
        "0",
        "1e400",
        "nan",
        "inf",
        "-inf",
        "true",
        "9" * 5000,
        "1" + "0" * 400,
        "0x",
        "\ufeff",
    ),
    *("1979-05-27", "1979-05-27T07:32:00Z", "07:32:00", "..", "../x", "/dev/zero", "\x1b[31m"),
    *("a" * 200_000, "[" * 1000, "a." * 3000 + "b", '"""', "\u202e", "\ud7ff", "{a = 1}"),
)
ODD_BYTES = (
    *(b"\x00", b"\xff", b"\x7f\xff\xff\xff", b"\xff\xff\xff\xff", b"\x80", b"\xff" * 8),
    *(b"\x00" * 4096, b"PK\x01\x02", b"PK\x05\x06", b"ustar", b"\x1f\x8b\x08", b"IDAT", b"."),
)


class Mutator:
    """A source of mutations; one seed gives the same ones on every machine."""

    def __init__(self, seed: int) -> None:
        self.draws = random.Random(seed)

    def of_bytes(self, content: bytes) -> bytes:
        """Changes a few places: bits, bytes, odd numbers, cuts, repetitions, exchanges."""
        changed = bytearray(content)
        for _ in range(self.draws.choice((1, 1, 1, 2, 4, 16))):
            self._change(changed)
        return bytes(changed)

    def _change(self, content: bytearray) -> None:
        draws = self.draws
        at = draws.randrange(len(content) + 1)
        # Most formats decide at their beginning or their end.
        edge = draws.random()
        if edge < 0.3:
            at = draws.randrange(min(len(content), 512) + 1)
        elif edge < 0.4:
            at = max(len(content) - draws.randrange(512), 0)
        length = draws.choice((1, 1, 2, 4, 8, 64, 1024))
        kind = draws.randrange(7)
        if kind == 0 and at < len(content):
            content[at] ^= 1 << draws.randrange(8)
        elif kind == 1 and at < len(content):
            content[at] = draws.randrange(256)
        elif kind == 2:
            odd = draws.choice(ODD_BYTES)
            content[at : at + len(odd)] = odd
        elif kind == 3:
            content[at:at] = draws.choice(ODD_BYTES)
        elif kind == 4:
            del content[at : at + length]
        elif kind == 5:
            content[at:at] = content[at : at + length]
        elif draws.random() < 0.5:
            del content[at:]
        else:
            start = draws.randrange(len(content) + 1)
            content[at : at + length] = content[start : start + length]

    def of_text(self, text: str) -> str:
        """Changes a few words or lines of a text."""
        draws = self.draws
        for _ in range(draws.choice((1, 1, 2, 3))):
            at = draws.randrange(len(text) + 1)
            kind = draws.randrange(4)
            if kind == 0:
                text = text[:at] + draws.choice(ODD_WORDS) + text[at:]
            elif kind == 1:
                end = _end_of_word(text, at)
                text = text[:at] + draws.choice(ODD_WORDS) + text[end:]
            elif kind == 2:
                text = text[:at] + text[at + draws.choice((1, 3, 20, 200)) :]
            else:
                lines = text.splitlines(keepends=True) or [""]
                lines.insert(draws.randrange(len(lines) + 1), draws.choice(lines))
                text = "".join(lines)
        return text

    def of_value(self, value: Any) -> Any:
        """Changes a few values, names or lengths anywhere in plain data."""
        changed = copy.deepcopy(value)
        for _ in range(self.draws.choice((1, 1, 1, 2, 3))):
            changed = self._changed(changed)
        return changed

    def _changed(self, value: Any) -> Any:
        draws = self.draws
        if not isinstance(value, (dict, list)) or not value or draws.random() < 0.02:
            return draws.choice(ODD_VALUES)
        key = draws.choice(list(value) if isinstance(value, dict) else range(len(value)))
        if isinstance(value[key], (dict, list)) and value[key] and draws.random() < 0.8:
            value[key] = self._changed(value[key])
            return value
        kind = draws.randrange(5)
        if kind == 0:
            del value[key]
        elif kind == 1 and isinstance(value, dict):
            value[draws.choice(("", "$tensor", "$names", "\x1b[31m", "x" * 5000))] = value.pop(key)
        elif kind == 2 and isinstance(value, list):
            value.insert(key, value[key])
        elif kind == 3 and type(value[key]) in (int, float):
            value[key] += draws.choice((1, -1, 1000))
        else:
            value[key] = draws.choice(ODD_VALUES)
        return value

    def of_json(self, text: str) -> str:
        """Changes values of a JSON text, or its letters."""
        if self.draws.random() < 0.2:
            return self.of_text(text)
        changed = json.dumps(self.of_value(json.loads(text)))
        if self.draws.random() < 0.2:
            numbers = [at for at, letter in enumerate(changed) if letter.isdigit()]
            if numbers:
                at = self.draws.choice(numbers)
                changed = changed[:at] + self.draws.choice(ODD_LITERALS) + changed[at + 1 :]
        return changed

    def of_sealed(self, folder: Path) -> None:
        """Changes the manifest of a container, and seals it again with fitting hashes."""
        path = folder / "MANIFEST.json"
        manifest = json.loads(path.read_text())
        part = self.draws.choice(("facts", "facts", "facts", "arrays", None))
        if part is None:
            manifest = self.of_value(manifest)
        else:
            manifest[part] = self.of_value(manifest[part])
        path.chmod(0o644)
        path.write_text(seal(manifest))


def seal(manifest: Any) -> str:
    """The text of a manifest with the hashes that fit it, where it has any."""
    try:
        entries = manifest["arrays"].items()
        manifest["content_sha256"] = store.digest(
            {name: [one["dtype"], one["shape"], one["sha256"]] for name, one in entries}
        )
    except (AttributeError, KeyError, TypeError, ValueError):
        pass
    try:
        del manifest["manifest_sha256"]
        manifest["manifest_sha256"] = store.digest(manifest)
    except (KeyError, TypeError, ValueError):
        pass
    return json.dumps(manifest)


def _end_of_word(text: str, at: int) -> int:
    end = at
    while end < len(text) and (text[end].isalnum() or text[end] in "._-"):
        end += 1
    return end
