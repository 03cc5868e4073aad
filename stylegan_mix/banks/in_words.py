"""A bank in plain words with units, its uses before its hashes; no torch."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from stylegan_mix.banks.card import trained_for
from stylegan_mix.banks.facts import command
from stylegan_mix.banks.policy import classes_in_words, lam_in_words
from stylegan_mix.banks.reader import Bank
from stylegan_mix.datasets.records import draw_name
from stylegan_mix.generators.budget import short_for_bank
from stylegan_mix.latents.spaces import SPACES

__all__ = ["in_words"]


def in_words(bank: Bank, same_class: float) -> list[tuple[str, str]]:
    """Lists (name, text) of everything known of a bank, in the order of a reader's questions.

    `same_class` is the share of its rows with a = b.
    """
    facts = bank.facts
    request = facts.get("request", {"space": bank.space, "alpha": facts.get("alpha")})
    found = {
        "bank": bank.key,
        "data set": f"{facts['dataset']}, {_draw(facts)}, {len(bank.classes)} classes",
        "images": _images(bank),
        "mixing": f"space {bank.space}: {SPACES[bank.space].about}"
        if bank.space in SPACES
        else f"space {bank.space}",
        "classes a, b": classes_in_words(request),
        "a = b": f"in {same_class:.1%} of the rows".replace("%", " %"),
        "lam": lam_in_words(request),
        "truncation psi": _number(facts.get("truncation")),
        "seed": facts.get("seed"),
        "generator": facts["generator"],
        "trained": _trained(facts),
        "warning": short_for_bank(facts) or None,
        "least diverse class": _least_diverse(facts),
        "made": facts.get("created_utc"),
        # Made from the facts: the command in the file is the choice of its writer.
        "made again by": command(facts),
        "computed with": _listed(facts.get("numerics")),
        "folder": bank.folder,
        "training split id": facts["split_id"],
        "test part id": facts.get("test_id"),
        "request key": facts["request_key"],
        "content SHA-256": bank.content_sha256,
        "schema version": facts["schema_version"],
    }
    return [(name, str(value)) for name, value in found.items() if value is not None]


def _draw(facts: Mapping[str, Any]) -> str:
    factor, profile, seed = (facts.get(name) for name in ("imbalance", "profile", "split_seed"))
    told = draw_name(factor) + (f" (profile {profile})" if factor is not None and profile else "")
    return f"{told}, split seed {seed}" if seed else told


def _images(bank: Bank) -> str:
    height, width, channels = bank.facts["image_shape"]
    colours = "1 channel" if channels == 1 else f"{channels} channels"
    return f"{len(bank):,} of {height}x{width} pixels, {colours}, {bank.size / 1e6:,.1f} MB"


def _trained(facts: Mapping[str, Any]) -> str | None:
    if facts.get("generator_imported"):
        return trained_for(facts)
    if facts.get("generator_kimg") is None:
        return None
    seed = facts.get("generator_seed")
    told = f"preset {facts.get('generator_preset', 'not known')}, {trained_for(facts)}"
    return told if seed is None else f"{told}, seed {seed}"


def _least_diverse(facts: Mapping[str, Any]) -> str | None:
    ratios = facts.get("diversity") or []
    known = [
        (ratio, name)
        for ratio, name in zip(ratios, facts["classes"], strict=False)
        if ratio is not None
    ]
    if not known:
        return None
    ratio, name = min(known)
    return f"{name}, diversity {ratio:.2f} (1: as diverse as its real images, 0: one picture)"


def _number(value: float | None) -> str | None:
    return None if value is None else f"{value:g}"


def _listed(values: Mapping[str, Any] | None) -> str | None:
    return ", ".join(f"{name} {value}" for name, value in values.items()) if values else None
