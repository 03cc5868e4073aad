"""What the card of a generator holds, checked in one place: names, types, what belongs together.

A card comes out of a manifest, and anyone can write a manifest with a hash that fits: readers rely
on what is checked here.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import NoneType
from typing import Any

from stylegan_mix.presets import preset_of

__all__ = ["check"]

_Types = tuple[type, ...]

_TEXT, _WHOLE, _NUMBER, _LIST, _OBJECT = (str,), (int,), (int, float), (list,), (dict,)
_EVERY: dict[str, _Types] = {
    "classes": _LIST,
    "counts": _LIST,
    "resolution": _WHOLE,
    "channels": _WHOLE,
    "preset": _OBJECT,
    "profile": (*_TEXT, NoneType),
    "imbalance": (*_NUMBER, NoneType),
    "split_seed": (*_WHOLE, NoneType),
    "test_id": (*_TEXT, NoneType),
}
# What whoever imports a generator need not know.
_ORIGIN: dict[str, _Types] = {
    "dataset": _TEXT,
    "split_id": _TEXT,
    "training": _TEXT,
    "kimg": _NUMBER,
    "seed": _WHOLE,
    "diversity": _LIST,
}
_TRAINED = {**_EVERY, **_ORIGIN}
_IMPORTED = {
    **_EVERY,
    **{name: (*types, NoneType) for name, types in _ORIGIN.items()},
    "network": _OBJECT,
    "imported": _OBJECT,
}
_SOURCE: dict[str, _Types] = {"file": _TEXT, "sha256": _TEXT, "what": _TEXT, "split": _TEXT}
_OF_CLASSES: dict[str, _Types] = {
    "classes": _TEXT,
    "counts": _WHOLE,
    "diversity": (*_NUMBER, NoneType),
}
_SOMETIMES: dict[str, _Types] = {"command": _TEXT, "operators": _TEXT, "half_life": _NUMBER}


def check(card: Any) -> None:
    """ValueError, which says what is wrong, unless this is the card of a generator."""
    if type(card) is not dict:
        raise ValueError(f"it must be an object, got {card!r:.40}")
    imported = card.get("imported") is not None
    _check_types(card, _IMPORTED if imported else _TRAINED)
    _check_types(card, {name: _SOMETIMES[name] for name in _SOMETIMES if name in card})
    _check_lists(card)
    if min(card["resolution"], card["channels"]) < 1:
        raise ValueError("'resolution' and 'channels' must be positive")
    if imported:
        _check_types(card["imported"], _SOURCE)
        _check_types(card["preset"], {"name": _TEXT})
        return
    preset_of(card["preset"])
    if not card["classes"]:
        raise ValueError("'classes' is empty: only an imported one is unconditional")


def _check_types(values: Mapping[str, Any], fields: Mapping[str, _Types]) -> None:
    for name, types in fields.items():
        if name not in values:
            raise ValueError(f"'{name}' is missing")
        if type(values[name]) not in types:
            wanted = " or ".join("None" if one is NoneType else one.__name__ for one in types)
            raise ValueError(f"'{name}' must be {wanted}, got {values[name]!r:.40}")


def _check_lists(card: Mapping[str, Any]) -> None:
    """Names, counts and diversity of each class; without classes there is nothing to count."""
    classes = card["classes"]
    for name, types in _OF_CLASSES.items():
        values = card[name] or []
        if any(type(value) not in types for value in values):
            raise ValueError(f"'{name}' holds something else than it should: {values!r:.60}")
        if classes and card[name] is not None and len(values) != len(classes):
            raise ValueError(f"'{name}' has {len(values)} values for {len(classes)} classes")
