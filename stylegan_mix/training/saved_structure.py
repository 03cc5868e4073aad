"""The structure of a saved state, name by name, independent of the values."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch

__all__ = ["ANYTHING", "Many", "differences"]

# Expected where any value may stand.
ANYTHING = object()


@dataclass(frozen=True)
class Many:
    """A list, or names, of any length; every part must have the structure of the one in `like`."""

    like: list[Any] | dict[str, Any]


def differences(
    saved: Any, expected: Any, name: str, called: Mapping[str, str] | None = None
) -> Iterator[str]:
    """Lists the parts of `saved` that are missing, unknown, or of another type or shape.

    `expected` and `saved` are nested as `checkpoint` saves them. A place is named by its path from
    `name`, with slashes between; `called` gives other names for some.
    """
    if expected is ANYTHING:
        return
    like = expected.like if isinstance(expected, Many) else expected
    if (found := _kind(saved)) != (wanted := _kind(like)):
        yield f"{name} is {found}, not {wanted}"
        return
    parts, wanted_parts = _parts(saved), _parts(like)
    if isinstance(expected, Many):
        (part,) = wanted_parts.values()
        wanted_parts = dict.fromkeys(parts, part)
    for key in wanted_parts | parts:
        place = (called or {}).get(f"{name}/{key}", f"{name}/{key}")
        if key not in parts:
            yield f"{place} is missing"
        elif key not in wanted_parts:
            yield f"{place} is unknown"
        else:
            yield from differences(parts[key], wanted_parts[key], place, called)


def _parts(value: Any) -> dict[Any, Any]:
    """Lists the direct parts of a value."""
    if isinstance(value, (list, tuple)):
        return dict(enumerate(value))
    return dict(value) if isinstance(value, Mapping) else {}


def _kind(value: Any) -> str:
    """Describes the type and shape of a value in words."""
    if isinstance(value, torch.Tensor):
        return f"{value.dtype} {list(value.shape)}".removeprefix("torch.")
    if isinstance(value, Mapping):
        return "names"
    if isinstance(value, (list, tuple)):
        return "a list"
    if type(value) is int:
        return "a whole number" if value >= 0 else f"{value}"
    return {float: "a number", str: "text"}.get(type(value), f"{value}")
