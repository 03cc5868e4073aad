"""upfirdn2d in the CUDA sources, on a CPU (emulated.py), over a table of cases.

The wanted values are those of kernels/reference.py in float64.
"""

from __future__ import annotations

import ctypes
import itertools
import sys
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from emulated import DTYPES, STREAM, Memory, judge, laid_out, run_cases, taken
from torch import Tensor

from kernels import abi, reference


@dataclass(frozen=True)
class Resample:
    """One case; `padding` is (left, right, top, bottom)."""

    size: tuple[int, int, int, int]
    last: bool
    dtype: torch.dtype
    taps: tuple[int, int]
    up: tuple[int, int]
    down: tuple[int, int]
    padding: tuple[int, int, int, int]
    separable: bool = False
    flip: bool = False
    blocks: int = 0  # that it must run in; 0: any number

    def __str__(self) -> str:
        size = "x".join(map(str, self.size))
        facts = f"{self.taps} up {self.up} down {self.down} pad {self.padding}"
        return f"upfirdn2d {size} {'last' if self.last else 'first'} {self.dtype} {facts}"


MODES = (
    ((4, 4), (1, 1), (1, 1), (1, 1, 1, 1)),
    ((4, 4), (1, 1), (1, 1), (2, 2, 2, 2)),
    ((4, 4), (1, 1), (1, 1), (-1, 3, 5, -2)),
    ((4, 4), (2, 2), (1, 1), (2, 1, 2, 1)),
    ((4, 4), (2, 2), (1, 1), (-1, 2, 3, 0)),
    ((4, 4), (1, 1), (2, 2), (1, 1, 1, 1)),
    ((4, 4), (1, 1), (2, 2), (2, 3, -2, 4)),
    ((12, 12), (2, 2), (1, 1), (6, 5, 6, 5)),
    ((12, 12), (2, 2), (1, 1), (7, 4, -1, 9)),
    ((12, 12), (1, 1), (2, 2), (5, 5, 5, 5)),
    ((12, 12), (1, 1), (2, 2), (0, 8, 10, 3)),
    ((3, 2), (3, 1), (2, 1), (2, 1, -1, 3)),
    ((1, 5), (1, 2), (3, 2), (3, 0, 4, 1)),
    ((4, 4), (2, 2), (2, 2), (1, 2, 2, 1)),
    ((1, 1), (1, 1), (2, 2), (0, 0, 0, 0)),
)
IMAGES = (
    *((2, 8, 8, 8), (1, 3, 9, 7), (2, 16, 5, 33), (1, 8, 90, 6), (3, 24, 4, 4), (1, 4, 6, 300)),
    # Channels last, blocks of many samples and some with a rest of the last one.
    *((67, 8, 3, 5), (5, 136, 4, 4), (3, 8, 1, 1)),
)
EMPTY = ((0, 8, 4, 4), (2, 0, 4, 4), (2, 8, 0, 5), (2, 8, 5, 0))


def resamples() -> Iterator[Resample]:
    """Every mode on every size, in a layout and a dtype that go round."""
    kinds = itertools.cycle(itertools.product((False, True), (*DTYPES[1:], torch.float32)))
    flips = itertools.cycle((False, True, False))
    factors = itertools.cycle((False, False, True))
    for size, (taps, up, down, padding) in itertools.product(IMAGES, MODES):
        separable = next(factors) or taps == (12, 12)
        for _ in range(2):
            last, dtype = next(kinds)
            case = Resample(size, last, dtype, taps, up, down, padding, separable, next(flips))
            if min(out_size(case)) > 0:
                yield case
    for size, last in itertools.product(EMPTY, (False, True)):
        yield Resample(size, last, torch.float32, (4, 4), (2, 2), (1, 1), (2, 1, 2, 1))
        yield Resample(size, last, torch.bfloat16, (4, 4), (1, 1), (1, 1), (2, 3, 3, 2))
    yield from packed()
    for taps, up, down, padding in MODES[::2]:
        yield Resample((1, 3, 12, 13), False, torch.float64, taps, up, down, padding)


def packed() -> Iterator[Resample]:
    """Channels last, 4 x 4 outputs, and the blocks that leave no thread idle: of 256 threads, each
    with a row of 16 bytes of channels.
    """
    for dtype, n, c, blocks in (
        (torch.float32, 16, 128, 8),
        (torch.float32, 32, 16, 2),
        (torch.bfloat16, 16, 512, 16),
        (torch.float32, 17, 128, 9),
    ):
        mode = ((4, 4), (2, 2), (1, 1), (2, 1, 2, 1))
        yield Resample((n, c, 2, 2), True, dtype, *mode, blocks=blocks)


def out_size(case: Resample) -> tuple[int, int]:
    _, _, h, w = case.size
    (up_x, up_y), (down_x, down_y) = case.up, case.down
    left, right, top, bottom = case.padding
    height = (h * up_y + top + bottom - case.taps[0] + down_y) // down_y
    return height, (w * up_x + left + right - case.taps[1] + down_x) // down_x


def resample_facts(case: Resample) -> abi.Upfirdn2d:
    n, c, h, w = case.size
    out_h, out_w = out_size(case)
    return abi.Upfirdn2d(
        dtype=DTYPES.index(case.dtype),
        layout=int(case.last),
        n=n,
        c=c,
        h=h,
        w=w,
        out_h=out_h,
        out_w=out_w,
        fh=case.taps[0],
        fw=case.taps[1],
        up_y=case.up[1],
        up_x=case.up[0],
        down_y=case.down[1],
        down_x=case.down[0],
        pad_top=case.padding[2],
        pad_left=case.padding[0],
        flip=case.flip,
        gain=1.5,
    )


def wanted(case: Resample, x: Tensor, f: Tensor) -> Tensor:
    """What the definition says; PyTorch's convolution takes no empty image, whose outputs are 0."""
    if x.numel() == 0:
        return x.new_zeros((*case.size[:2], *out_size(case)))
    return reference.upfirdn2d(
        *(x.double(), f),
        up=case.up,
        down=case.down,
        padding=case.padding,
        flip_filter=case.flip,
        gain=1.5,
    ).to(case.dtype)


def check_resample(library: ctypes.CDLL, case: Resample) -> str | None:
    torch.manual_seed(0)
    small = torch.float64 if case.dtype == torch.float64 else torch.float32
    x = torch.randn(case.size, dtype=torch.float64).to(case.dtype)
    fy, fx = (torch.randn(count, dtype=torch.float64).to(small) for count in case.taps)
    f = torch.randn(case.taps, dtype=torch.float64).to(small)
    want = wanted(case, x, fy.double()[:, None] * fx.double() if case.separable else f.double())
    runs = []
    for at_end, order in ((True, 0), (True, 1), (False, 7)):
        library.emulator_order(order)
        memory = Memory(at_end=at_end)
        facts = resample_facts(case)
        if case.separable:
            facts.fy, facts.fx = memory.put(fy), memory.put(fx)
        else:
            facts.f = memory.put(f)
        out = laid_out(want, case.last)
        y = memory.empty(out.numel() * out.element_size())
        assert library.kernels_upfirdn2d_workspace(ctypes.byref(facts)) == 0
        status = library.kernels_upfirdn2d(
            ctypes.byref(facts),
            ctypes.c_void_p(memory.put(laid_out(x, case.last))),
            ctypes.c_void_p(y),
            ctypes.byref(abi.Run(stream=STREAM)),
        )
        assert status == 0, f"kernels_upfirdn2d: {status}"
        if case.blocks and library.emulator_blocks() != case.blocks:
            return f"{library.emulator_blocks()} blocks in place of {case.blocks}"
        got = taken(y, out)
        runs.append({"y": got.permute(0, 3, 1, 2) if case.last else got})
    return judge(runs, {"y": want})


if __name__ == "__main__":
    sys.exit(run_cases(resamples(), check_resample))
