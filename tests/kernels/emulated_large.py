"""The CUDA sources on images of more than 2^32 elements, on a CPU (emulated.py).

Pages of memory come into being when they are touched, and only the last blocks of a grid run.
"""

from __future__ import annotations

import ctypes
import itertools
import sys
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from emulated import STREAM, Memory, differ, run_cases, taken
from emulated_upfirdn2d import Resample, resample_facts
from torch import Tensor

from kernels import abi


@dataclass(frozen=True)
class Large:
    """The end of an image of more than 2^32 bfloat16, of which only the last blocks run."""

    what: str  # epilogue, backward, or the size of the filter
    last: bool
    size: tuple[int, int, int, int] = (3, 40, 6000, 6000)

    def __str__(self) -> str:
        return f"large {self.what} {'last' if self.last else 'first'}"


def larges() -> Iterator[Large]:
    for what, last in itertools.product(("epilogue", "backward", "4", "3"), (False, True)):
        yield Large(what, last)


def check_large(library: ctypes.CDLL, case: Large) -> str | None:
    """Of an image of zeros but for its last pixel, that pixel's result."""
    library.emulator_order(0)
    library.emulator_last_blocks(2)
    memory = Memory(at_end=True)
    n, c, h, w = case.size
    assert n * c * h * w > 2**32
    size = n * c * h * w * 2
    x, y = memory.zeros(size), memory.zeros(size)
    pixel = torch.arange(1, c + 1).to(torch.bfloat16)
    # Channels first, only the last channel's last pixel lies at the end.
    end = pixel if case.last else pixel[-1:]
    ctypes.memmove(x + size - 2 * len(end), end.data_ptr(), 2 * len(end))
    f = torch.randn(4, 4)
    if case.what in ("epilogue", "backward"):
        want = _large_epilogue(library, case, memory, x, y, end)
    else:
        taps = int(case.what)
        resample = Resample(
            case.size, case.last, pixel.dtype, (taps, taps), (1, 1), (1, 1), (1,) * 4
        )
        facts = resample_facts(resample)
        facts.f, facts.out_h, facts.out_w = memory.put(f), h, w
        run = abi.Run(stream=STREAM)
        status = library.kernels_upfirdn2d(ctypes.byref(facts), x, y, ctypes.byref(run))
        assert status == 0, status
        # The last output has the last input under the tap `padding`, seen from the end.
        want = end.float() * f.flatten()[(taps - 2) * taps + taps - 2] * 1.5
    got = taken(y + size - 2 * len(end), end)
    library.emulator_last_blocks(0)
    return differ("y", got, want.to(torch.bfloat16))


def _large_epilogue(
    library: ctypes.CDLL, case: Large, memory: Memory, x: int, y: int, end: Tensor
) -> Tensor:
    """Runs the forward or the backward pass, x being dy; what comes for the last pixel."""
    n, c, h, w = case.size
    facts = abi.Epilogue(2, int(case.last), 2, 0, n, c, h * w, 0, 0.25, 1.5, -1.0)
    b, d = torch.randn(c), torch.randn(n, c)
    facts.b, facts.d = memory.put(b), memory.put(d)
    run = abi.Run(stream=STREAM)
    tail = slice(-len(end), None)
    if case.what == "epilogue":
        status = library.kernels_epilogue(ctypes.byref(facts), x, y, ctypes.byref(run))
        u = end.float() * d[-1, tail] + b[tail]
        want = torch.where(u > 0, u, 0.25 * u) * 1.5
    else:
        outputs = [memory.empty(4 * count) for count in (n * c, c)]
        images = abi.EpilogueBackward(x, x, y, outputs[0], None, outputs[1])
        arguments = ctypes.byref(facts), ctypes.byref(images)
        run.workspace = memory.zeros(library.kernels_epilogue_backward_workspace(*arguments))
        status = library.kernels_epilogue_backward(*arguments, ctypes.byref(run))
        u = end.float() * d[-1, tail] + b[tail]
        want = torch.where(u > 0, 1.0, 0.25) * 1.5 * end.float() * d[-1, tail]
    assert status == 0, status
    return want


if __name__ == "__main__":
    sys.exit(run_cases(larges(), check_large))
