"""A bank in the making: blocks on disk, the journal of their hashes, and the end of the work.

A key is absent, then partial, sealed, published. A partial bank lies in
`banks/.partial/<exact key>/`: `bank/` is the container being written, and `blocks.jsonl` lists the
finished blocks with their SHA-256. A process that continues trusts a block only after hashing it,
so its predecessor may have been killed anywhere. No torch.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from stylegan_mix import arrays, store
from stylegan_mix.banks.request import KIND, Request
from stylegan_mix.errors import InvalidInput
from stylegan_mix.latents.plan import BLOCK
from stylegan_mix.reading import append_text, parse_json, read_lines

__all__ = ["FILE", "Partial"]

FILE = "bank.h5"
_PUBLISHED = {FILE, "MANIFEST.json", "BANK_CARD.md", "preview.png"}


class Partial:
    """The bank `key` of `request` while it is written; the caller holds its lock throughout.

    `banks` is the store's folder of banks; `attributes` go into the HDF5 root.
    """

    def __init__(
        self, banks: Path, key: str, request: Request, attributes: Mapping[str, str | int | float]
    ) -> None:
        self.key = key
        self.final = banks / key
        self.root = banks / ".partial" / key
        self.folder = self.root / "bank"
        self._journal = self.root / "blocks.jsonl"
        self._request = request
        self.sealed = self._is_sealed()
        if self.sealed:
            return
        self._writer = arrays.Writer(
            self.folder,
            {
                "images": ("u1", (request.n, *request.image_shape)),
                "pair": ("i4", (request.n, 2)),
                "lam": ("f4", (request.n,)),
            },
            file=FILE,
            attributes=attributes,
            resume=True,
        )
        if not self._writer.resumed:
            self._journal.unlink(missing_ok=True)
        store.write_json(self.root / "request.json", {"key": key, "request": request.spec()})

    def _is_sealed(self) -> bool:
        """True if a process finished the container, but ended before publishing it."""
        if not (self.folder / "MANIFEST.json").exists():
            return False
        try:
            arrays.open_container(self.folder, kind=KIND)
        except InvalidInput:
            shutil.rmtree(self.folder)
            return False
        return True

    def missing(self) -> list[int]:
        """Lists the blocks still to be made: not in the journal, or with another hash."""
        if self.sealed:
            return []
        found = _read_journal(self._journal)
        return [
            index
            for index in range(self._request.blocks)
            if index not in found or found[index] != self._sha256(index)
        ]

    def land(self, index: int, images: np.ndarray, pair: np.ndarray, lam: np.ndarray) -> None:
        """Writes a whole block: images [64, H, W, C] uint8, pair [64, 2], lam [64]."""
        rows = self._rows(index)
        count = rows.stop - rows.start
        with store.disk_errors(self.folder / FILE):
            self._writer.view("images")[rows] = images[:count]
            self._writer.view("pair")[rows] = pair[:count]
            self._writer.view("lam")[rows] = lam[:count]
            line = json.dumps({"block": index, "sha256": self._sha256(index)}) + "\n"
            append_text(self._journal, line)

    def _rows(self, index: int) -> slice:
        return slice(index * BLOCK, min((index + 1) * BLOCK, self._request.n))

    def _sha256(self, index: int) -> str:
        found = hashlib.sha256()
        for name in ("images", "pair", "lam"):
            found.update(np.ascontiguousarray(self._writer.view(name)[self._rows(index)]).data)
        return found.hexdigest()

    def seal(self, facts: Mapping[str, Any]) -> None:
        """Hashes the finished arrays and writes the manifest."""
        if not self.sealed:
            self._writer.seal(KIND, facts)
            self.sealed = True

    def publish(self) -> Path:
        """Renames the sealed bank to its final name and returns that.

        If another process was first, the bytes of both are compared. Equal ones are dropped;
        different ones are kept beside it as evidence, with `InvalidInput` (exit code 3).
        """
        for path in self.folder.iterdir():
            if path.name not in _PUBLISHED:
                path.unlink()
        if not store.publish(self.folder, self.final):
            ours = arrays.read_manifest(self.folder, kind=KIND)["content_sha256"]
            theirs = arrays.read_manifest(self.final, kind=KIND)["content_sha256"]
            if ours != theirs:
                kept = self.final.with_name(f".differs-{self.key[:16]}-{ours[:16]}")
                store.publish(self.folder, kept)
                raise InvalidInput(
                    f"bank {self.key[:12]} was made twice with different bytes "
                    f"({theirs[:12]} and {ours[:12]}); the second is kept in {kept}",
                    remedy="this machine or its libraries do not compute reproducibly; report it",
                )
        shutil.rmtree(self.root)
        return self.final


def _read_journal(path: Path) -> dict[int, str]:
    """Reads block number -> SHA-256 of every whole line; torn and foreign lines are skipped."""
    found: dict[int, str] = {}
    try:
        lines = read_lines(path)
    except OSError:  # what is not there, or no journal, proves no block
        return found
    for line in lines:
        try:
            entry = parse_json(line)
            found[int(entry["block"])] = str(entry["sha256"])
        except (ValueError, KeyError, TypeError):
            continue
    return found
