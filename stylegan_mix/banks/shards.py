"""Shards: fixed parts of the work on a bank, for machines that share the store; no torch.

Part i of n makes the blocks i - 1, i - 1 + n, and so on. An unfinished bank keeps a mark of every
shard that was begun. So a shard that was asked for with other options than the others is told
apart, instead of beginning a bank that nobody finishes.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from stylegan_mix import store
from stylegan_mix.errors import InvalidInput, UsageFailure
from stylegan_mix.showing import shown

__all__ = ["Shard", "absent", "check", "mark"]

_FOLDER = "shards"


@dataclass(frozen=True)
class Shard:
    """Part `number`, from 1, of the `count` parts of the work on a bank."""

    number: int
    count: int

    @classmethod
    def parse(cls, text: str) -> Shard:
        """Reads "2/3"; `UsageFailure` (exit code 2) for anything else."""
        found = re.fullmatch(r"([0-9]{1,9})/([0-9]{1,9})", text)
        number, count = (int(one) for one in found.groups()) if found else (0, 0)
        if not 1 <= number <= count:
            raise UsageFailure(
                f"--shard must be a part i/n with i from 1 to n, such as 2/3; got '{shown(text)}'"
            )
        return cls(number, count)

    def __str__(self) -> str:
        return f"{self.number}/{self.count}"

    def blocks(self, total: int) -> range:
        """Lists its blocks of a bank of `total` blocks."""
        return range(self.number - 1, total, self.count)

    @property
    def _name(self) -> str:
        return f"{self.number}-of-{self.count}"


def mark(root: Path, shard: Shard) -> None:
    """Marks a shard of the unfinished bank in a folder as begun."""
    place = root / _FOLDER / shard._name
    with store.disk_errors(place):
        place.parent.mkdir(exist_ok=True)
        place.touch()


def absent(root: Path, shard: Shard) -> list[str]:
    """Lists the shards of the unfinished bank in a folder that were not begun, such as "2/3"."""
    every = (Shard(number, shard.count) for number in range(1, shard.count + 1))
    return [str(one) for one in every if not _is_begun(root, one)]


def check(root: Path, shard: Shard, facts: dict[str, Any]) -> None:
    """Raises `InvalidInput` (exit code 3) if this shard seems to belong to another bank.

    `root` is the folder of the unfinished bank, `facts` its `request` and `numerics`. It is so if
    none of its shards was begun, while another bank of the same split waits for just this shard.
    """
    if _begun(root):
        return
    for path in sorted(root.parent.iterdir()) if root.parent.is_dir() else []:
        if path == root or _is_begun(path, shard):
            continue
        if not any(name.endswith(f"-of-{shard.count}") for name in _begun(path)):
            continue
        theirs = _facts(path)
        if theirs.get("split_id") == _plain(facts)["split_id"]:
            raise InvalidInput(
                f"shard {shard} of bank {root.name[:12]} is the first of its shards, and bank "
                f"{path.name[:12]} waits for its shard {shard}; they differ in "
                f"{_differences(theirs, _plain(facts))}",
                remedy="ask every shard with the same options, --generator too, on machines of "
                f"one kind; if a second bank is meant, stylegan-mix bank remove {path.name[:12]} "
                "gives the first up, and without --shard both can be made side by side",
            )


def _begun(root: Path) -> list[str]:
    try:
        return sorted(path.name for path in (root / _FOLDER).iterdir())
    except OSError:
        return []


def _is_begun(root: Path, shard: Shard) -> bool:
    return shard._name in _begun(root)


def _facts(root: Path) -> dict[str, Any]:
    """Reads the request and the numerics of an unfinished bank; empty if there are none."""
    try:
        return _plain(store.read_json(root / "request.json"))
    except (InvalidInput, KeyError, TypeError, ValueError):
        return {}


def _plain(facts: dict[str, Any]) -> dict[str, Any]:
    return {**facts["request"], **facts["numerics"]}


def _differences(theirs: dict[str, Any], ours: dict[str, Any]) -> str:
    found = [
        f"{name} ({_short(theirs.get(name))}, here {_short(ours.get(name))})"
        for name in sorted({*theirs, *ours})
        if theirs.get(name) != ours.get(name)
    ]
    return ", ".join(found[:6]) or "nothing that is known"


def _short(value: Any) -> str:
    text = shown(value)
    return f"{text[:14]}..." if len(text) > 20 else text
