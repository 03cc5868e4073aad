"""Collapse of a class, judged by its diversity (`diversity_ratios`): the bound alone, no torch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

__all__ = ["COLLAPSED", "ONE_PICTURE", "dead", "warning"]

# On digits and CIFAR-10 healthy classes stay above 0.5, from the first 20 kimg on.
COLLAPSED = 0.1
ONE_PICTURE = "little but one picture is drawn of"


def dead(diversity: Mapping[int, float | None]) -> list[int]:
    """Lists the collapsed classes, of those that can be judged."""
    return [c for c, ratio in diversity.items() if ratio is not None and ratio < COLLAPSED]


def warning(diversity: Mapping[int, float | None], classes: Sequence[str]) -> str:
    """Warns of a generator's collapsed classes by name; "" if there is none."""
    names = ", ".join(classes[label] for label in dead(diversity))
    return f"warning: {ONE_PICTURE} {names}" if names else ""
