"""The compiled 3x3 convolution of each instruction set against sums in double precision."""

from __future__ import annotations

import math
import os
from functools import cache
from itertools import product
from typing import NamedTuple

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from kernels import abi, native

DTYPES = (torch.float32, torch.bfloat16)
FILTER_LAYOUTS = (abi.CHANNELS_FIRST, abi.CHANNELS_LAST)
GUARD = 64  # elements before and after every tensor
SENTINEL = 7.0
# A sanitizer sees an access past a tensor only where the memory ends there.
MARGIN = 0 if "KERNELS_SANITIZE" in os.environ else GUARD


class Case(NamedTuple):
    """Sizes of one convolution."""

    n: int
    h: int
    w: int
    c: int
    o: int

    @property
    def tiles(self) -> int:
        return self.n * self.h * self.w // 4


CASES = {
    "one tile": Case(1, 2, 2, 16, 16),
    "one row": Case(1, 2, 12, 16, 32),
    "one column": Case(2, 14, 2, 32, 16),
    "no patch inside": Case(3, 4, 4, 16, 48),
    "three vectors": Case(1, 6, 10, 48, 48),
    "five vectors": Case(2, 4, 6, 80, 80),
    "one to nine": Case(1, 6, 8, 16, 144),
    "nine to one": Case(3, 8, 6, 144, 16),
    "two widths": Case(1, 8, 8, 128, 64),
    "many channels": Case(1, 4, 4, 512, 32),
    # Blocks of 96 tiles and of 64: full, and with one tile more or less.
    "95 tiles": Case(1, 2, 190, 16, 16),
    "96 tiles": Case(2, 8, 24, 16, 16),
    "97 tiles": Case(1, 194, 2, 16, 32),
    "63 tiles": Case(1, 14, 18, 32, 16),
    "64 tiles": Case(1, 16, 16, 16, 48),
    "65 tiles": Case(1, 10, 26, 48, 16),
    # The gradient is a sum of 1, 2 and 8 parts.
    "parts of one": Case(1, 34, 60, 16, 16),
    "two parts": Case(3, 34, 22, 32, 16),
    "eight parts": Case(2, 64, 66, 16, 32),
}


# --------------------------------------------------------------------- the library


def guarded(shape: tuple[int, ...], value: float, dtype: torch.dtype = torch.float32) -> Tensor:
    """Memory that is full of `value`, with MARGIN elements more on both sides."""
    size = math.prod(shape)
    memory = torch.full((size + 2 * MARGIN,), value, dtype=dtype)
    return memory[MARGIN : MARGIN + size].view(shape)


def placed(values: Tensor) -> Tensor:
    """A dense copy; memory around it is NaN."""
    memory = guarded(tuple(values.shape), math.nan, values.dtype)
    return memory.copy_(values)


def assert_guard_untouched(one: Tensor) -> None:
    memory = torch.empty(0, dtype=one.dtype).set_(one.untyped_storage())
    around = torch.cat([memory[:MARGIN], memory[len(memory) - MARGIN :]])
    assert (around == SENTINEL).all()


def scratch(size: int) -> Tensor:
    """Memory of `size` bytes that holds no number."""
    assert size % 4 == 0
    memory = guarded((size // 4,), SENTINEL)
    return memory.fill_(math.nan)


def described(
    case: Case, dtype: torch.dtype, *, layout: int = abi.CHANNELS_FIRST, turned: bool = False
) -> abi.Conv3x3:
    sizes = case._asdict()
    return abi.Conv3x3(dtype=abi.DTYPES[dtype], filter_layout=layout, turned=turned, **sizes)


def convolved(
    library: native.Library,
    x: Tensor,
    w: Tensor,
    *,
    layout: int = abi.CHANNELS_FIRST,
    turned: bool = False,
    threads: int = 1,
) -> Tensor:
    """y of x [n,h,w,c] and w [o,c,3,3], which is handed over in the layout, turned if asked."""
    case = Case(*x.shape, w.shape[0])
    call = described(case, x.dtype, layout=layout, turned=turned)
    lying = w.flip(2, 3).transpose(0, 1) if turned else w
    lying = lying.permute(0, 2, 3, 1) if layout == abi.CHANNELS_LAST else lying
    source, filters = placed(x), placed(lying)
    y = guarded((*x.shape[:3], case.o), SENTINEL, x.dtype)
    run = abi.Run(threads=threads)
    workspace = scratch(library.kernels_conv3x3_workspace(call, run))
    run.workspace = workspace.data_ptr()
    library.kernels_conv3x3(call, source.data_ptr(), filters.data_ptr(), y.data_ptr(), run)
    assert_guard_untouched(y)
    assert_guard_untouched(workspace)
    return y


def differentiated(
    library: native.Library,
    x: Tensor,
    dy: Tensor,
    *,
    layout: int = abi.CHANNELS_FIRST,
    threads: int = 1,
) -> Tensor:
    """dw [o,c,3,3], which the library writes in the layout, of x [n,h,w,c] and dy [n,h,w,o]."""
    case = Case(*x.shape, dy.shape[3])
    call = described(case, x.dtype, layout=layout)
    last = layout == abi.CHANNELS_LAST
    source, gradient = placed(x), placed(dy)
    dw = guarded((case.o, 3, 3, case.c) if last else (case.o, case.c, 3, 3), SENTINEL)
    run = abi.Run(threads=threads)
    workspace = scratch(library.kernels_conv3x3_gradient_workspace(call, run))
    run.workspace = workspace.data_ptr()
    addresses = (source.data_ptr(), gradient.data_ptr(), dw.data_ptr())
    library.kernels_conv3x3_gradient(call, *addresses, run)
    assert_guard_untouched(dw)
    assert_guard_untouched(workspace)
    return dw.permute(0, 3, 1, 2) if last else dw


@pytest.fixture(params=DTYPES, ids=str)
def dtype(request: pytest.FixtureRequest, library: native.Library) -> torch.dtype:
    """Each of which the library has products."""
    if request.param == torch.bfloat16 and library.built.isa != "avx512_bf16":
        pytest.skip("no instructions for bfloat16")
    return request.param


def test_products_that_an_instruction_set_has_not_are_refused(library: native.Library) -> None:
    if library.built.isa == "avx512_bf16":
        pytest.skip("it has them")
    x = torch.zeros(1, 2, 2, 16, dtype=torch.bfloat16)
    with pytest.raises(NotImplementedError):
        convolved(library, x, torch.zeros(16, 16, 3, 3))
    with pytest.raises(NotImplementedError):
        differentiated(library, x, x)


# --------------------------------------------------------------------- the truth

IMAGE = torch.tensor([[1.0, 0, -1, 0], [0, 1, 1, 0], [0, -1, 1, 0], [0, 1, 0, -1]]).double()
FILTER = torch.tensor([[1.0, 0, 0], [0.5, 0.5, 0.5], [0.5, -0.5, 0.5], [0, 0, 1]]).double()
BACK = torch.tensor([[1.0, 1, 1, 0], [0, 1, -1, -1]]).double()


def winograd(x: Tensor, w: Tensor, *, size: bool = False) -> Tensor:
    """y [n,h,w,o] of doubles; `size`: the sum of what it is summed up of, without signs."""
    image, to, back = (one.abs() if size else one for one in (IMAGE, FILTER, BACK))
    padded = functional.pad(x.permute(0, 3, 1, 2), [1] * 4)
    patches = image @ padded.unfold(2, 4, 2).unfold(3, 4, 2) @ image.T
    products = torch.einsum("ocij,nchwij->nhwoij", to @ w @ to.T, patches)
    n, h, across, o = products.shape[:4]
    tiles = back @ products @ back.T
    return tiles.permute(0, 1, 4, 2, 5, 3).reshape(n, 2 * h, 2 * across, o)


class Truth(NamedTuple):
    """Operands, and each result with how far off it may be."""

    x: Tensor
    w: Tensor
    dy: Tensor
    y: tuple[Tensor, Tensor]
    dw: tuple[Tensor, Tensor]


@cache
def truth(case: Case, dtype: torch.dtype) -> Truth:
    """A sum of so many terms is off by as many roundings of what they amount to, at most; the
    transforms have 12. Both factors are rounded to the dtype, and y is.
    """
    seed = torch.Generator().manual_seed(case.o)
    n, h, w, c, o = case
    x = torch.randn(n, h, w, c, generator=seed).to(dtype)
    filters = torch.randn(o, c, 3, 3, generator=seed)
    dy = torch.randn(n, h, w, o, generator=seed).to(dtype)
    unit, storage = torch.finfo(torch.float32).eps / 2, torch.finfo(dtype).eps / 2

    def found(filters: Tensor) -> Tensor:
        planes = functional.conv2d(x.double().permute(0, 3, 1, 2), filters, padding=1)
        return planes.permute(0, 2, 3, 1)

    def sizes(filters: Tensor) -> Tensor:
        return winograd(x.double().abs(), filters, size=True)

    exact = filters.double().requires_grad_()
    y = found(exact)
    (dw,) = torch.autograd.grad(y, exact, dy.double())
    without_signs = filters.double().abs().requires_grad_()
    y_size = sizes(without_signs)
    (dw_size,) = torch.autograd.grad(y_size, without_signs, dy.double().abs())
    y, y_size = y.detach(), y_size.detach()
    y_off = ((c + 12) * unit + 2 * storage) * y_size + storage * y.abs()
    dw_off = ((case.tiles + 12) * unit + 2 * storage) * dw_size
    return Truth(x, filters, dy, (y, y_off), (dw, dw_off))


def assert_near(found: Tensor, exact: Tensor, off: Tensor) -> None:
    assert found.shape == exact.shape
    excess = (found.double() - exact).abs() - off
    # Not <=: a NaN must not pass.
    assert not (~(excess <= 0)).any(), f"off by {excess.max()} more than allowed"


# --------------------------------------------------------------------- the tests


@pytest.mark.parametrize("name", CASES)
def test_the_truth_is_the_filtering_that_the_library_does(name: str) -> None:
    values = truth(CASES[name], torch.float32)
    same = winograd(values.x.double(), values.w.double())
    torch.testing.assert_close(same, values.y[0], rtol=0, atol=1e-11)


@pytest.mark.parametrize("name", CASES)
def test_agrees_with_the_definition(library: native.Library, name: str, dtype: torch.dtype) -> None:
    values = truth(CASES[name], dtype)
    bits = []
    for layout, turned in product(FILTER_LAYOUTS, (False, True)):
        y = convolved(library, values.x, values.w, layout=layout, turned=turned)
        assert_near(y, *values.y)
        bits.append(y)
    assert all(torch.equal(bits[0], one) for one in bits[1:]), "how a filter lies shows in y"


@pytest.mark.parametrize("name", CASES)
def test_the_gradient_agrees_with_the_definition(
    library: native.Library, name: str, dtype: torch.dtype
) -> None:
    values = truth(CASES[name], dtype)
    bits = [differentiated(library, values.x, values.dy, layout=one) for one in FILTER_LAYOUTS]
    assert_near(bits[0], *values.dw)
    assert torch.equal(*bits)


SHARED = ("one tile", "five vectors", "nine to one", "97 tiles", "two parts", "eight parts")


@pytest.mark.parametrize("name", SHARED)
def test_the_number_of_threads_changes_no_bit(
    library: native.Library, name: str, dtype: torch.dtype
) -> None:
    values = truth(CASES[name], dtype)
    y = convolved(library, values.x, values.w)
    dw = differentiated(library, values.x, values.dy)
    for threads in (2, 3, 5):
        assert torch.equal(y, convolved(library, values.x, values.w, threads=threads))
        assert torch.equal(dw, differentiated(library, values.x, values.dy, threads=threads))


def test_threads_that_meet_share_no_scratch_memory(
    library: native.Library, dtype: torch.dtype
) -> None:
    """So much work that none has done its part before the next begins."""
    x, w = torch.randn(4, 64, 64, 128).to(dtype), torch.randn(128, 128, 3, 3)
    y, dw = convolved(library, x, w), differentiated(library, x, x)
    for threads in (2, 3, 4):
        assert torch.equal(y, convolved(library, x, w, threads=threads))
        assert torch.equal(dw, differentiated(library, x, x, threads=threads))


@pytest.mark.parametrize("name", ["no patch inside", "five vectors", "96 tiles", "eight parts"])
def test_no_bit_of_an_image_depends_on_the_others(
    library: native.Library, name: str, dtype: torch.dtype
) -> None:
    values = truth(CASES[name], dtype)
    together = convolved(library, values.x, values.w)
    for one, y in zip(values.x, together, strict=True):
        assert torch.equal(convolved(library, one[None], values.w)[0], y)


@pytest.mark.parametrize("name", ["one tile", "five vectors", "two parts"])
def test_what_is_no_number_stays_in_its_channel_of_the_gradient(
    library: native.Library, name: str, dtype: torch.dtype
) -> None:
    """Products read on into what follows a row, and drop what they make of it."""
    values, case = truth(CASES[name], dtype), CASES[name]
    for value in (math.nan, math.inf):
        x, dy = values.x.clone(), values.dy.clone()
        x[..., 5] = value
        dy[..., case.o - 1] = value
        bad = ~differentiated(library, x, dy).isfinite()
        expected = torch.zeros(case.o, case.c, dtype=torch.bool)
        expected[:, 5] = expected[case.o - 1] = True
        assert torch.equal(bad.flatten(2).any(2), expected)


@pytest.mark.parametrize("function", ["conv3x3", "conv3x3_gradient"])
def test_a_missing_workspace_is_an_error(library: native.Library, function: str) -> None:
    call = described(CASES["one tile"], torch.float32)
    memory = torch.zeros(16 * 16 * 9)
    with pytest.raises(MemoryError, match="workspace"):
        getattr(library, f"kernels_{function}")(call, *[memory.data_ptr()] * 3, abi.Run(threads=1))
