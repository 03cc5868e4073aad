"""Embedded data sets, which need no preparation: each is a pool that is made on request."""

from __future__ import annotations

from collections.abc import Callable

from stylegan_mix.datasets import digits
from stylegan_mix.datasets.pool import Pool

__all__ = ["EMBEDDED", "no_preparation"]

EMBEDDED: dict[str, Callable[[], Pool]] = {digits.NAME: digits.digits}
"""Name -> its pool. A new one is a function and a line here."""


def no_preparation(name: str) -> str:
    """Answers a request to prepare an embedded set."""
    return f"{name} is built in and needs no preparation"
