"""upfirdn2d against published numbers, its slow twin, and numerical derivatives."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from kernels import reference, setup_filter, upfirdn2d

BLUR = setup_filter([1, 3, 3, 1])
ASYMMETRIC = setup_filter([1, 2, 4], normalize=False)
RAMP = torch.arange(16, dtype=torch.float64).reshape(1, 1, 4, 4)

pytestmark = pytest.mark.usefixtures("implementation")

# The methods dossier, 9.1: RAMP through these; None: any number.
PUBLISHED: dict[str, tuple[Tensor, dict[str, Any], list[list[float]]]] = {
    "filter": (
        BLUR,
        {"padding": (2, 1, 2, 1)},
        [
            [0.3125, 0.75, 1.25, 1.4375],
            [1.359375, 2.734375, 3.8125, 3.9375],
            [3.125, 5.875, 7.5, 7.25],
            [4.109375, 7.546875, 9.3125, 8.75],
        ],
    ),
    "up": (
        BLUR,
        {"up": 2, "padding": (2, 1, 2, 1), "gain": 4},
        [
            [0, 0.1875, 0.5625, 0.9375, 1.3125, 1.6875, 2.0625, 1.6875],
            [0.75, 1.25, 1.75, 2.25, 2.75, 3.25, 3.75, 3],
            *[[None] * 8] * 5,
            [6.75, 9.1875, 9.5625, 9.9375, 10.3125, 10.6875, 11.0625, 8.4375],
        ],
    ),
    "down": (BLUR, {"down": 2, "padding": 1}, [[2.734375, 3.9375], [7.546875, 8.75]]),
    "padding": (
        ASYMMETRIC,
        {"padding": (1, 2, 0, 3)},
        [
            [55, 140, 189, 194, 148],
            [139, 336, 385, 362, 260],
            [174, 416, 458, 420, 296],
            [148, 352, 380, 344, 240],
            [0] * 5,
        ],
    ),
    "flip": (
        ASYMMETRIC,
        {"padding": (1, 2, 0, 3), "flip_filter": True},
        [
            [268, 350, 399, 176, 61],
            [436, 546, 595, 260, 89],
            [204, 254, 275, 120, 41],
            [76, 94, 101, 44, 15],
            [0] * 5,
        ],
    ),
    "up and down": (
        ASYMMETRIC,
        {"up": (2, 1), "down": (1, 2), "padding": (2, 1, 1, 1), "gain": 3},
        [
            [12, 24, 69, 42, 114, 60, 159, 78, 156],
            [132, 264, 681, 306, 786, 348, 891, 390, 780],
        ],
    ),
    "crop": (
        ASYMMETRIC,
        {"padding": (-1, 2, 2, -1)},
        [[11, 14, 12], [61, 66, 52], [189, 194, 148]],
    ),
}


@pytest.mark.parametrize("name", PUBLISHED)
def test_values_are_the_published_ones(name: str) -> None:
    f, arguments, expected = PUBLISHED[name]
    y = upfirdn2d(RAMP, f, **arguments)[0, 0]
    assert y.shape == (len(expected), len(expected[0]))
    for row, wanted in zip(y.tolist(), expected, strict=True):
        if wanted[0] is not None:
            assert row == wanted


def test_golden_values_and_derivatives(shared_data: Path) -> None:
    archive = np.load(shared_data / "golden" / "upfirdn2d.npz")
    cases = json.loads(bytes(archive["meta"]))
    assert len(cases) == 112
    for number, case in enumerate(cases):
        golden = {
            key[4:]: torch.from_numpy(archive[key])
            for key in archive.files
            if key.startswith(f"{number:03d}/")
        }
        arguments = {key: value for key, value in case.items() if key != "filter"}
        x, dy = golden["x"].requires_grad_(), golden["dy"].requires_grad_()
        y = upfirdn2d(x, golden.get("f"), **arguments)
        (dx,) = torch.autograd.grad(y, x, dy, create_graph=True)
        (ddy,) = torch.autograd.grad(dx, dy, golden["vx"])
        for name, value in (("y", y), ("dx", dx), ("ddy", ddy)):
            error = (value - golden[name]).abs().max()
            assert error <= 1e-10, f"case {number} {case}: {name} is off by {error}"
        if "taps" in golden:
            f = setup_filter(golden["taps"]).double()
            torch.testing.assert_close(f, golden["f"], rtol=0, atol=3e-8)


SMALL = st.integers(1, 3)
PADS = st.tuples(*[st.integers(-2, 4)] * 4)


@settings(
    max_examples=150,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(
    shape=st.tuples(st.integers(1, 2), st.integers(1, 3), st.integers(3, 7), st.integers(3, 7)),
    taps=st.tuples(st.integers(1, 4), st.integers(1, 4)),
    up=st.tuples(SMALL, SMALL),
    down=st.tuples(SMALL, SMALL),
    padding=PADS,
    flip=st.booleans(),
    channels_last=st.booleans(),
)
def test_equals_its_slow_twin_and_so_do_both_derivatives(
    shape: tuple[int, ...],
    taps: tuple[int, int],
    up: tuple[int, int],
    down: tuple[int, int],
    padding: tuple[int, int, int, int],
    flip: bool,
    channels_last: bool,
) -> None:
    width = shape[3] * up[0] + padding[0] + padding[1] - taps[1]
    height = shape[2] * up[1] + padding[2] + padding[3] - taps[0]
    if min(width, height) < 0:
        return
    f, x = torch.randn(taps, dtype=torch.float64), torch.randn(shape, dtype=torch.float64)
    x = x.to(memory_format=torch.channels_last) if channels_last else x
    arguments = {"up": up, "down": down, "padding": padding, "flip_filter": flip, "gain": 1.7}
    found = [three(operator, x, f, arguments) for operator in (upfirdn2d, reference.upfirdn2d)]
    for fast, slow in zip(*found, strict=True):
        torch.testing.assert_close(fast, slow, rtol=1e-12, atol=1e-12)


def three(operator: Any, x: Tensor, f: Tensor, arguments: dict[str, Any]) -> tuple[Tensor, ...]:
    """The result, its gradient, and the gradient of that in the cotangent."""
    x = x.clone().requires_grad_()
    y = operator(x, f, **arguments)
    dy = torch.linspace(-1, 1, y.numel(), dtype=x.dtype).reshape(y.shape).requires_grad_()
    (dx,) = torch.autograd.grad(y, x, dy, create_graph=True)
    (ddy,) = torch.autograd.grad(dx.square().sum(), dy)
    return y.detach(), dx.detach(), ddy


CASES = {
    "blur": {"padding": 1, "gain": 4},
    "up": {"up": 2, "padding": (2, 1, 2, 1), "gain": 4},
    "down": {"down": 2, "padding": 1},
    "odd": {"up": (2, 3), "down": (3, 1), "padding": (3, -1, 0, 2), "flip_filter": True},
}


@pytest.mark.parametrize("arguments", CASES.values(), ids=CASES)
@pytest.mark.parametrize("separable", [False, True])
def test_derivatives_agree_with_differences(arguments: dict[str, Any], separable: bool) -> None:
    f = setup_filter([1, 2, 3], separable=separable)
    x = torch.randn(1, 2, 4, 5, dtype=torch.float64, requires_grad=True)

    def operator(x: Tensor) -> Tensor:
        return upfirdn2d(x, f, **arguments)

    assert torch.autograd.gradcheck(operator, (x,))
    assert torch.autograd.gradgradcheck(operator, (x,))


@pytest.mark.parametrize("arguments", CASES.values(), ids=CASES)
def test_two_separable_passes_equal_one_with_the_outer_product(arguments: dict[str, Any]) -> None:
    x = torch.randn(2, 3, 9, 8, dtype=torch.float64)
    two = upfirdn2d(x, setup_filter([1, 2, 3, 1], separable=True), **arguments)
    one = upfirdn2d(x, setup_filter([1, 2, 3, 1]), **arguments)
    torch.testing.assert_close(two, one, rtol=1e-6, atol=1e-6)


class CountConvolutions(TorchDispatchMode):
    """Counts the convolutions that run inside it."""

    def __init__(self) -> None:
        super().__init__()
        self.count = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.count += "convolution" in str(func)
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize("arguments", [CASES["blur"], CASES["up"], CASES["down"]])
def test_double_backward_is_one_convolution_and_not_one_a_channel(
    arguments: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("KERNELS", "reference")
    x = torch.randn(2, 32, 8, 8, requires_grad=True)
    y = upfirdn2d(x, BLUR, **arguments)
    dy = torch.ones_like(y, requires_grad=True)
    (dx,) = torch.autograd.grad(y, x, dy, create_graph=True)
    with CountConvolutions() as counted:
        torch.autograd.grad(dx.sum(), dy)
    assert counted.count == 1


@pytest.mark.parametrize("arguments", CASES.values(), ids=CASES)
def test_keeps_layout(arguments: dict[str, Any]) -> None:
    for layout in (torch.contiguous_format, torch.channels_last):
        x = torch.randn(2, 8, 6, 6).to(memory_format=layout).requires_grad_()
        y = upfirdn2d(x, BLUR, **arguments)
        (dx,) = torch.autograd.grad(y, x, torch.ones_like(y))
        assert y.is_contiguous(memory_format=layout)
        assert dx.is_contiguous(memory_format=layout)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("arguments", CASES.values(), ids=CASES)
def test_is_as_exact_as_its_slow_twin(arguments: dict[str, Any], dtype: torch.dtype) -> None:
    x = torch.randn(2, 5, 9, 9, dtype=dtype)
    exact = reference_call(x.double(), arguments)
    slow, fast = reference_call(x, arguments), upfirdn2d(x, BLUR, **arguments)
    assert fast.dtype == dtype
    eps = torch.finfo(dtype).eps * exact.abs().max().item()
    assert error(fast, exact) <= 2 * error(slow, exact) + eps


def error(y: Tensor, exact: Tensor) -> float:
    return (y.double() - exact).abs().max().item()


def reference_call(x: Tensor, arguments: dict[str, Any]) -> Tensor:
    """The slow twin with the short forms of up, down and padding written out."""
    full: dict[str, Any] = {"up": 1, "down": 1, "padding": 0, **arguments}
    for name, length in (("up", 2), ("down", 2), ("padding", 4)):
        full[name] = (full[name],) * length if isinstance(full[name], int) else full[name]
    return reference.upfirdn2d(x, BLUR, **full)


def test_no_filter_is_the_identity() -> None:
    x = torch.randn(1, 2, 3, 3)
    assert torch.equal(upfirdn2d(x, None), x)
    assert torch.equal(upfirdn2d(x, setup_filter(None)), x)
    assert torch.equal(upfirdn2d(x, None, down=2), x[:, :, ::2, ::2])


def test_constant_stays_constant_inside_when_resampled() -> None:
    x = torch.ones(1, 1, 8, 8)
    up = upfirdn2d(x, BLUR, up=2, padding=(2, 1, 2, 1), gain=4)
    down = upfirdn2d(x, BLUR, down=2, padding=1)
    assert torch.equal(up[:, :, 2:-2, 2:-2], torch.ones(1, 1, 12, 12))
    assert torch.equal(down[:, :, 1:-1, 1:-1], torch.ones(1, 1, 2, 2))


@pytest.mark.parametrize("shape", [(0, 3, 6, 6), (2, 0, 6, 6)])
def test_empty_batches(shape: tuple[int, ...]) -> None:
    x = torch.zeros(shape, requires_grad=True)
    y = upfirdn2d(x, BLUR, up=2, padding=(2, 1, 2, 1))
    y.sum().backward()
    assert y.shape == (*shape[:2], 12, 12)
    assert x.grad.shape == x.shape


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ({"taps": [1, 3]}, [[1 / 16, 3 / 16], [3 / 16, 9 / 16]]),
        ({"taps": [1, 3], "gain": 4, "flip": True}, [[9 / 4, 3 / 4], [3 / 4, 1 / 4]]),
        ({"taps": [1, 3], "separable": True, "gain": 4}, [1 / 2, 3 / 2]),
        ({"taps": [1] * 8}, [1 / 8] * 8),
        ({"taps": [[1, 2, 5]], "normalize": False}, [[1, 2, 5]]),
        ({"taps": None}, [[1]]),
    ],
)
def test_setup_filter(arguments: dict[str, Any], expected: list[Any]) -> None:
    assert torch.equal(setup_filter(**arguments), torch.tensor(expected, dtype=torch.float32))


IMAGE = torch.zeros(1, 1, 4, 4)
BAD = {
    "integers": ({"x": IMAGE.int()}, TypeError, "`x` must be a floating-point tensor"),
    "axes": ({"x": IMAGE[0]}, ValueError, r"\[N, C, H, W\], got \[1, 4, 4\]"),
    "filter": ({"f": [1, 3, 3, 1]}, TypeError, "`f` must be None or .*setup_filter"),
    "filter type": ({"f": torch.ones(2, 2).int()}, TypeError, "`f` .*got torch.int32 on cpu"),
    "filter device": (
        {"f": BLUR.to("meta")},
        TypeError,
        r"`f` must be on cpu as `x`, but is on meta; move it with \.to\('cpu'\)",
    ),
    "filter axes": ({"f": torch.zeros(1, 1, 1)}, ValueError, r"\[fh, fw\], got \[1, 1, 1\]"),
    "filter gradient": ({"f": torch.ones(2, requires_grad=True)}, ValueError, "constant"),
    "up": ({"up": 0}, ValueError, "`up` must be at least 1, got 0"),
    "down": ({"down": (1, 2, 3)}, ValueError, r"`down` must be 1 or 2 whole numbers"),
    "padding": ({"padding": 1.5}, ValueError, "`padding` must be 1 or 2 or 4 whole numbers"),
    "size": ({"padding": -1}, ValueError, r"smaller than the filter \[4, 4\]"),
}


@pytest.mark.parametrize("name", BAD)
def test_errors_say_what_was_expected_and_what_came(name: str) -> None:
    change, kind, message = BAD[name]
    with pytest.raises(kind, match=message):
        upfirdn2d(**{"x": IMAGE, "f": BLUR, **change})


def test_a_filter_of_shapes_alone_is_made_as_any_other() -> None:
    with torch.device("meta"):
        assert setup_filter([1, 3, 3, 1]).shape == (4, 4)


def test_setup_filter_refuses_what_is_no_filter() -> None:
    with pytest.raises(ValueError, match=r"got \[1, 1, 1\]"):
        setup_filter(torch.zeros(1, 1, 1))
    with pytest.raises(ValueError, match="one-dimensional"):
        setup_filter([[1.0]], separable=True)
    for taps in ([1, -1], [0.0], [0.1, 0.2, -0.3], [float("nan")]):
        with pytest.raises(ValueError, match="`taps` sum to .*normalize=False"):
            setup_filter(taps)
    difference = torch.tensor([[1.0, -1.0], [-1.0, 1.0]])
    assert torch.equal(setup_filter([1, -1], normalize=False), difference)
