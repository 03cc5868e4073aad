"""The errors of a search for compiled operators.

NativeUnavailable (RuntimeError)
    NothingToBuild
"""

from __future__ import annotations

__all__ = ["NativeUnavailable", "NothingToBuild"]


class NativeUnavailable(RuntimeError):
    """There are no compiled operators; the text says why and what to do about it."""


class NothingToBuild(NativeUnavailable):
    """This package has no sources for such a device: PyTorch is meant to run there."""
