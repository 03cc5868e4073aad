"""The compiled upfirdn2d of each instruction set against the reference in double precision."""

from __future__ import annotations

import math
import os
import random
from dataclasses import dataclass, replace
from functools import cache
from typing import Any

import pytest
import torch
from torch import Tensor

from kernels import abi, native, reference, setup_filter
from kernels.resample import Axis

DTYPES = tuple(abi.DTYPES)
LAYOUTS = (abi.CHANNELS_FIRST, abi.CHANNELS_LAST)
GUARD = 64  # elements before and after every tensor
SENTINEL = 7.0
SANITIZED = "KERNELS_SANITIZE" in os.environ

# One tensor: a filter [fh,fw]; two: fy and fx.
Filter = tuple[Tensor, ...]

BLUR: Filter = (setup_filter([1, 3, 3, 1]),)
LOPSIDED: Filter = (setup_filter([1, -2, 4, 0.5], normalize=False),)  # rank 1, no symmetry
SMOOTH: Filter = (torch.linspace(-0.1, 0.7, 12).sin(),) * 2
TWO_AXES: Filter = (torch.tensor([0.5, -1, 2, 0.25]), torch.tensor([3.0, 1, -0.5, 1]))


def drawn_filter(fh: int, fw: int, seed: int = 3) -> Filter:
    """Without structure, so not of rank 1."""
    return (torch.randn(fh, fw, generator=torch.Generator().manual_seed(seed)),)


@dataclass(frozen=True, eq=False)
class Case:
    """One call. `along_x` and `along_y` are up, down and the padding before and after."""

    shape: tuple[int, int, int, int]
    along_x: Axis
    along_y: Axis
    f: Filter = BLUR
    flip: bool = False
    gain: float = 1.0

    @property
    def taps(self) -> tuple[int, int]:
        return self.f[0].shape[0], self.f[-1].shape[-1]

    @property
    def out_shape(self) -> tuple[int, int, int, int]:
        (n, c, h, w), (fh, fw) = self.shape, self.taps
        return n, c, self.along_y.out_size(h, fh), self.along_x.out_size(w, fw)

    def adjoint(self) -> Case:
        (fh, fw), (h, w) = self.taps, self.shape[2:]
        along_x, along_y = self.along_x.adjoint(w, fw), self.along_y.adjoint(h, fh)
        return replace(
            self, shape=self.out_shape, along_x=along_x, along_y=along_y, flip=not self.flip
        )


def both(shape: tuple[int, int, int, int], axis: Axis, f: Filter = BLUR, **rest: Any) -> Case:
    return Case(shape, axis, axis, f, **rest)


BLUR_1, BLUR_2 = Axis(1, 1, 1, 1), Axis(1, 1, 2, 2)
UP, DOWN = Axis(2, 1, 2, 1), Axis(1, 2, 1, 1)
UP_12, DOWN_12 = Axis(2, 1, 6, 5), Axis(1, 2, 5, 5)

CASES = {
    "identity": both((2, 5, 6, 7), Axis(), (torch.ones(1, 1),)),
    "one pixel blurred": both((2, 40, 1, 1), BLUR_2),
    "one pixel up": both((2, 40, 1, 1), UP, gain=4.0),
    "one pixel down": both((2, 3, 1, 1), Axis(1, 2, 2, 2)),
    "one row": both((1, 33, 1, 50), UP, LOPSIDED),
    "one column": both((1, 33, 50, 1), Axis(1, 2, 2, 2), LOPSIDED),
    "one axis": Case((2, 6, 9, 20), Axis(1, 1, 5, 6), Axis(), drawn_filter(1, 12)),
    "other axis": Case((2, 6, 9, 20), Axis(), Axis(2, 1, 5, 6), drawn_filter(12, 1)),
    "two filters": both((2, 70, 11, 9), BLUR_2, TWO_AXES, gain=-0.7),
    "two filters up": both((2, 7, 11, 23), UP, TWO_AXES),
    "flipped": both((2, 70, 11, 21), BLUR_1, LOPSIDED, flip=True),
    "flipped up": both((2, 70, 11, 9), UP, LOPSIDED, flip=True, gain=4.0),
    "flipped down": both((2, 70, 12, 9), DOWN, LOPSIDED, flip=True),
    "rank 2": both((2, 70, 9, 12), BLUR_2, drawn_filter(4, 4)),
    "rank 2 up": both((2, 33, 9, 12), UP, drawn_filter(4, 4), gain=4.0),
    "rank 2 down": both((2, 3, 9, 12), DOWN, drawn_filter(4, 4)),
    "nearly rank 1": both((1, 40, 9, 9), BLUR_2, (BLUR[0] * (1 + 1e-4 * torch.eye(4)),)),
    "a zero column": both((1, 40, 9, 9), BLUR_2, (BLUR[0] * torch.tensor([1, 0, 1, 1]),)),
    "only zeros": both((1, 40, 9, 9), BLUR_2, (torch.zeros(4, 4),)),
    "tall filter": both((1, 5, 30, 7), Axis(1, 1, 3, 3), drawn_filter(9, 2)),
    "unlike axes": Case((2, 35, 9, 10), Axis(2, 1, 2, 1), Axis(1, 2, 1, 1), LOPSIDED),
    "rates of 3 and 5": Case((1, 4, 9, 11), Axis(3, 5, 4, 4), Axis(5, 3, 2, 7), drawn_filter(6, 7)),
    "rates with a divisor": both((1, 20, 9, 11), Axis(4, 6, 4, 5), (drawn_filter(1, 8)[0][0],) * 2),
    "up 2 down 2": both((1, 34, 8, 9), Axis(2, 2, 2, 2)),
    "wide padding": both((1, 33, 3, 4), Axis(1, 1, 11, 9), LOPSIDED),
    "wide padding up": both((1, 33, 3, 4), Axis(2, 1, 12, 9), LOPSIDED),
    "wide padding down": both((1, 2, 3, 4), Axis(1, 2, 12, 9), LOPSIDED),
    "cropped": Case((1, 33, 20, 24), Axis(1, 1, -3, -2), Axis(1, 1, -5, 2), LOPSIDED),
    "cropped up": Case((1, 3, 20, 24), Axis(2, 1, -3, -2), Axis(2, 1, -6, 2), LOPSIDED),
    "cropped down": Case((1, 33, 20, 24), Axis(1, 2, -3, -2), Axis(1, 2, 2, -7), LOPSIDED),
    "odd width up": both((2, 40, 9, 20), Axis(2, 1, 2, 2), LOPSIDED),
    "odd width up, odd padding": both((2, 3, 9, 20), Axis(2, 1, 1, 1), LOPSIDED),
    "long rows": both((1, 3, 5, 1500), BLUR_2, LOPSIDED),
    "long rows up": both((1, 2, 4, 2101), UP_12, SMOOTH),
    "long rows down": both((1, 3, 16, 1499), DOWN_12, SMOOTH),
    "empty batch": both((0, 3, 8, 8), UP),
    "no channels": both((2, 0, 8, 8), UP),
    "no rows": Case((1, 3, 0, 8), BLUR_2, Axis(1, 1, 4, 4), LOPSIDED),
    "no pixels": both((1, 40, 0, 0), Axis(1, 1, 4, 4), LOPSIDED),
    "augmentation up": both((2, 3, 32, 32), UP_12, SMOOTH, gain=4.0),
    "augmentation down": both((2, 3, 74, 71), DOWN_12, SMOOTH, flip=True),
    "augmentation, one pixel": both((1, 3, 1, 1), UP_12, SMOOTH),
}


def stylegan2(pixels: int, channels: int) -> list[Case]:
    """What the networks and the augmentation run, and the adjoint of each."""
    shape = (2, channels, pixels, pixels)
    after_up = (2, channels, pixels + 1, pixels + 1)
    calls = [
        both(after_up, BLUR_1, gain=4.0),
        both(shape, BLUR_2),
        both(shape, UP, gain=4.0),
        both(shape, DOWN),
    ]
    if channels == 3:
        calls += [both(shape, UP_12, SMOOTH, gain=4.0), both(shape, DOWN_12, SMOOTH)]
    return calls + [one.adjoint() for one in calls]


def random_cases(count: int) -> list[Case]:
    """Any parameters, half of them with rates and filters that have a way of their own."""
    draw = random.Random(5)
    found: list[Case] = []
    while len(found) < count:
        special = draw.random() < 0.5
        rates = draw.choice([(1, 1), (2, 1), (1, 2)])
        axes = []  # y, x
        for _ in range(2):
            up, down = rates if special else (draw.randint(1, 3), draw.randint(1, 3))
            axes.append(Axis(up, down, draw.randint(-4, 8), draw.randint(-4, 8)))
        filters = [LOPSIDED, SMOOTH, TWO_AXES]
        if not special:
            filters = [drawn_filter(draw.randint(1, 6), draw.randint(1, 6)), *filters]
        channels = draw.choice([1, 2, 3, 5, 8, 16, 31, 32, 33, 50, 64, 100])
        shape = (draw.randint(1, 3), channels, draw.randint(1, 40), draw.randint(1, 40))
        case = Case(
            shape, axes[1], axes[0], draw.choice(filters), draw.random() < 0.5, draw.uniform(-2, 4)
        )
        # A crop of more than there is, PyTorch refuses.
        sizes = zip(shape[2:], axes, strict=True)
        left = min(size * axis.up + axis.before for size, axis in sizes)
        if left >= 0 and min(case.out_shape) > 0 and math.prod(case.out_shape) < 100_000:
            found.append(case)
    return found


RANDOM = random_cases(80)


# --------------------------------------------------------------------- the library


def guarded(
    shape: tuple[int, ...], dtype: torch.dtype, layout: int, value: float, guard: int = GUARD
) -> Tensor:
    """An NCHW view of memory that is full of `value`, with `guard` elements more on both sides."""
    n, c, h, w = shape
    memory = torch.full((n * c * h * w + 2 * guard,), value, dtype=dtype)
    inside = memory[guard : guard + n * c * h * w]
    if layout == abi.CHANNELS_FIRST:
        return inside.view(shape)
    return inside.view(n, h, w, c).permute(0, 3, 1, 2)


def assert_guard_untouched(y: Tensor) -> None:
    memory = torch.empty(0, dtype=y.dtype).set_(y.untyped_storage())
    assert (memory[:GUARD] == SENTINEL).all()
    assert (memory[len(memory) - GUARD :] == SENTINEL).all()


def described(case: Case, dtype: torch.dtype, layout: int, f: Filter) -> abi.Upfirdn2d:
    (n, c, h, w), (fh, fw) = case.shape, case.taps
    pair = len(f) == 2
    return abi.Upfirdn2d(
        dtype=abi.DTYPES[dtype],
        layout=layout,
        n=n,
        c=c,
        h=h,
        w=w,
        out_h=case.out_shape[2],
        out_w=case.out_shape[3],
        fh=fh,
        fw=fw,
        up_y=case.along_y.up,
        up_x=case.along_x.up,
        down_y=case.along_y.down,
        down_x=case.along_x.down,
        pad_top=case.along_y.before,
        pad_left=case.along_x.before,
        flip=case.flip,
        gain=case.gain,
        f=None if pair else f[0].data_ptr(),
        fy=f[0].data_ptr() if pair else None,
        fx=f[1].data_ptr() if pair else None,
    )


def run(library: native.Library, case: Case, x: Tensor, layout: int, *, threads: int = 1) -> Tensor:
    """y; x, around which memory is NaN, and y lie in `layout`.

    A sanitizer sees a read past x only where the memory ends there.
    """
    source = guarded(case.shape, x.dtype, layout, math.nan, 0 if SANITIZED else GUARD)
    source.copy_(x)
    y = guarded(case.out_shape, x.dtype, layout, SENTINEL)
    f = tuple(one.to(torch.promote_types(x.dtype, torch.float32)).contiguous() for one in case.f)
    call = described(case, x.dtype, layout, f)
    assert library.kernels_upfirdn2d_workspace(call) == 0
    options = abi.Run(threads=threads)
    library.kernels_upfirdn2d(call, source.data_ptr(), y.data_ptr(), options)
    assert_guard_untouched(y)
    return y


# --------------------------------------------------------------------- the truth


@cache
def drawn(shape: tuple[int, ...], dtype: torch.dtype) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(1)).to(dtype)


def exactly(case: Case, x: Tensor, *, size: bool = False) -> Tensor:
    """The reference in double precision; `size`: of absolute values, what rounding scales with."""
    f, gain = [one.double() for one in case.f], case.gain
    whole = f[0] if len(f) == 1 else f[0][:, None] * f[1][None, :]
    if not x.numel():
        return torch.zeros(case.out_shape, dtype=torch.float64)
    if size:
        x, whole, gain = x.abs(), whole.abs(), abs(gain)
    (along_x, along_y) = case.along_x, case.along_y
    return reference.upfirdn2d(
        x.double(),
        whole,
        up=(along_x.up, along_y.up),
        down=(along_x.down, along_y.down),
        padding=(along_x.before, along_x.after, along_y.before, along_y.after),
        flip_filter=case.flip,
        gain=gain,
    )


@cache
def truth(case: Case, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """The result, and how far off it may be: roundings of the sums, one of the result."""
    x = drawn(case.shape, dtype)
    exact = exactly(case, x)
    unit = torch.finfo(torch.promote_types(dtype, torch.float32)).eps / 2
    sums = unit * (sum(case.taps) + 12) * exactly(case, x, size=True)
    storage = torch.finfo(dtype)
    return exact, sums + storage.eps / 2 * exact.abs() + storage.tiny


def check(library: native.Library, case: Case, dtype: torch.dtype) -> None:
    exact, tolerance = truth(case, dtype)
    for layout in LAYOUTS:
        y = run(library, case, drawn(case.shape, dtype), layout)
        assert y.shape == exact.shape
        excess = (y.double() - exact).abs() - tolerance
        # Not <=: a NaN must not pass.
        assert not (~(excess <= 0)).any(), f"off by {excess.max()} at layout {layout}: {case}"


# --------------------------------------------------------------------- the tests


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("name", CASES)
def test_agrees_with_the_reference(library: native.Library, name: str, dtype: torch.dtype) -> None:
    check(library, CASES[name], dtype)


@pytest.mark.parametrize("channels", [1, 3, 16, 64, 100])
@pytest.mark.parametrize("pixels", [4, 8, 16, 32, 64])
def test_what_stylegan2_runs_agrees_with_the_reference(
    library: native.Library, pixels: int, channels: int
) -> None:
    for case in STYLEGAN2[pixels, channels]:
        check(library, case, torch.float32)
        if pixels in (4, 16):
            check(library, case, torch.bfloat16)
            check(library, case, torch.float16)


STYLEGAN2 = {
    (pixels, channels): stylegan2(pixels, channels)
    for pixels in (4, 8, 16, 32, 64)
    for channels in (1, 3, 16, 64, 100)
}


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_any_parameters_agree_with_the_reference(
    library: native.Library, dtype: torch.dtype
) -> None:
    for case in RANDOM:
        check(library, case, dtype)


# Around the one and two vectors up to which rows stay in registers, whichever vectors there are.
WIDTHS = (1, 2, 3, 4, 5, 7, 8, 9, 12, 15, 16, 17, 24, 31, 32, 33)


@pytest.mark.parametrize("before", [-3, 0, 1, 2, 5])
@pytest.mark.parametrize("width", WIDTHS)
def test_rows_of_any_width_agree_with_the_reference(
    library: native.Library, width: int, before: int
) -> None:
    for up, down, after in [(2, 1, 1), (2, 1, 4), (1, 2, 3), (1, 2, 4)]:
        along_x, along_y = Axis(up, down, before, after), Axis(up, down, 3 - before, after)
        case = Case((2, 3, 6, width), along_x, along_y, LOPSIDED)
        if min(case.out_shape) > 0:
            check(library, case, torch.float32)
            check(library, case, torch.bfloat16)


@pytest.mark.parametrize("axis", [BLUR_1, UP, DOWN], ids=str)
def test_short_and_long_rows_have_the_same_bits(library: native.Library, axis: Axis) -> None:
    """But for rows shorter than the shortest vector, whose taps are added in another order."""
    for dtype in (torch.float32, torch.bfloat16):
        for width in (8, 12, 16):
            short = both((2, 3, 9, width), axis, LOPSIDED)
            x = drawn(short.shape, dtype)
            long = replace(short, shape=(2, 3, 9, 64))
            wide = torch.nn.functional.pad(x, (0, 64 - width))
            one, other = (
                run(library, case, of, abi.CHANNELS_FIRST)
                for case, of in ((short, x), (long, wide))
            )
            assert torch.equal(one, other[..., : one.shape[3]])


SHARED = {
    "blur": both((3, 100, 17, 19), BLUR_2, LOPSIDED),
    "up": both((3, 70, 17, 19), UP, LOPSIDED),
    "down": both((3, 70, 33, 29), DOWN, LOPSIDED),
    "up, short rows": both((3, 70, 17, 13), UP, LOPSIDED),
    "down, short rows": both((3, 70, 17, 15), DOWN, LOPSIDED),
    "up, few channels": both((9, 3, 31, 33), UP_12, SMOOTH),
    "rank 2": both((3, 40, 21, 19), BLUR_2, drawn_filter(4, 4)),
}


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("name", SHARED)
def test_the_number_of_threads_changes_no_bit(
    library: native.Library, name: str, layout: int
) -> None:
    case = SHARED[name]
    for dtype in (torch.float32, torch.bfloat16):
        x = drawn(case.shape, dtype)
        alone = run(library, case, x, layout)
        for threads in (2, 3):
            assert torch.equal(alone, run(library, case, x, layout, threads=threads))


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("axis", [BLUR_1, BLUR_2, UP, DOWN, Axis(1, 3, 2, 2)], ids=str)
def test_nan_and_infinity_reach_what_the_definition_says(
    library: native.Library, axis: Axis, layout: int
) -> None:
    gap: Filter = (torch.tensor([1.0, 0, 2, 1]), torch.tensor([1.0, 3, 3, -1]))
    for f in (BLUR, gap, drawn_filter(4, 4)):
        case = both((1, 40, 14, 18), axis, f)
        for value in (math.nan, math.inf, -math.inf):
            x = drawn(case.shape, torch.float32).clone()
            x[0, 5, 3, 4] = x[0, 39, 13, 17] = x[0, 20, 0, 0] = value
            # Where a tap meets a zero that was stuffed in, the reference has a product too.
            exact = exactly(case, x)
            y = run(library, case, x, layout)
            assert torch.equal(y.isnan(), exact.isnan())
            assert torch.equal(y.isposinf(), exact.isposinf())
            assert torch.equal(y.isneginf(), exact.isneginf())


def test_a_large_value_does_not_overflow_on_the_way(library: native.Library) -> None:
    case = both((1, 40, 8, 8), BLUR_2, (torch.full((4,), 2.0), torch.full((4,), 2.0**-8)))
    x = torch.full(case.shape, 2.0**126)
    for layout in LAYOUTS:
        assert run(library, case, x, layout).isfinite().all()


@pytest.mark.parametrize("axis", [BLUR_1, UP, DOWN, Axis(3, 2, 1, 1)], ids=str)
def test_a_crop_of_the_whole_image_leaves_zeros(library: native.Library, axis: Axis) -> None:
    past = axis._replace(before=-30, after=50)
    case = both((1, 40, 5, 6), past, LOPSIDED)
    for layout in LAYOUTS:
        assert (run(library, case, drawn(case.shape, torch.float32), layout) == 0).all()
