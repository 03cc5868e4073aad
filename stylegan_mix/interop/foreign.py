"""A generator in a file of another project: recognised by its content, read without running it.

The file is read once, into memory, so the hash belongs to the parsed bytes.
"""

from __future__ import annotations

import hashlib
import io
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from stylegan_mix import pickles, reading
from stylegan_mix.errors import InvalidInput
from stylegan_mix.interop.torch_files import MAGIC, Tensor, read_stream, read_zip
from stylegan_mix.pickles import Budget
from stylegan_mix.showing import shown

if TYPE_CHECKING:
    from stylegan_mix.networks import Generator

__all__ = ["KINDS", "Foreign", "open_generator", "read_bytes"]

LARGEST_FILE = 4 << 30
EXPECTED = (
    "expected is a network pickle (.pkl) of StyleGAN2-ADA or StyleGAN3's StyleGAN2 in PyTorch, or "
    "a checkpoint (.pt) of the PyTorch port by rosinality; nothing in this file was run, and "
    "nothing was stored. Get it again from where it was published, and compare the hash"
)
KINDS = {
    "stylegan2-ada": "network pickle of the StyleGAN2-ADA or StyleGAN3 publication",
    "rosinality": "checkpoint of the PyTorch port by rosinality",
}
"""Kinds of files that are read: name -> description."""

# Beginnings of files that people mistake for a checkpoint.
_OTHERS = {
    b"<": "a web page or XML, perhaps the page where the file is offered",
    b"version https://git-lfs": "a Git LFS pointer, which only names the real file",
    b"\x89PNG": "a PNG picture",
    b"\xff\xd8\xff": "a JPEG picture",
    b"\x1f\x8b": "a gzip archive; unpack it first",
    b"\x89HDF": "an HDF5 file",
    b"\x28\xb5\x2f\xfd": "a Zstandard archive; unpack it first",
    b"Rar!": "a RAR archive; unpack it first",
    b"7z\xbc\xaf": "a 7z archive; unpack it first",
    b"{": "JSON",
}


@dataclass(frozen=True)
class Foreign:
    """A generator as a file holds it.

    `kind` is one of `KINDS`; `settings` are the keyword arguments of our generator; `arrays` is its
    state in the names of its project; `left` lists the other content of the file.
    """

    kind: str
    settings: dict[str, Any]
    arrays: Mapping[str, np.ndarray]
    left: tuple[str, ...]

    def network(self) -> Generator:
        """Builds our generator with these weights; `InvalidInput` names all that does not fit."""
        from stylegan_mix.interop import nvlabs, rosinality

        fill = rosinality.network if self.kind == "rosinality" else nvlabs.fill_generator
        return fill(self.arrays, self.settings)


def read_bytes(path: Path) -> tuple[bytes, str]:
    """Reads a file: its content and SHA-256; `InvalidInput` (exit code 3) if there is none."""
    try:
        content = reading.read_bytes(path, limit=LARGEST_FILE)
    except OSError as error:
        raise InvalidInput(f"{path} cannot be read: {error.strerror}", remedy=EXPECTED) from error
    return content, hashlib.sha256(content).hexdigest()


def open_generator(content: bytes, path: Path) -> Foreign:
    """Finds the generator in a file's content; `path` is for messages.

    Raises `InvalidInput` (exit code 3): the expected format, the format found, and a remedy.
    """
    try:
        return _open(content)
    except InvalidInput as error:
        raise InvalidInput(
            f"{path} is refused: {error}", remedy=error.remedy or EXPECTED
        ) from error


def _open(content: bytes) -> Foreign:
    from stylegan_mix.interop import network_pickles, rosinality

    budget = Budget.of_file(len(content))
    if content.startswith(b"PK\x03\x04"):
        return _taken("rosinality", read_zip(content, rosinality.ADMITTED, budget), content)
    if content.startswith(MAGIC):
        return _taken("rosinality", read_stream(content, rosinality.ADMITTED, budget), content)
    if content[:1] == b"\x80" and content[1:2] in (b"\x02", b"\x03", b"\x04", b"\x05"):
        file = io.BytesIO(content)
        root = pickles.read(file, network_pickles.admitted(budget), budget=budget)
        if file.tell() != len(content):
            raise InvalidInput(f"{len(content) - file.tell():,} bytes lie behind its end")
        return _taken("stylegan2-ada", root, content)
    start = content.lstrip()[:64].lower()
    found = [what for begin, what in _OTHERS.items() if start.startswith(begin.lower())]
    raise InvalidInput(f"it is {found[0]}" if found else _unknown(content))


def _unknown(content: bytes) -> str:
    return f"it begins with the bytes {content[:8].hex(' ')}" if content else "it is empty"


def _taken(kind: str, root: Any, content: bytes) -> Foreign:
    from stylegan_mix.interop import network_pickles, rosinality

    module = rosinality if kind == "rosinality" else network_pickles
    read: Callable[[Any], tuple[dict[str, Any], dict[str, Tensor]]] = module.settings_and_state
    settings, state = read(root)
    total = sum(tensor.bytes for tensor in state.values())
    if total > len(content):
        raise InvalidInput(
            f"its tensors share storages: {total:,} bytes of them in a file of {len(content):,}"
        )
    # The names end up in Markdown, between backticks.
    left = [shown(key).replace("`", "'") for key in root if key not in module.TAKEN]
    return Foreign(
        kind=kind,
        settings=settings,
        arrays={name: tensor.array() for name, tensor in state.items()},
        left=tuple(sorted(left)),
    )
