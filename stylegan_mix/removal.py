"""Removing a data set, a generator or a bank from the store, into its trash.

What is removed moves by one rename to `.trash` beside the entries of its kind, such as
`banks/.trash/<key>`, from where it can be moved back. It is refused for what others name: a data
set by generators, banks and runs, a generator by banks, a bank by runs. No torch.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from stylegan_mix import store
from stylegan_mix.banks import store as bank_store
from stylegan_mix.datasets import loading
from stylegan_mix.datasets.embedded import EMBEDDED
from stylegan_mix.datasets.listing import some
from stylegan_mix.datasets.pool import open_pool
from stylegan_mix.errors import InvalidInput, UsageFailure, nearest
from stylegan_mix.generators import store as generator_store
from stylegan_mix.users import User, users_of_bank, users_of_dataset, users_of_generator

__all__ = ["KINDS", "Removal", "carry_out", "plan"]

TRASH = ".trash"
_SHOWN = 5  # users that an error names


@dataclass(frozen=True)
class Removal:
    """An entry of the store to remove: its kind, its name, and its folder."""

    kind: str
    name: str
    folder: Path

    @property
    def lock(self) -> Path:
        """The lock file that is held while the entry is written."""
        if self.kind == "bank":
            return bank_store.folder() / ".partial" / f"{self.name}.lock"
        return self.folder.with_name(f".{self.name}.lock")

    def place(self) -> Path:
        """Returns a free place in the trash."""
        trash = store.home() / KINDS[self.kind] / TRASH
        number, place = 1, trash / self.name
        while os.path.lexists(place):
            number += 1
            place = trash / f"{self.name}.{number}"
        return place


KINDS = {"dataset": "datasets", "generator": "generators", "bank": "banks"}
"""Kind -> its folder in the store."""


def plan(kind: str, references: Sequence[str], runs: Sequence[Path]) -> list[Removal]:
    """Finds what is to be removed, and checks that nothing else needs it.

    `runs` are folders that are searched for runs. A damaged entry may always be removed. Raises
    `UsageFailure` (exit code 2) for an entry in use, or one that does not lie in our own store,
    `InvalidInput` (3) for an unknown one.
    """
    found = {one: _FIND[kind](one) for one in references}
    for one in found.values():
        _check_place(one)
        users = [] if _is_damaged(one) else _users(one, runs)
        if users:
            raise _in_use(one, users)
    return list({one.folder: one for one in found.values()}.values())


def carry_out(removal: Removal) -> Path:
    """Moves the entry into the trash, and returns its place there.

    Raises `Busy` (exit code 75) if a process writes it now.
    """
    with store.locked(removal.lock, wait=False):
        place = removal.place()
        with store.disk_errors(place):
            place.parent.mkdir(parents=True, exist_ok=True)
            os.rename(removal.folder, place)
            store.sync_folder(place.parent)
            store.sync_folder(removal.folder.parent)
    return place


def _check_place(removal: Removal) -> None:
    """Raises `UsageFailure` for what lies in a shared store, or in no store."""
    kind = store.home() / KINDS[removal.kind]
    parents = {os.path.realpath(kind), os.path.realpath(kind / ".partial")}
    if os.path.realpath(removal.folder.parent) not in parents:
        raise UsageFailure(
            f"{removal.folder} does not lie in the store {store.home()}",
            remedy="a shared store is only read; a folder elsewhere is yours to delete",
        )


# Finding


def _dataset(name: str) -> Removal:
    if name in EMBEDDED:
        raise UsageFailure(f"{name} is built in, and cannot be removed")
    known = loading.prepared_names()
    if name not in known:
        raise InvalidInput(f"no prepared data set '{name}'{nearest(name, known)}")
    own = store.home() / "datasets" / name
    shared = store.shared()
    elsewhere = own if shared is None else shared / "datasets" / name
    return Removal("dataset", name, own if own.is_dir() else elsewhere)


def _generator(reference: str) -> Removal:
    folder = generator_store.resolve(reference)
    return Removal("generator", folder.name, folder)


def _bank(reference: str) -> Removal:
    unfinished = [one for one in bank_store.unfinished() if one.key.startswith(reference)]
    begun = [path.name for path in bank_store.folders() if path.name.startswith(reference)]
    if reference and len(unfinished) == 1 and not begun:
        return Removal("bank", unfinished[0].key, unfinished[0].folder)
    folder = bank_store.resolve(reference)
    return Removal("bank", folder.name, folder)


_FIND = {"dataset": _dataset, "generator": _generator, "bank": _bank}


# Users


def _users(removal: Removal, runs: Sequence[Path]) -> list[User]:
    """Lists everything that names an entry."""
    if removal.kind == "bank":
        return users_of_bank(removal.name, runs)
    if removal.kind == "generator":
        return users_of_generator(removal.name)
    return users_of_dataset(removal.name, runs)


def _is_damaged(removal: Removal) -> bool:
    if removal.kind == "dataset":
        try:
            open_pool(removal.name, verify=False)
        except InvalidInput:
            return True
        return False
    known: list[tuple[Path, Any]] = [*bank_store.damaged(), *generator_store.damaged()]
    return removal.folder in [path for path, _ in known]


def _in_use(removal: Removal, users: Sequence[User]) -> UsageFailure:
    name = removal.name if removal.kind == "dataset" else removal.name[:12]
    return UsageFailure(
        f"{removal.kind} {name} is needed by {some([user.words for user in users], _SHOWN)}",
        remedy="remove these first, with `generators remove` and `bank remove`; a run is removed "
        "by moving its folder away",
    )
