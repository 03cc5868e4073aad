"""Reading a bank: check manifest and hash, then map the arrays; no torch, no libhdf5.

`N` rows, `K` classes, `H W C` pixels; `lam` is the share of the first class of `pair`.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from stylegan_mix import arrays
from stylegan_mix.banks.facts import check, command
from stylegan_mix.banks.request import KIND
from stylegan_mix.errors import InvalidInput
from stylegan_mix.latents.spaces import SPACES

__all__ = ["Bank", "control_of", "open_bank", "reopen"]

# The bytes of a table of soft labels, at most: enough for 80,000 rows of 100 classes.
_LARGEST_TABLE = 1 << 25
_ARRAYS = {"images": ("u1", 4), "pair": ("i4", 2), "lam": ("f4", 1)}


class Bank:
    """An opened bank. Pickles as its path; `len(bank)` is N.

    `images` (N, H, W, C) uint8, `pair` (N, 2) int32 and `lam` (N,) float32 are read-only arrays on
    the disk; `facts` are those of its manifest.
    """

    def __init__(self, container: arrays.Container) -> None:
        self._container = container
        self.folder = container.folder
        self.facts: dict[str, Any] = container.facts
        # As plain arrays: each access to a part of a memmap object costs some microseconds.
        self.images = np.asarray(container["images"])
        self.pair = np.asarray(container["pair"])
        self.lam = np.asarray(container["lam"])
        self._stamp = self._stamp_on_disk()

    def __len__(self) -> int:
        return len(self.lam)

    def __reduce__(self) -> tuple[Any, ...]:
        return (reopen, (self.folder, self.content_sha256))

    @property
    def key(self) -> str:
        """The exact key, which names these bytes."""
        return str(self.facts["key"])

    @property
    def request_key(self) -> str:
        """The key of the request."""
        return str(self.facts["request_key"])

    @property
    def content_sha256(self) -> str:
        """The hash of the arrays, independent of their file."""
        return self._container.content_sha256

    @property
    def size(self) -> int:
        """The size of its file in bytes."""
        return int(self._container.manifest["file_bytes"])

    @property
    def split_id(self) -> str:
        """The training split of its generator."""
        return str(self.facts["split_id"])

    @property
    def space(self) -> str:
        """The space of mixing, a name of `latents.spaces.SPACES`."""
        return str(self.facts["space"])

    @property
    def control(self) -> str:
        """The name of the control, such as "unmixed"; "" for a bank of the method."""
        return control_of(self.facts)

    @property
    def mixes(self) -> bool:
        """True if a row has two classes."""
        return self.space not in SPACES or SPACES[self.space].mixes

    @property
    def classes(self) -> tuple[str, ...]:
        """Class names; `pair` holds their positions."""
        return tuple(self.facts["classes"])

    def class_mass(self) -> np.ndarray:
        """Sums the soft labels: the mass of each class in rows -> [K] float64."""
        lam = self.lam.astype(np.float64)
        size = len(self.classes)
        mass = np.bincount(self.pair[:, 0], weights=lam, minlength=size)
        return mass + np.bincount(self.pair[:, 1], weights=1.0 - lam, minlength=size)

    def soft_labels(self, rows: np.ndarray | slice = slice(None)) -> np.ndarray:
        """Composes the labels of rows: `lam` for the first class of each, the rest for the second.

        [rows, K] float32; a row of one class has 1 there.
        """
        if self._table is not None and not isinstance(rows, slice):
            return self._table.take(rows, axis=0)
        return self._composed(rows)

    @cached_property
    def _table(self) -> np.ndarray | None:
        """All labels [N,K], which are copied ten times faster than composed; None if too large."""
        size = 4 * len(self) * len(self.classes)
        return self._composed(slice(None)) if size <= _LARGEST_TABLE else None

    def _composed(self, rows: np.ndarray | slice) -> np.ndarray:
        pair, lam = self.pair[rows], self.lam[rows]
        place = np.arange(len(lam))
        labels = np.zeros((len(lam), len(self.classes)), np.float32)
        labels[place, pair[:, 0]] = lam
        labels[place, pair[:, 1]] += 1 - lam
        return labels

    def require_split(self, split_id: str) -> None:
        """Raises `InvalidInput` (exit code 3) unless the bank comes from this training split.

        A generator trained on another split may have seen images that this one holds out.
        """
        if self.split_id != split_id:
            raise InvalidInput(
                f"bank {self.key[:12]} comes from training split {self.split_id[:12]} of "
                f"{self.facts['dataset']}; this run trains on split {split_id[:12]}",
                remedy="stylegan-mix generate makes one for this split, with the --dataset, "
                "--imbalance, --profile and --split-seed of this run",
            )

    def require_unchanged(self) -> None:
        """Raises `InvalidInput` (exit code 3) if the file was changed since it was opened."""
        if self._stamp_on_disk() != self._stamp:
            raise InvalidInput(
                f"{self.folder} was replaced or altered while it was being read",
                remedy=f"stylegan-mix bank verify {self.key[:12]}",
            )

    def _stamp_on_disk(self) -> tuple[int, ...] | None:
        try:
            found = os.stat(self.folder / self._container.manifest["file"])
        except OSError:
            return None
        return found.st_size, found.st_mtime_ns, found.st_ino


def control_of(facts: Mapping[str, Any]) -> str:
    """Reads the control in a bank's facts, such as "unmixed"; "" for a bank of the method.

    The facts of older banks do not have it; their space tells it.
    """
    space = SPACES.get(facts["space"])
    return str(facts.get("control", space.control if space else ""))


def open_bank(folder: Path, verify: bool = True) -> Bank:
    """Opens the bank in `folder` after checking manifest, hash (with `verify`) and labels.

    Raises `InvalidInput` (exit code 3), with the command to type next, for a bank that is
    truncated, altered, of a newer schema, or has impossible labels.
    """
    try:
        if os.path.islink(folder / "bank.h5"):
            raise InvalidInput(f"{folder / 'bank.h5'} is a symbolic link; a bank holds its file")
        container = arrays.open_container(folder, kind=KIND, verify=verify)
        _check_facts(container)
        bank = Bank(container)
        _check_labels(bank)
    except InvalidInput as error:
        raise InvalidInput(f"bank {folder.name[:12]}: {error}", remedy=_remedy(folder)) from error
    return bank


def _check_facts(container: arrays.Container) -> None:
    facts = container.facts
    try:
        check(facts)
    except ValueError as error:
        raise InvalidInput(f"its facts: {error}") from error
    entries = container.manifest["arrays"]
    for name, (dtype, dimensions) in _ARRAYS.items():
        if name not in entries:
            raise InvalidInput(f"array '{name}' is missing")
        entry = entries[name]
        if entry["dtype"] != dtype or len(entry["shape"]) != dimensions:
            raise InvalidInput(
                f"'{name}' must be {dtype} with {dimensions} dimensions, got {entry['dtype']} "
                f"{entry['shape']}"
            )
    lengths = {name: entries[name]["shape"][0] for name in _ARRAYS}
    if set(lengths.values()) != {facts["n"]} or facts["n"] < 1:
        raise InvalidInput(f"{facts['n']} rows are declared, the arrays have {lengths}")
    if entries["images"]["shape"][1:] != facts["image_shape"]:
        raise InvalidInput(
            f"images of {facts['image_shape']} are declared, got {entries['images']['shape'][1:]}"
        )
    if entries["pair"]["shape"][1] != 2:
        raise InvalidInput(f"'pair' must be (N, 2), got {entries['pair']['shape']}")


def _check_labels(bank: Bank) -> None:
    # Negated, so that NaN fails too.
    wrong = ~((bank.lam >= 0) & (bank.lam <= 1))
    if wrong.any():
        row = int(wrong.argmax())
        raise InvalidInput(f"lam of row {row} is {bank.lam[row]}, outside [0, 1]")
    outside = ((bank.pair < 0) | (bank.pair >= len(bank.classes))).any(axis=1)
    if outside.any():
        row = int(outside.argmax())
        raise InvalidInput(
            f"row {row} has classes {bank.pair[row].tolist()}; there are {len(bank.classes)}"
        )


def _remedy(folder: Path) -> str:
    facts: dict[str, Any] = {}
    with contextlib.suppress(InvalidInput):
        facts = arrays.read_manifest(folder, kind=KIND)["facts"]
    return f"move {folder} away and make it again: {command(facts)}"


def reopen(folder: Path, content_sha256: str) -> Bank:
    """Opens a bank again, in another process; `InvalidInput` if another is there by now."""
    bank = open_bank(folder, verify=False)
    if bank.content_sha256 != content_sha256:
        raise InvalidInput(f"{folder} now holds another bank than the one that was opened")
    return bank
