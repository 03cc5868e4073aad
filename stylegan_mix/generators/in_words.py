"""A generator in plain words with units; no torch."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from stylegan_mix.generators.budget import short
from stylegan_mix.generators.card import command, trained_for
from stylegan_mix.generators.store import Published

__all__ = ["in_words"]


def in_words(published: Published) -> list[tuple[str, str]]:
    """Lists (name, text) of the facts on its card, without hashes; missing ones are left out."""
    card = published.card
    source = published.imported
    found = {
        "data set": card["dataset"],
        "split": _draw(card),
        "classes": f"{len(card['classes'])}" if card["classes"] else "none: unconditional",
        "training images": _counted(card["counts"]),
        "images": f"{card['resolution']}x{card['resolution']}, {_channels(card['channels'])}",
        "preset": card["preset"]["name"],
        "trained for": None if card["kimg"] is None else trained_for(card),
        "warning": short(card) or None,
        "half-life of the average": _half_life(card),
        "seed of the training": card["seed"],
        "operators": card.get("operators"),
        "imported from": source and f"{source['file']}, {source['what']}",
        "its training images": source and source["split"],
        "made by": command(card),
    }
    return [(name, str(value)) for name, value in found.items() if value is not None]


def _channels(number: int) -> str:
    return "1 channel" if number == 1 else f"{number} channels"


def _draw(card: Mapping[str, Any]) -> str | None:
    if card["split_id"] is None:
        return None
    factor = card["imbalance"]
    drawn = "" if factor is None else f", imbalance {factor:g}"
    return f"profile {card['profile']}{drawn}, split seed {card['split_seed']}"


def _counted(counts: list[int]) -> str | None:
    if not counts:
        return None
    most, least = max(counts), min(counts)
    return f"{sum(counts):,}: {most:,} of the largest class, {least:,} of the least"


def _half_life(card: Mapping[str, Any]) -> str | None:
    return f"{card['half_life']:g} thousand images" if "half_life" in card else None
