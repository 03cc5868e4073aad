"""The generators, banks and runs that name an entry of the store: a data set, a generator, a bank.

Only cards, manifests and the JSON files of runs are read; damaged ones are passed over. No torch.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from stylegan_mix import store
from stylegan_mix.banks import store as bank_store
from stylegan_mix.errors import InvalidInput
from stylegan_mix.generators import store as generator_store

__all__ = ["User", "users_of_bank", "users_of_dataset", "users_of_generator"]

DRAW = ("imbalance", "profile", "split_seed", "drop_overlap", "val_per_class")


@dataclass(frozen=True)
class User:
    """A generator, a bank or a run, called `name`.

    `draw` has the arguments of `datasets.load` for the images that it saw, without the data set.
    `ids` has those of "split_id", "test_id" and "val_id" on which it depends.
    """

    kind: str
    name: str
    draw: Mapping[str, Any]
    ids: Mapping[str, str]

    @property
    def words(self) -> str:
        """The kind and the name, as a message gives them."""
        return f"{self.kind} {self.name}"


def users_of_dataset(name: str, runs: Sequence[Path]) -> list[User]:
    """Lists the generators, the banks, and the runs below some folders, that name a data set."""
    generators = [
        _made_of("generator", one.hash, one.card)
        for one in generator_store.find()
        if one.card["dataset"] == name
    ]
    return [*generators, *_banks("dataset", name), *_runs_with("data", "name", name, runs)]


def users_of_generator(name: str) -> list[User]:
    """Lists the banks, finished and unfinished, that name a generator by its hash."""
    begun = [one for one in bank_store.unfinished() if one.request.get("generator") == name]
    unfinished = [User("unfinished bank", one.key[:12], {}, {}) for one in begun]
    return [*_banks("generator", name), *unfinished]


def users_of_bank(key: str, runs: Sequence[Path]) -> list[User]:
    """Lists the runs below some folders that name a bank by its key."""
    return _runs_with("bank", "key", key, runs)


def _banks(fact: str, name: str) -> list[User]:
    return [
        _made_of("bank", one.key, one.facts)
        for one in bank_store.find()
        if one.facts.get(fact) == name
    ]


def _made_of(kind: str, name: str, facts: Mapping[str, Any]) -> User:
    """Describes a generator or a bank by its facts: its training split is all it depends on."""
    return User(kind, name[:12], _named(facts, DRAW), _texts(facts, ("split_id",)))


def _runs_with(part: str, entry: str, name: str, places: Sequence[Path]) -> list[User]:
    """Lists the runs below some folders whose settings have a name in an entry of a part."""
    found = []
    for folder, spec in _runs(places):
        settings = spec.get(part)
        if isinstance(settings, dict) and settings.get(entry) == name:
            data = spec.get("data")
            draw = _named(data, DRAW) if isinstance(data, dict) else {}
            found.append(User("run", str(folder), draw, _inputs(folder)))
    return found


def _runs(places: Sequence[Path]) -> Iterator[tuple[Path, dict[str, Any]]]:
    """Finds the runs below some folders, each with its settings; unreadable ones are left out."""
    for path in sorted(path for place in places for path in place.rglob("run.json")):
        spec = _read(path).get("spec")
        if isinstance(spec, dict):
            yield path.parent, spec


def _inputs(folder: Path) -> dict[str, str]:
    """Reads the ids of the images that a run saw."""
    return _texts(_read(folder / "inputs.json"), ("split_id", "test_id", "val_id"))


def _read(path: Path) -> dict[str, Any]:
    try:
        found = store.read_json(path)
    except (InvalidInput, OSError):
        return {}
    return found if isinstance(found, dict) else {}


def _named(facts: Mapping[str, Any], names: Sequence[str]) -> dict[str, Any]:
    return {name: facts[name] for name in names if facts.get(name) is not None}


def _texts(facts: Mapping[str, Any], names: Sequence[str]) -> dict[str, str]:
    return {name: facts[name] for name in names if isinstance(facts.get(name), str)}
