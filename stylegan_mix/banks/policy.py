"""The policy of a bank in words: how the classes and the lam of a row are drawn; no torch."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from stylegan_mix.latents.pairing import FILLS, PAIRINGS
from stylegan_mix.latents.shares import Law, law_of
from stylegan_mix.latents.spaces import SPACES

__all__ = ["classes_in_words", "lam_in_words"]


def classes_in_words(request: Mapping[str, Any]) -> str:
    """Describes the draw of the classes of a row, from a request as plain data."""
    fill, pairs = request.get("fill", "uniform"), request.get("pairs", "uniform")
    if not SPACES[request["space"]].mixes:
        return f"a drawn {FILLS[fill].about}, b = a"
    if (fill, pairs) == ("uniform", "uniform"):
        words = "drawn independently and uniformly per row, a = b included"
    else:
        words = f"a drawn {FILLS[fill].about}, {PAIRINGS[pairs].about}"
    alone = request.get("unmixed", 0.0)
    return f"{words}; {alone:.0%} of the rows have b = a and lam = 1" if alone else words


def lam_in_words(request: Mapping[str, Any]) -> str:
    """Describes the distribution of lam, from a request as plain data."""
    if not SPACES[request["space"]].mixes:
        return "1 in every row: both classes are a"
    law = law_of(request["lam"]) if "lam" in request else Law()
    return law.in_words(request["alpha"])
