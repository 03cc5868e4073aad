"""The banks of the store: finding, listing and resolving them by manifest alone; no torch.

Nothing here hashes images: listing a thousand banks reads a thousand small files. To read rows,
open the bank (`reader.open_bank`), which checks them.
"""

from __future__ import annotations

import os
import string
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from stylegan_mix import arrays, store
from stylegan_mix.banks.blocks import finished_blocks
from stylegan_mix.banks.facts import check, command
from stylegan_mix.banks.reader import control_of
from stylegan_mix.banks.request import KIND
from stylegan_mix.errors import InvalidInput, UsageFailure, nearest
from stylegan_mix.fields import TEXT, WHOLE, check_types
from stylegan_mix.latents.spaces import SPACES

__all__ = [
    "TRAINS_FIRST",
    "Record",
    "Unfinished",
    "damaged",
    "find",
    "folder",
    "folders",
    "record",
    "resolve",
    "space_named",
    "unfinished",
]

TRAINS_FIRST = (
    "if there is no generator yet, it trains one first; the same command with --dry-run tells how "
    "long that takes"
)
"""A word on the cost of `generate`, for hints that name the command."""

# Fields of a request that a listing shows.
_ASKED = {"n": WHOLE, "block": WHOLE, "space": TEXT, "generator": TEXT}


@dataclass(frozen=True)
class Record:
    """A published bank as its manifest describes it; `size` is that of its file in bytes."""

    key: str
    folder: Path
    facts: dict[str, Any]
    content_sha256: str
    size: int
    made: float

    @property
    def request_key(self) -> str:
        """The key of the request."""
        return str(self.facts["request_key"])

    @property
    def control(self) -> str:
        """The name of the control, such as "unmixed"; "" for a bank of the method."""
        return control_of(self.facts)

    def is_of(self, space: str) -> bool:
        """Tells if its rows were mixed in a space, given by its name or that of the control."""
        return space in (self.facts["space"], self.control)


@dataclass(frozen=True)
class Unfinished:
    """A bank that was begun, with the number of its finished blocks."""

    key: str
    folder: Path
    request: dict[str, Any]
    landed: int
    blocks: int


def folder() -> Path:
    """Returns the folder of this store's own banks."""
    return store.home() / "banks"


def find(
    *,
    split_id: str | None = None,
    dataset: str | None = None,
    space: str | None = None,
    request_key: str | None = None,
) -> list[Record]:
    """Finds the published banks with these facts, the newest first, without damaged ones.

    The shared store's banks follow in the same order. A bank in both is listed once, as our own.
    """
    wanted = {"split_id": split_id, "dataset": dataset, "request_key": request_key}
    asked = {name: value for name, value in wanted.items() if value is not None}
    found: dict[str, Record] = {}
    for path in folders():
        try:
            one = record(path)
        except InvalidInput:
            continue
        fits = all(one.facts.get(name) == value for name, value in asked.items())
        if fits and (space is None or one.is_of(space)):
            found.setdefault(one.key, one)
    return sorted(found.values(), key=lambda one: (one.made, one.key), reverse=True)


def space_named(word: str | None) -> str | None:
    """Finds the space with that name, or with that control; None if there is none."""
    spaces = SPACES.values()
    return next((one.name for one in spaces if word and word in (one.name, one.control)), None)


def damaged() -> list[tuple[Path, str]]:
    """Lists the folders whose manifest does not describe a bank, each with the reason."""
    found = []
    for path in folders():
        try:
            record(path)
        except InvalidInput as error:
            found.append((path, str(error)))
    return found


def unfinished() -> list[Unfinished]:
    """Lists the banks of our own store that were begun and not published."""
    found = []
    partial = folder() / ".partial"
    for path in sorted(partial.iterdir()) if partial.is_dir() else []:
        try:
            request = store.read_json(path / "request.json")["request"]
            check_types(request, _ASKED)
            blocks = -(-request["n"] // request["block"])
        except (InvalidInput, KeyError, TypeError, ValueError, ZeroDivisionError):
            continue
        if (folder() / path.name).exists():
            continue  # published: its process ended before it had cleaned up
        landed = sum(index < blocks for index in finished_blocks(path))
        if (path / "bank" / arrays.MANIFEST).exists():
            landed = blocks
        found.append(Unfinished(path.name, path, request, landed, blocks))
    return found


def resolve(ref: str) -> Path:
    """Finds the folder of the bank that `ref` names: a path, a key, or the beginning of a key.

    Raises `InvalidInput` (exit code 3) if there is none, `UsageFailure` (exit code 2) if several
    keys begin so.
    """
    path = store.expanded(ref)
    # Unlike Path.is_file, this does not raise for a name that no file can have.
    if os.path.isfile(path / arrays.MANIFEST):
        return path.absolute()
    known = {one.name: one for one in reversed(folders())}
    fits = sorted(key for key in known if ref and key.startswith(ref))
    if len(fits) > 1:
        raise UsageFailure(
            f"'{ref}' begins {len(fits)} banks: {', '.join(key[:12] for key in fits)}",
            remedy="give more digits of the key",
        )
    if not fits:
        short = nearest(ref, {key[:12] for key in known}) if len(known) <= 20 else "."
        raise InvalidInput(
            f"no bank '{ref}' in {folder()}{short}",
            remedy="stylegan-mix bank list shows the banks; "
            f"stylegan-mix generate --dataset NAME --n 50000 makes one; {TRAINS_FIRST}",
        )
    if known[fits[0]].is_symlink():
        raise InvalidInput(
            f"{known[fits[0]]} is a symbolic link; banks of a store are folders of it",
            remedy="give the path that it points to instead, if you trust it",
        )
    return known[fits[0]]


def folders() -> list[Path]:
    """Lists every folder that is named as a bank, our own store's first."""
    found = []
    for root in store.roots():
        banks = root / "banks"
        for path in sorted(banks.iterdir()) if banks.is_dir() else []:
            if len(path.name) == 64 and set(path.name) <= set(string.hexdigits):
                found.append(path)
    return found


def record(path: Path) -> Record:
    """Reads the record of the bank in a folder of a store; `InvalidInput` if there is none."""
    if path.is_symlink():
        raise InvalidInput(f"{path} is a symbolic link")
    manifest = arrays.read_manifest(path, kind=KIND)
    facts = manifest["facts"]
    try:
        check(facts)
    except ValueError as error:
        raise InvalidInput(f"{path}: its facts: {error}") from error
    if facts["key"] != path.name:
        raise InvalidInput(f"{path} holds a bank with another key: {facts['key'][:64]}")
    # The hash takes time, and is checked when the rows are read.
    file = path / manifest["file"]
    size = os.path.getsize(file) if os.path.isfile(file) else 0
    if size != manifest["file_bytes"]:
        raise InvalidInput(
            f"{file} has {size:,} bytes; {manifest['file_bytes']:,} were written",
            remedy=f"move {path} away and make it again: {command(facts)}",
        )
    made = os.path.getmtime(path / arrays.MANIFEST)
    return Record(path.name, path, facts, manifest["content_sha256"], size, made)
