"""Which implementation of the operators runs, as the environment variable KERNELS asks."""

from __future__ import annotations

__all__ = ["NativeUnavailable", "backend"]

CHOICES = ("auto", "reference", "native")


class NativeUnavailable(RuntimeError):
    """There are no compiled operators; the text says why and what to do about it."""


class NothingToBuild(NativeUnavailable):
    """This package has no sources for such a device: PyTorch is what is meant to run there."""


def backend(device: object = "cpu") -> str:
    """The implementation in use on `device`: "reference" (PyTorch) or "native" (compiled).

    KERNELS is read at every call. `auto` (the default) takes compiled operators where there are
    any, or builds them. Raises `NativeUnavailable` for KERNELS=native without them, ValueError
    for another value.
    """
    from kernels import native

    return "native" if native.enabled(str(device).partition(":")[0]) else "reference"
