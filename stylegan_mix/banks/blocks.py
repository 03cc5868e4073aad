"""A bank in the making: a file for each finished block, claims on the others, the end of the work.

A key is absent, then partial, sealed, published. A partial bank lies in `banks/.partial/<exact
key>/`: `blocks/` has a file for each finished block, `claims/` a locked file for each block that a
process is making, and `bank/` is the container that the last of them fills and seals. Any number of
processes, on any number of machines, work on one bank. They share nothing but these files: a block
is claimed by a lock, which ends with its process, and finished by one rename. A block is taken into
the bank only after hashing it, so a process may be killed anywhere. No torch.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any

import numpy as np

from stylegan_mix import arrays, store
from stylegan_mix.banks.request import KIND, Request
from stylegan_mix.errors import Busy, InvalidInput
from stylegan_mix.latents.plan import BLOCK
from stylegan_mix.reading import open_regular, parse_json, read_bytes
from stylegan_mix.session import Session

__all__ = ["FILE", "Partial", "finished_blocks"]

FILE = "bank.h5"
_PUBLISHED = {FILE, "MANIFEST.json", "BANK_CARD.md", "preview.png"}
# Longest first line of a block's file, in bytes.
_HEAD = 256


class Partial:
    """The bank `key` of `request` while it is written, by this process and perhaps others.

    `banks` is the store's folder of banks; `attributes` go into the HDF5 root.
    """

    def __init__(
        self, banks: Path, key: str, request: Request, attributes: Mapping[str, str | int | float]
    ) -> None:
        self.key = key
        self.final = banks / key
        self.root = banks / ".partial" / key
        self.folder = self.root / "bank"
        self._blocks = self.root / "blocks"
        self._claims = self.root / "claims"
        self._lock = banks / ".partial" / f"{key}.lock"
        self._request = request
        self._attributes = attributes
        self._held: dict[int, ExitStack] = {}
        self._arrays: dict[str, tuple[np.dtype[Any], tuple[int, ...]]] = {
            "images": (np.dtype("u1"), request.image_shape),
            "pair": (np.dtype("<i4"), (2,)),
            "lam": (np.dtype("<f4"), ()),
        }

    @contextmanager
    def working(self, session: Session = Session()) -> Iterator[None]:
        """Marks this process as one that works on the bank, as long as the context lasts.

        Meanwhile nobody removes what is unfinished. The last one to leave a finished bank does.
        """
        with store.locked(self._lock, shared=True, session=session):
            try:
                yield
            finally:
                for index in list(self._held):
                    self.release(index)
        if self.published:
            with suppress(Busy), store.locked(self._lock, wait=False):
                shutil.rmtree(self.root, ignore_errors=True)
                # A process that waits for this lock looks for the finished bank first.
                self._lock.unlink(missing_ok=True)

    def begin(self, facts: Mapping[str, Any]) -> None:
        """Makes the folders and takes the disk space; `facts` say what the bank is to be.

        Raises `InvalidInput` (exit code 3) for a block of another bank in its folder, and
        `MissingEnvironment` (4) for a full disk.
        """
        store.write_json(self.root / "request.json", {"key": self.key, **facts})
        with store.disk_errors(self.root):
            self._blocks.mkdir(exist_ok=True)
            self._claims.mkdir(exist_ok=True)
        for index in finished_blocks(self.root):
            self._check_own(index)
        with suppress(Busy), self.finishing():
            if not self.sealed:
                self._container()

    def bytes_to_write(self) -> int:
        """Counts the bytes of the missing blocks, and of the bank if its space is not taken yet."""
        missing = 1 - len(finished_blocks(self.root)) / self._request.blocks
        bank = 0 if self.folder.exists() else self._request.bytes
        return bank + int(missing * self._request.bytes)

    @property
    def published(self) -> bool:
        """True once the bank is finished and has its name."""
        return self.final.exists()

    @property
    def whole(self) -> bool:
        """True if no block is missing, so that the bank can be finished."""
        return self._over or len(finished_blocks(self.root)) >= self._request.blocks

    @property
    def _over(self) -> bool:
        """True if the bank is sealed, or about to be, so that no block is needed."""
        return (self.folder / arrays.MANIFEST).exists() or self.published

    def missing(self, indices: Iterable[int]) -> list[int]:
        """Lists those of some blocks that have no file."""
        found = finished_blocks(self.root)
        return [index for index in indices if index not in found]

    # One block

    def claim(self, index: int) -> bool:
        """Claims a block that is to be made, until `release` or the end of `working`.

        False if it is made by now, or if another process is making it.
        """
        with ExitStack() as claim:
            try:
                claim.enter_context(store.locked(self._claims / f"{index}", wait=False))
            except Busy:
                return False
            if self._block(index).exists() or self._over:
                return False
            self._held[index] = claim.pop_all()
            return True

    def release(self, index: int) -> None:
        """Ends the claim on a block."""
        self._held.pop(index).close()

    def land(self, index: int, images: np.ndarray, pair: np.ndarray, lam: np.ndarray) -> None:
        """Writes a whole block: images [64, H, W, C] uint8, pair [64, 2], lam [64]."""
        given = {"images": images, "pair": pair, "lam": lam}
        parts = [
            np.ascontiguousarray(given[name], kind).data for name, (kind, _) in self._arrays.items()
        ]
        head = {"bank": self.key, "block": index, "sha256": _sha256(parts)}
        path = self._block(index)
        temporary = path.with_name(f".{path.name}")
        with store.disk_errors(path):
            try:
                # Not brought to the disk: a block that a power cut tears has another hash.
                with open(temporary, "wb") as file:
                    file.write(json.dumps(head).encode() + b"\n")
                    for part in parts:
                        file.write(part)
                temporary.replace(path)
            except FileNotFoundError:
                if not self._over:  # else the folder went with the seal of the bank
                    raise

    def _block(self, index: int) -> Path:
        return self._blocks / f"{index}"

    def _head(self, content: bytes) -> dict[str, Any] | None:
        """Reads the first line of a block's file; None if it is none."""
        with suppress(ValueError):
            head = parse_json(content[:_HEAD].partition(b"\n")[0])
            return head if isinstance(head, dict) else None
        return None

    def _check_own(self, index: int, content: bytes | None = None) -> None:
        """Raises `InvalidInput` (exit code 3) for a block of another bank."""
        path = self._block(index)
        if content is None:
            try:
                with open_regular(path) as file:
                    content = file.read(_HEAD)
            except OSError:
                return
        head = self._head(content)
        bank = None if head is None else head.get("bank")
        if isinstance(bank, str) and bank != self.key:
            raise InvalidInput(
                f"{path} is a block of bank {bank[:12]!a}, in the folder of bank {self.key[:12]}: "
                "shards of different requests make no bank",
                remedy=f"move {self._blocks} away; every shard must be asked for with the same "
                "options, and the processes must share one store",
            )

    def _read(self, index: int) -> dict[str, np.ndarray] | None:
        """Reads the arrays of a block [64, ...]; None if its file is not sound."""
        sizes = {
            name: BLOCK * kind.itemsize * int(np.prod(shape, dtype=np.int64))
            for name, (kind, shape) in self._arrays.items()
        }
        try:
            content = read_bytes(self._block(index), limit=_HEAD + sum(sizes.values()))
        except OSError:
            return None
        self._check_own(index, content)
        head = self._head(content)
        body = memoryview(content)[content.find(b"\n") + 1 :]
        if head != {"bank": self.key, "block": index, "sha256": _sha256([body])}:
            return None
        if len(body) != sum(sizes.values()):
            return None
        found, start = {}, 0
        for name, (kind, shape) in self._arrays.items():
            part = body[start : start + sizes[name]]
            found[name] = np.frombuffer(part, kind).reshape(BLOCK, *shape)
            start += sizes[name]
        return found

    # The end of the work

    @contextmanager
    def finishing(self) -> Iterator[None]:
        """Makes this process the only one that fills, seals and publishes; `Busy` if another is."""
        with store.locked(self.root / "finish.lock", wait=False):
            yield

    @property
    def sealed(self) -> bool:
        """True if the container is whole: a process may have ended between seal and publication."""
        if not (self.folder / arrays.MANIFEST).exists():
            return False
        try:
            arrays.open_container(self.folder, kind=KIND)
        except InvalidInput:
            shutil.rmtree(self.folder)
            return False
        return True

    def fill(self, session: Session = Session()) -> arrays.Writer | None:
        """Writes all blocks into the container; None if a block was not sound.

        Such a block is removed, so it is missing again. A request of the session stops it.
        """
        request, writer, sound = self._request, self._container(), True
        for index in range(request.blocks):
            if session.stop.requested:
                what = f"all {request.blocks:,} blocks of bank {self.key[:12]} are kept"
                raise session.stop.failure(saved=True, what=what)
            block = self._read(index)
            if block is None:
                self._block(index).unlink(missing_ok=True)
                sound = False
                continue
            rows = slice(index * BLOCK, min((index + 1) * BLOCK, request.n))
            with store.disk_errors(self.folder / FILE):
                for name, values in block.items():
                    writer.view(name)[rows] = values[: rows.stop - rows.start]
        return writer if sound else None

    def _container(self) -> arrays.Writer:
        """Opens the container, whose disk space is taken when it is made."""
        declared = {
            name: (kind.str, (self._request.n, *shape))
            for name, (kind, shape) in self._arrays.items()
        }
        return arrays.Writer(
            self.folder, declared, file=FILE, attributes=self._attributes, resume=True
        )

    def seal(self, writer: arrays.Writer, facts: Mapping[str, Any]) -> None:
        """Hashes the filled container and writes its manifest. Its blocks are needed no more."""
        writer.seal(KIND, facts)
        shutil.rmtree(self._blocks, ignore_errors=True)

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
        return self.final


def finished_blocks(root: Path) -> set[int]:
    """Lists the blocks of the unfinished bank in a folder that have a file, sound or not."""
    try:
        names = [path.name for path in (root / "blocks").iterdir()]
    except OSError:
        return set()
    return {int(name) for name in names if name.isascii() and name.isdecimal() and len(name) < 20}


def _sha256(parts: Iterable[Any]) -> str:
    found = hashlib.sha256()
    for part in parts:
        found.update(part)
    return found.hexdigest()
