"""Checks of single settings; each returns the fault in words, "" where there is none."""

from __future__ import annotations

import math

from stylegan_mix.errors import nearest

__all__ = ["milestones", "one_of", "within"]


def one_of(name: str, value: object, known: tuple[str, ...]) -> str:
    """Checks that a value is one of some words."""
    return "" if value in known else f"{name} '{value}' is unknown{nearest(str(value), known)}"


def within(
    name: str,
    value: float,
    low: float,
    high: float,
    *,
    open_low: bool = False,
    open_high: bool = False,
) -> str:
    """Checks that a value is a number within bounds, whole if the lower one is."""
    number = isinstance(value, (int, float)) and not isinstance(value, bool)
    if number and isinstance(low, int) and not isinstance(value, int):
        return f"{name} must be a whole number, got {value!r}"
    # Compared first: Python cannot tell if a very large whole number is finite.
    if number and low <= value <= high and math.isfinite(value):
        open_end = (open_low and value == low) or (open_high and value == high)
        if not open_end:
            return ""
    left, right = "(" if open_low else "[", ")" if open_high else "]"
    return f"{name} must be a number in {left}{low:,}, {high:,}{right}, got {value!r}"


def milestones(marks: tuple[float, ...], decay: tuple[float, ...]) -> str:
    """Checks that milestones rise within (0, 1), each with a factor in (0, 1]."""
    if len(marks) != len(decay):
        return f"{len(marks)} milestones need as many decay factors, got {len(decay)}"
    if list(marks) != sorted(marks) or not all(0 < mark < 1 for mark in marks):
        return f"milestones must rise within (0, 1), got {list(marks)}"
    if not all(0 < factor <= 1 for factor in decay):
        return f"decay factors must lie in (0, 1], got {list(decay)}"
    return ""
