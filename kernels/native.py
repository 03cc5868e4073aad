"""The compiled operators as Python sees them: the mirror of csrc/abi.h, loading, and the choice.

`library(device_type)` has the functions of abi.h; those that fail raise. Nothing is compiled or
loaded before the first call. What an operator asks at every call is `enabled(device_type)`.
"""

from __future__ import annotations

import ctypes
import os
import threading
import warnings
from ctypes import POINTER, c_char_p, c_double, c_int32, c_int64, c_void_p
from typing import TYPE_CHECKING, Any

import torch

from kernels.backend import CHOICES, NativeUnavailable, NothingToBuild

if TYPE_CHECKING:
    from kernels.libraries import Built

__all__ = [
    "ACTS",
    "CHANNELS_FIRST",
    "CHANNELS_LAST",
    "DTYPES",
    "Conv3x3",
    "Epilogue",
    "EpilogueBackward",
    "EpilogueDoubleBackward",
    "Library",
    "Run",
    "Upfirdn2d",
    "enabled",
    "identity",
    "library",
]

# --------------------------------------------------------------------- the mirror of abi.h

ABI_VERSION = 1

DTYPES = {torch.float64: 0, torch.float32: 1, torch.bfloat16: 2, torch.float16: 3}
CHANNELS_FIRST, CHANNELS_LAST = 0, 1
_ACT_NAMES = "linear relu lrelu tanh sigmoid elu selu softplus swish"
ACTS = {name: number for number, name in enumerate(_ACT_NAMES.split())}
UNSUPPORTED, NO_MEMORY = -1, -2


class Run(ctypes.Structure):
    """How to run: threads or a stream, and scratch memory."""

    _fields_ = (
        ("threads", c_int32),
        ("reserved", c_int32),
        ("stream", c_void_p),
        ("workspace", c_void_p),
    )


class Epilogue(ctypes.Structure):
    """y = clamp(gain * act(x * d + noise * strength + b)): sizes, numbers, small operands."""

    _fields_ = (
        *((name, c_int32) for name in ("dtype", "layout", "act", "from_output")),
        *((name, c_int64) for name in ("n", "c", "p", "noise_n")),
        *((name, c_double) for name in ("alpha", "gain", "clamp")),
        *((name, c_void_p) for name in ("d", "noise", "strength", "b")),
    )


class EpilogueBackward(ctypes.Structure):
    """Addresses of the backward pass; outputs that are None are not computed."""

    _fields_ = tuple((name, c_void_p) for name in ("x", "dy", "dx", "dd", "dstrength", "db"))


class EpilogueDoubleBackward(ctypes.Structure):
    """Addresses of the double backward pass; cotangents that are None are 0."""

    _fields_ = tuple(
        (name, c_void_p)
        for name in (
            *("x", "dy", "gdx", "gdd", "gdstrength", "gdb"),
            *("gdy", "gx", "gd", "gstrength", "gb"),
        )
    )


class Upfirdn2d(ctypes.Structure):
    """Sizes, steps and filter of one resampling."""

    _fields_ = (
        *((name, c_int32) for name in ("dtype", "layout")),
        *((name, c_int64) for name in ("n", "c", "h", "w", "out_h", "out_w")),
        *((name, c_int32) for name in ("fh", "fw", "up_y", "up_x", "down_y", "down_x")),
        *((name, c_int32) for name in ("pad_top", "pad_left", "flip", "reserved")),
        ("gain", c_double),
        *((name, c_void_p) for name in ("f", "fy", "fx")),
    )


class Conv3x3(ctypes.Structure):
    """Sizes of one 3x3 convolution, and how its filter lies."""

    _fields_ = (
        *((name, c_int32) for name in ("dtype", "filter_layout", "turned", "reserved")),
        *((name, c_int64) for name in ("n", "h", "w", "c", "o")),
    )


# What each function takes. int32: 0 or an error; int64: bytes of scratch memory.
_EPILOGUE, _RUN = POINTER(Epilogue), POINTER(Run)
_BACKWARD, _DOUBLE, _UPFIRDN2D = (
    POINTER(EpilogueBackward),
    POINTER(EpilogueDoubleBackward),
    POINTER(Upfirdn2d),
)
_CONV3X3 = POINTER(Conv3x3)
FUNCTIONS: dict[str, tuple[Any, tuple[Any, ...]]] = {
    "kernels_epilogue": (c_int32, (_EPILOGUE, c_void_p, c_void_p, _RUN)),
    "kernels_epilogue_backward_workspace": (c_int64, (_EPILOGUE, _BACKWARD)),
    "kernels_epilogue_backward": (c_int32, (_EPILOGUE, _BACKWARD, _RUN)),
    "kernels_epilogue_double_backward_workspace": (c_int64, (_EPILOGUE, _DOUBLE)),
    "kernels_epilogue_double_backward": (c_int32, (_EPILOGUE, _DOUBLE, _RUN)),
    "kernels_upfirdn2d_workspace": (c_int64, (_UPFIRDN2D,)),
    "kernels_upfirdn2d": (c_int32, (_UPFIRDN2D, c_void_p, c_void_p, _RUN)),
    "kernels_conv3x3_workspace": (c_int64, (_CONV3X3, _RUN)),
    "kernels_conv3x3": (c_int32, (_CONV3X3, c_void_p, c_void_p, c_void_p, _RUN)),
    "kernels_conv3x3_gradient_workspace": (c_int64, (_CONV3X3, _RUN)),
    "kernels_conv3x3_gradient": (c_int32, (_CONV3X3, c_void_p, c_void_p, c_void_p, _RUN)),
}


# --------------------------------------------------------------------- loading


class Library(ctypes.CDLL):
    """A loaded library: the functions of abi.h, which raise where the C function answers an error.

    NotImplementedError: this library has no such case. MemoryError: no scratch memory.
    RuntimeError: the error of the CUDA runtime.
    """

    def __init__(self, built: Built) -> None:
        self.built = built
        remedy = f"remove the folder {built.path.parent}, and it is built again"
        try:
            super().__init__(str(built.path))
            self._bind()
        except (OSError, AttributeError) as error:
            text = f"the compiled operators could not be loaded ({error}); {remedy}"
            raise NativeUnavailable(text) from error
        version = self.kernels_abi_version()
        if version != ABI_VERSION:
            raise NativeUnavailable(
                f"{built.path} speaks version {version} of kernels/csrc/abi.h, this package "
                f"version {ABI_VERSION}; {remedy}"
            )

    def _bind(self) -> None:
        self.kernels_abi_version.argtypes = ()
        self.kernels_abi_version.restype = c_int32
        self.kernels_error_text.argtypes = (c_int32,)
        self.kernels_error_text.restype = c_char_p
        for name, (result, arguments) in FUNCTIONS.items():
            function = getattr(self, name)
            function.restype = result
            function.argtypes = arguments
            function.errcheck = self._checked

    def _checked(self, status: int, function: Any, _: Any) -> int:
        """Raises for an error; bytes of scratch memory, which are positive, pass."""
        if status == 0 or (status > 0 and function.restype is c_int64):
            return status
        text = (self.kernels_error_text(max(status, -(2**31))) or b"").decode(errors="replace")
        kind = {UNSUPPORTED: NotImplementedError, NO_MEMORY: MemoryError}.get(status, RuntimeError)
        where = "CUDA error in " if status > 0 else ""  # as PyTorch's own begin
        raise kind(f"{where}{function.__name__}: {text or 'unknown error'} (error {status})")


_lock = threading.Lock()
_libraries: dict[str, Library | NativeUnavailable] = {}


def library(device_type: str) -> Library:
    """The compiled operators for "cpu" or "cuda"; the first call may build them.

    Raises `NativeUnavailable`, which says why and what to do; a failure is remembered, so nothing
    is tried twice in one process.
    """
    found = _libraries.get(device_type)
    if found is None:
        with _lock:
            found = _libraries.get(device_type)
            if found is None:
                found = _libraries[device_type] = _load(device_type)
    if isinstance(found, NativeUnavailable):
        raise found.with_traceback(None)
    return found


def _load(device_type: str) -> Library | NativeUnavailable:
    # Here and not above: `python -m kernels.build` must be the first to import it.
    from kernels import build, toolchain

    try:
        return Library(build.obtain(toolchain.target_for(device_type)))
    except NativeUnavailable as error:
        return error


# --------------------------------------------------------------------- the choice

# The dictionary below os.environ, where CPython has it: 0.04 µs a look-up instead of 0.7.
_environment: Any = getattr(os.environ, "_data", os.environb)
_decided: dict[tuple[bytes | None, str], bool] = {}
_warned: set[str] = set()


def enabled(device_type: str) -> bool:
    """Whether compiled operators run on this type of device, as the variable KERNELS asks.

    `auto` (the default) takes them wherever they are, or can be built; where that fails it warns
    once and leaves the work to PyTorch. `reference` is PyTorch. `native` raises
    `NativeUnavailable` where there are none. Another value is a ValueError.
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
    """Why there is no library, or None where there is one."""
    try:
        library(device_type)
    except NativeUnavailable as error:
        return error
    return None


def identity(device: object = "cpu") -> str:
    """What computes on `device`: "reference", or "native-<instruction set>-<digest[:12]>".

    Results are the same, bit for bit, where this and the shapes are.
    """
    device_type = str(device).partition(":")[0]
    if not enabled(device_type):
        return "reference"
    built = library(device_type).built
    return f"native-{built.isa}-{built.digest[:12]}"
