"""Which implementation of the operators runs, as the environment variable KERNELS asks."""

from __future__ import annotations

import os

__all__ = ["NativeUnavailable", "backend"]

CHOICES = ("auto", "reference", "native")


class NativeUnavailable(RuntimeError):
    """KERNELS=native was asked for, and no compiled operators exist."""


def backend() -> str:
    """The implementation in use: "reference" (PyTorch) or "native" (compiled).

    KERNELS is read at every call. `auto` (the default) takes compiled operators where there are
    any. Raises `NativeUnavailable` for KERNELS=native without them, ValueError for another value.
    """
    asked = os.environ.get("KERNELS") or "auto"
    if asked == "native":
        raise NativeUnavailable(
            "KERNELS=native, but this installation has no compiled operators; "
            "unset KERNELS, or set it to auto or reference, to run them in PyTorch"
        )
    if asked not in CHOICES:
        raise ValueError(f"KERNELS must be one of {', '.join(CHOICES)}, got {asked!r}")
    return "reference"
