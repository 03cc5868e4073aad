"""The loader of the compiled operators: `library(device_type)` has the functions of csrc/abi.h.

A function that fails raises. Nothing is compiled or loaded before the first call.
"""

from __future__ import annotations

import ctypes
import threading
from ctypes import c_char_p, c_int32, c_int64
from typing import TYPE_CHECKING, Any

from kernels.abi import ABI_VERSION, FUNCTIONS, NO_MEMORY, UNSUPPORTED
from kernels.errors import NativeUnavailable

if TYPE_CHECKING:
    from kernels.libraries import Built

__all__ = ["Library", "library"]


class Library(ctypes.CDLL):
    """A loaded library: the functions of abi.h, which raise if the C function returns an error.

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
        """Raises for an error; a number of bytes, which is positive, passes."""
        if status == 0 or (status > 0 and function.restype is c_int64):
            return status
        text = (self.kernels_error_text(max(status, -(2**31))) or b"").decode(errors="replace")
        kind = {UNSUPPORTED: NotImplementedError, NO_MEMORY: MemoryError}.get(status, RuntimeError)
        where = "CUDA error in " if status > 0 else ""  # PyTorch's own errors begin so
        raise kind(f"{where}{function.__name__}: {text or 'unknown error'} (error {status})")


_lock = threading.Lock()
_libraries: dict[str, Library | NativeUnavailable] = {}


def library(device_type: str) -> Library:
    """Loads the compiled operators for "cpu" or "cuda"; the first call may build them.

    Raises `NativeUnavailable`, with the reason and a remedy. A failure is remembered, so nothing
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
    # Imported late: `python -m kernels.build` must be the first to import it.
    from kernels import build, toolchain

    try:
        return Library(build.obtain(toolchain.target_for(device_type)))
    except NativeUnavailable as error:
        return error
