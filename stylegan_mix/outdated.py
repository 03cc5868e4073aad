"""The generators, banks and runs of images that a data set, prepared again, no longer has.

Nothing is removed: they are refused where their images must be those of now. No torch.
"""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from stylegan_mix.datasets.listing import counted, some
from stylegan_mix.datasets.loading import ids_of
from stylegan_mix.datasets.pool import Pool, open_pool
from stylegan_mix.datasets.records import draw_options
from stylegan_mix.errors import InvalidInput, UsageFailure
from stylegan_mix.users import User, users_of_dataset

__all__ = ["commands", "in_words", "outdated"]

SHOWN = 10


def outdated(name: str, runs: Sequence[Path]) -> list[User]:
    """Lists the users of a data set whose draw has other images by now, or is impossible by now.

    `runs` are folders that are searched for runs.
    """
    users = [user for user in users_of_dataset(name, runs) if user.ids]
    if not users:
        return []
    pool, _ = open_pool(name, verify=False)
    return [user for user in users if not _fits(user, pool)]


def _fits(user: User, pool: Pool) -> bool:
    try:
        now = ids_of(pool, **user.draw)
    except (InvalidInput, UsageFailure, TypeError, ValueError):
        return False
    return all(now[part] == told for part, told in user.ids.items())


def in_words(name: str, users: Sequence[User], *, sure: bool) -> list[str]:
    """Composes lines that name the users; unless `sure`, they may fit the new images."""
    if not users:
        return []
    kinds = [
        f"  {counted(len(names), kind)}: {some(names, SHOWN)}"
        for kind in dict.fromkeys(user.kind for user in users)
        if (names := [user.name for user in users if user.kind == kind])
    ]
    if sure:
        head = f"of other images than {name} has now; they stay as they are:"
    else:
        head = f"of the images that {name} has now; they fit no others:"
    return [head, *kinds]


def commands(name: str, users: Sequence[User]) -> list[str]:
    """Lists the commands that make the same of the images of now, in the order of their use."""
    first: dict[str, Any] = {}
    for user in users:
        first.setdefault(user.kind, user)
    verbs = {"generator": "stylegan-mix train", "bank": "stylegan-mix generate"}
    typed = [
        f"{verb} {shlex.join(_options(name, first[kind]))}"
        for kind, verb in verbs.items()
        if kind in first
    ]
    if "run" in first:
        words = shlex.join(_options(name, first["run"]))
        typed.append(f"trainer run {words} --name NEW, with the options of the run")
    return typed


def _options(name: str, user: User) -> list[str]:
    draw = {part: user.draw.get(part) for part in ("imbalance", "profile", "split_seed")}
    return draw_options(name, **draw)
