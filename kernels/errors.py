"""The errors of a search for compiled operators.

NativeUnavailable (RuntimeError)
    NothingToBuild
"""

from __future__ import annotations

__all__ = ["NativeUnavailable", "NothingToBuild"]


class NativeUnavailable(RuntimeError):
    """The failure to find or build compiled operators; its text gives the reason and a remedy."""


class NothingToBuild(NativeUnavailable):
    """The lack of sources for a device: PyTorch is meant to run there."""
