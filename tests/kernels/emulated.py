"""What the runs of the CUDA sources on a CPU share: guarded memory, comparison, the loop.

Each `emulated_*.py` is a command of its own process, with the emulated library (cuda_emulator.h)
as its argument. It prints `running NAME` before each case and `failed NAME: why` after a bad one;
an access beyond a tensor ends the process, for each tensor lies against a page that may not be
touched.
"""

from __future__ import annotations

import ctypes
import mmap
import sys
from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor

from kernels import abi

DTYPES = (torch.float64, torch.float32, torch.bfloat16, torch.float16)
STREAM = 42  # what the emulator expects
PAGE = mmap.PAGESIZE
LIBC = ctypes.CDLL(None, use_errno=True)
LIBC.mmap.restype = ctypes.c_void_p
LIBC.mmap.argtypes = (ctypes.c_void_p, ctypes.c_size_t, *[ctypes.c_int] * 3, ctypes.c_long)
LIBC.mprotect.argtypes = (ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int)
LIBC.munmap.argtypes = (ctypes.c_void_p, ctypes.c_size_t)

# --------------------------------------------------------------------- memory


class Guarded:
    """Bytes with a forbidden page before and after, at the end of what lies between or its start.

    Pages come into being when they are touched, so a large one costs nothing.
    """

    def __init__(self, size: int, *, at_end: bool) -> None:
        self.size = size
        self._room = (size + PAGE - 1) // PAGE * PAGE + 2 * PAGE
        flags = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | 0x4000  # MAP_NORESERVE
        base = LIBC.mmap(None, self._room, mmap.PROT_READ | mmap.PROT_WRITE, flags, -1, 0)
        assert base not in (None, ctypes.c_void_p(-1).value), "no address space"
        self._base = int(base)
        for page in (self._base, self._base + self._room - PAGE):
            assert LIBC.mprotect(page, PAGE, 0) == 0, "mprotect"
        self.address = self._base + (self._room - PAGE - size if at_end else PAGE)

    def __del__(self) -> None:
        LIBC.munmap(self._base, self._room)


class Memory:
    """The tensors of one run, each guarded."""

    def __init__(self, *, at_end: bool) -> None:
        self._at_end = at_end
        self._kept: list[Guarded] = []

    def zeros(self, size: int) -> int:
        """The address of `size` bytes that nobody has touched."""
        self._kept.append(Guarded(size, at_end=self._at_end))
        return self._kept[-1].address

    def empty(self, size: int) -> int | None:
        """The address of `size` bytes that are NaN in every type; None for no byte."""
        if size == 0:
            return None
        address = self.zeros(size)
        ctypes.memset(address, 0xFF, size)
        return address

    def put(self, tensor: Tensor | None) -> int | None:
        """The address of a copy."""
        if tensor is None:
            return None
        tensor = tensor.contiguous()
        address = self.empty(tensor.numel() * tensor.element_size())
        if address is not None:
            ctypes.memmove(address, tensor.data_ptr(), tensor.numel() * tensor.element_size())
        return address


def taken(address: int | None, pattern: Tensor) -> Tensor:
    """What lies at `address`, in the shape and dtype of `pattern`."""
    out = torch.empty_like(pattern, memory_format=torch.contiguous_format)
    if address is not None:
        ctypes.memmove(out.data_ptr(), address, out.numel() * out.element_size())
    return out


def laid_out(image: Tensor, last: bool) -> Tensor:
    """The tensor whose contiguous memory is `image` in the layout."""
    return image.permute(0, 2, 3, 1).contiguous() if last else image.contiguous()


# --------------------------------------------------------------------- comparing


def differ(name: str, got: Tensor, want: Tensor) -> str | None:
    """How `got` is wrong: more than the rounding of its dtype and that of sums in float32."""
    got, exact = got.double(), want.double()
    step = torch.finfo(want.dtype).eps if want.dtype != torch.float64 else 1e-12
    sums = 1e-11 if want.dtype == torch.float64 else 2e-5
    scale = exact.abs().max().item() if exact.numel() else 0.0
    bad = ~((got - exact).abs() <= step * exact.abs() + sums * scale + 1e-300)
    if not bad.any():
        return None
    at = bad.flatten().nonzero()[0].item()
    worst = f"{got.flatten()[at].item()} for {exact.flatten()[at].item()}"
    return f"{name}: {int(bad.sum())} of {bad.numel()} wrong, at {at} {worst}"


def judge(runs: list[dict[str, Tensor]], want: dict[str, Tensor]) -> str | None:
    """Each run against what is wanted, and runs that differ in the order of threads alone."""
    for run in runs:
        for name, tensor in want.items():
            if (why := differ(name, run[name], tensor)) is not None:
                return why
    for name in want:
        if not torch.equal(runs[0][name], runs[1][name]):
            return f"{name} depends on the order of threads"
    return None


# --------------------------------------------------------------------- the loop


def load(path: str) -> ctypes.CDLL:
    library = ctypes.CDLL(path)
    for name, (result, arguments) in abi.FUNCTIONS.items():
        function = getattr(library, name)
        function.restype, function.argtypes = result, arguments
    library.emulator_last_blocks.argtypes = (ctypes.c_int64,)
    library.emulator_blocks.restype = ctypes.c_int64
    return library


def run_cases(cases: Iterable[Any], check: Callable[[ctypes.CDLL, Any], str | None]) -> int:
    """Checks every case with the library that the command line names; 1 if one failed."""
    library = load(sys.argv[1])
    failed = 0
    for case in cases:
        print(f"running {case}", flush=True)
        if (why := check(library, case)) is not None:
            failed += 1
            print(f"failed {case}: {why}", flush=True)
    return 1 if failed else 0
