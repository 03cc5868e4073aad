"""The policy of a bank in words: how the classes and the lam of a row are drawn; no torch.

Requests come out of manifests too, some of them foreign, and from versions with other names. A name
that is unknown here is repeated as it stands.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from stylegan_mix.errors import UsageFailure
from stylegan_mix.latents.pairing import FILLS, PAIRINGS
from stylegan_mix.latents.shares import law_of
from stylegan_mix.latents.spaces import SPACES

__all__ = ["classes_in_words", "in_brief", "lam_in_words"]


def classes_in_words(request: Mapping[str, Any]) -> str:
    """Describes the draw of the classes of a row, from a request as plain data."""
    fill, pairs = str(request.get("fill", "uniform")), str(request.get("pairs", "uniform"))
    drawn = FILLS[fill].about if fill in FILLS else fill
    if not _mixes(request):
        return f"a drawn {drawn}, b = a"
    if (fill, pairs) == ("uniform", "uniform"):
        words = "drawn independently and uniformly per row, a = b included"
    else:
        words = f"a drawn {drawn}, {PAIRINGS[pairs].about if pairs in PAIRINGS else pairs}"
    alone = request.get("unmixed")
    if not isinstance(alone, float) or not alone:
        return words
    return f"{words}; {alone:.0%} of the rows have b = a and lam = 1"


def lam_in_words(request: Mapping[str, Any]) -> str:
    """Describes the distribution of lam, from a request as plain data."""
    if not _mixes(request):
        return "1 in every row: both classes are a"
    typed, alpha = str(request.get("lam", "beta")), request.get("alpha")
    try:
        law = law_of(typed)
    except UsageFailure:
        return typed
    if law.reads_alpha and not isinstance(alpha, float | int):
        return typed
    return law.in_words(alpha)


def in_brief(request: Mapping[str, Any]) -> str:
    """Names the settings of the draw that differ from the defaults, as they are typed."""
    chosen = [name for name in ("fill", "pairs", "unmixed", "lam") if name in request]
    return " ".join(f"{name} {request[name]}" for name in chosen) or "uniform"


def _mixes(request: Mapping[str, Any]) -> bool:
    space = request.get("space")
    return not isinstance(space, str) or space not in SPACES or SPACES[space].mixes
