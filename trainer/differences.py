"""Nested settings laid flat, and the lines that name the differences of two sets of settings."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

__all__ = ["differing", "flat"]


def flat(settings: Mapping[str, Any], before: str = "") -> dict[str, Any]:
    """Flattens nested settings to dotted names."""
    found: dict[str, Any] = {}
    for name, value in settings.items():
        if isinstance(value, Mapping):
            found.update(flat(value, f"{before}{name}."))
        else:
            found[f"{before}{name}"] = value
    return found


def differing(
    one: Mapping[str, Any], other: Mapping[str, Any], *, names: tuple[str, str]
) -> list[str]:
    """Lists settings in which two sets differ, as lines: "lr: 0.1 in A, 0.05 in B".

    `names` gives the origin of each set, such as ("in A", "in B").
    """
    left, right = flat(one), flat(other)
    return [
        f"{name}: {_brief(left, name)} {names[0]}, {_brief(right, name)} {names[1]}"
        for name in sorted({*left, *right})
        if left.get(name, left) != right.get(name, left)
    ]


def _brief(settings: Mapping[str, Any], name: str) -> str:
    value = settings.get(name, "absent")
    is_hash = isinstance(value, str) and len(value) == 64
    return value[:12] if is_hash else str(value)
