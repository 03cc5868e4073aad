"""Budgets of generators in words: the images shown, and a warning where they are few; no torch."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from stylegan_mix.errors import UsageFailure
from stylegan_mix.presets import preset_named

__all__ = ["in_thousands", "of_preset", "preset_budget", "short", "short_for_bank"]

_SMALL_SHARE = 0.5


def in_thousands(kimg: float) -> str:
    """Formats a budget, such as "25,000 thousand images"."""
    return f"{kimg:,.10g} thousand images"


def of_preset(kimg: float, budget: float) -> str:
    """Compares the images shown with the budget of a preset: "6 of 200 thousand images"."""
    return f"{kimg:,.6g} of {in_thousands(budget)}"


def short(card: Mapping[str, Any]) -> str:
    """Says that a generator saw under half of its preset's budget, as a warning; "" if it saw more.

    The facts stand on its card, images before a warm start included. Nothing is known of an
    imported one.
    """
    return _short(card.get("lineage_kimg", card.get("kimg")), card["preset"].get("kimg"))


def short_for_bank(facts: Mapping[str, Any]) -> str:
    """Says the same of the generator of a bank, which names its preset; "" if unknown."""
    return _short(facts.get("generator_kimg"), preset_budget(facts))


def preset_budget(facts: Mapping[str, Any]) -> float | None:
    """Looks up the budget, in thousands of images, of the preset that a bank names; else None."""
    if facts.get("generator_imported") or not facts.get("generator_preset"):
        return None
    try:
        return preset_named(facts["generator_preset"], facts["image_shape"][0]).kimg
    except UsageFailure:  # a preset of another version
        return None


def _short(kimg: float | None, budget: float | None) -> str:
    # Written so that a number which is not finite passes for unknown.
    if kimg is None or budget is None or not 0 <= kimg < _SMALL_SHARE * budget:
        return ""
    share = kimg / budget
    told = f"{share:.0%}".replace("%", " %") if share >= 0.01 else "less than 1 %"
    return (
        f"this generator was shown {told} of its preset's images: {kimg:,.6g} of "
        f"{budget:,.10g} thousand; its images may be noise, which looks diverse: see its grid.png"
    )
