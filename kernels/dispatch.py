"""The choice between compiled operators and PyTorch, by the environment variable KERNELS.

An operator asks `enabled(device_type)` at every call.
"""

from __future__ import annotations

import os
import warnings
from typing import Any

from kernels import native
from kernels.errors import NativeUnavailable, NothingToBuild

__all__ = ["backend", "enabled", "identity"]

CHOICES = ("auto", "reference", "native")


def backend(device: object = "cpu") -> str:
    """Names the implementation in use on `device`: "reference" (PyTorch) or "native" (compiled).

    KERNELS is read at every call. `auto` (the default) takes the compiled operators, and builds
    them if need be. Raises `NativeUnavailable` for KERNELS=native without them, ValueError
    for another value.
    """
    return "native" if enabled(str(device).partition(":")[0]) else "reference"


# The dictionary below os.environ, if CPython has it: 0.04 µs a look-up instead of 0.7.
_environment: Any = getattr(os.environ, "_data", os.environb)
_decided: dict[tuple[bytes | None, str], bool] = {}
_warned: set[str] = set()


def enabled(device_type: str) -> bool:
    """Tells if compiled operators run on this type of device, as the variable KERNELS asks.

    `auto` (the default) takes compiled operators, and builds them if need be. If it cannot, it
    warns once and leaves the work to PyTorch. `reference` is PyTorch. `native` raises
    `NativeUnavailable` if there are none. Another value is a ValueError.
    """
    known = _decided.get((_environment.get(b"KERNELS"), device_type))
    return _decide(device_type) if known is None else known


def _decide(device_type: str) -> bool:
    asked = os.environ.get("KERNELS") or "auto"
    if asked not in CHOICES:
        raise ValueError(f"KERNELS must be one of {', '.join(CHOICES)}, got {asked!r}")
    cause = None if asked == "reference" else _cause(device_type)
    if asked == "native" and cause is not None:
        raise NativeUnavailable(
            f"KERNELS=native, but there are no compiled operators for {device_type}: {cause}. "
            "Unset KERNELS, or set it to auto or reference, to run the operators in PyTorch"
        ) from cause
    answer = asked != "reference" and cause is None
    _decided[_environment.get(b"KERNELS"), device_type] = answer
    expected = cause is None or isinstance(cause, NothingToBuild)
    if not expected and device_type not in _warned:
        _warned.add(device_type)
        warnings.warn(
            f"the operators run in PyTorch, which is slower: {cause}. "
            "KERNELS=reference accepts that without this warning",
            RuntimeWarning,
            stacklevel=3,
        )
    return answer


def _cause(device_type: str) -> NativeUnavailable | None:
    """Returns the reason for having no library, or None if there is one."""
    try:
        native.library(device_type)
    except NativeUnavailable as error:
        return error
    return None


def identity(device: object = "cpu") -> str:
    """Names the implementation: "reference", or "native-<instruction set>-<digest[:12]>".

    With the same name and the same shapes, results are the same bit for bit.
    """
    device_type = str(device).partition(":")[0]
    if not enabled(device_type):
        return "reference"
    built = native.library(device_type).built
    return f"native-{built.isa}-{built.digest[:12]}"
