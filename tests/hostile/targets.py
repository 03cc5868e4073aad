"""What a mutant is made of and read by: the common part of all targets."""

from __future__ import annotations

import contextlib
import hashlib
import io
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np

from stylegan_mix import console

CODES = (0, 2, 3, 4)


class Wrong(AssertionError):
    """An outcome that no mutant may have."""


def command(*words: object, package: str = "stylegan_mix") -> str:
    """Runs a command in this process; returns its output, `Wrong` for a forbidden end."""
    group = import_module(f"{package}.cli").group
    told = io.StringIO()
    with contextlib.redirect_stdout(told), contextlib.redirect_stderr(told):
        try:
            console.main(group, package.replace("_", "-"), [str(word) for word in words])
        except SystemExit as end:
            code = end.code
    text = told.getvalue()
    line = f"{' '.join(map(str, words))} -> {code}: {text[:1500]!r}"
    if code not in CODES:
        raise Wrong(line)
    if any(letter in text for letter in "\x1b\x07\x00\u202e") or "touch executed" in text:
        raise Wrong(f"raw text of the file: {line}")
    return f"{code} {text}"


class Target:
    """Files of one kind: `build` makes sound ones, `change` mutates a copy, `use` reads it.

    `exact`: whatever is read without an error must be what the sound files hold; `use` returns it.
    """

    exact = False

    def build(self, folder: Path) -> None:
        raise NotImplementedError

    def change(self, mutator: Any, folder: Path) -> None:
        """Changes the bytes of one file."""
        files = sorted(path for path in folder.rglob("*") if path.is_file())
        path = mutator.draws.choice(files)
        change(path, mutator.of_bytes)

    def use(self, folder: Path) -> str | None:
        raise NotImplementedError


def change(path: Path, by: Callable[[bytes], bytes]) -> None:
    """Rewrites a file that may be read-only."""
    content = by(path.read_bytes())
    path.chmod(0o644)
    path.write_bytes(content)


def change_text(path: Path, by: Callable[[str], str]) -> None:
    change(path, lambda content: by(content.decode("utf-8", "replace")).encode("utf-8", "replace"))


def digest(*values: np.ndarray) -> str:
    whole = hashlib.sha256()
    for value in values:
        whole.update(np.ascontiguousarray(value).tobytes())
    return whole.hexdigest()


def image_folder(folder: Path) -> Path:
    from PIL import Image as Pillow

    draws = np.random.default_rng(0)
    for part, count in (("train", 4), ("test", 2)):
        for name in ("ant", "bee"):
            place = folder / part / name
            place.mkdir(parents=True)
            for number in range(count):
                pixels = draws.integers(0, 256, (8, 8, 3), np.uint8)
                Pillow.fromarray(pixels).save(place / f"{number}.png")
    return folder
