"""Plain data of a file checked by field: which names, of which types, with which texts.

Facts and cards come out of manifests, and anyone can write a manifest with a fitting hash. A reader
relies on what was checked here.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import NoneType
from typing import Any

from stylegan_mix.showing import is_plain, shown

__all__ = ["LIST", "NUMBER", "OBJECT", "TEXT", "WHOLE", "Types", "check_each", "check_types"]

Types = tuple[type, ...]
TEXT, WHOLE, NUMBER, LIST, OBJECT = (str,), (int,), (int, float), (list,), (dict,)

_LONGEST = 100_000


def check_types(values: Any, fields: Mapping[str, Types]) -> None:
    """Raises ValueError unless all these fields are there, each of one of its types.

    A text must be one line without control characters. Other fields may be there too.
    """
    if type(values) is not dict:
        raise ValueError(f"it must be an object, got {shown(values)}")
    for name, types in fields.items():
        if name not in values:
            raise ValueError(f"'{name}' is missing")
        _check(values[name], types, f"'{name}'")


def check_each(values: Any, types: Types, name: str) -> None:
    """Raises ValueError unless `values` is a list of values of these types."""
    if type(values) is not list:
        raise ValueError(f"'{name}' must be a list, got {shown(values)}")
    for place, value in enumerate(values):
        _check(value, types, f"'{name}' number {place}")


def _check(value: Any, types: Types, name: str) -> None:
    if type(value) not in types:
        wanted = " or ".join("None" if one is NoneType else one.__name__ for one in types)
        got = f"'{shown(value)}'" if type(value) is str else shown(value)
        raise ValueError(f"{name} must be {wanted}, got {got}")
    if type(value) is str and (len(value) > _LONGEST or not is_plain(value)):
        raise ValueError(f"{name} must be a line of plain text, got {shown(value)}")
