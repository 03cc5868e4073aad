"""The structure of a saved state, name by name: what it is made of, whatever the values are."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch

__all__ = ["ANYTHING", "Many", "differences"]

# Expected in a place where anything may stand.
ANYTHING = object()


@dataclass(frozen=True)
class Many:
    """A list, or names, of any length; `like` is one with a single part, and all must be alike."""

    like: list[Any] | dict[str, Any]


def differences(
    saved: Any, expected: Any, name: str, called: Mapping[str, str] | None = None
) -> Iterator[str]:
    """What of `saved` is missing, unknown, or of another type or shape than in `expected`.

    Both are nested as `checkpoint` saves it. A place is named by its way from `name`, with slashes
    between; `called` gives other names for some.
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
    """What lies directly below a value."""
    if isinstance(value, (list, tuple)):
        return dict(enumerate(value))
    return dict(value) if isinstance(value, Mapping) else {}


def _kind(value: Any) -> str:
    """What a value is, in words."""
    if isinstance(value, torch.Tensor):
        return f"{value.dtype} {list(value.shape)}".removeprefix("torch.")
    if isinstance(value, Mapping):
        return "names"
    if isinstance(value, (list, tuple)):
        return "a list"
    if type(value) is int:
        return "a whole number" if value >= 0 else f"{value}"
    return {float: "a number", str: "text"}.get(type(value), f"{value}")
