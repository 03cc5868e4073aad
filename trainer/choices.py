"""The choices that a command left open, kept beside the runs, so that it makes the same run again.

`trainer run` without `--bank` takes the newest bank, and without `--dataset` the data set of that
bank. What a judge said of the bank is taken from its newest annotations. Newer ones, or a newer
bank, must not turn the same command into another run. So the first time that such a command runs,
its choice is written to `OUT/.choices/`, under a hash of the command's settings.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from stylegan_mix import store
from stylegan_mix.errors import InvalidInput

__all__ = ["DRAW", "Choice", "keep", "recall"]

_SCHEMA = "trainer-choice/1"
DRAW: dict[str, tuple[type, ...]] = {
    "dataset": (str,),
    "imbalance": (int, float),
    "profile": (str,),
    "split_seed": (int,),
}
"""The options of a data set that may be left open, with their types."""


@dataclass(frozen=True)
class Choice:
    """A choice: the options of the data set that were open, the bank, and what its judge said.

    `bank` is a key, and `annotations` the name of a folder; None if nothing was chosen there.
    """

    draw: Mapping[str, Any]
    bank: str | None
    annotations: str | None = None


def _path(out: Path, request: Mapping[str, Any]) -> Path:
    return out / ".choices" / f"{store.digest(request)[:16]}.json"


def recall(out: Path, request: Mapping[str, Any]) -> Choice | None:
    """Reads the choice of an earlier command with the same settings; None if there is none.

    `request` holds the settings as plain data. Raises `InvalidInput` (exit code 3) for a file that
    holds no choice.
    """
    path = _path(out, request)
    if not path.is_file():
        return None
    remedy = f"remove {path}: the choice is then made anew"
    try:
        kept = store.read_json(path)
    except InvalidInput as error:
        error.remedy = error.remedy or remedy
        raise
    if not isinstance(kept, dict) or not _sound(kept):
        raise InvalidInput(f"{path} holds no choice of a data set and a bank", remedy=remedy)
    return Choice(kept["draw"], kept["bank"], kept.get("annotations"))


def _sound(kept: Mapping[str, Any]) -> bool:
    draw, bank = kept.get("draw"), kept.get("bank")
    return (
        kept.get("schema") == _SCHEMA
        and isinstance(draw, dict)
        and all(type(value) in DRAW.get(name, ()) for name, value in draw.items())
        and isinstance(bank, str | None)
        and isinstance(kept.get("annotations"), str | None)
    )


def keep(out: Path, request: Mapping[str, Any], choice: Choice, command: str) -> None:
    """Writes the choice of a command, unless it stands there already; `command` is for people."""
    if recall(out, request) == choice:
        return
    kept = {"schema": _SCHEMA, "command": command, "draw": dict(choice.draw), "bank": choice.bank}
    kept |= {} if choice.annotations is None else {"annotations": choice.annotations}
    store.write_json(_path(out, request), kept)
