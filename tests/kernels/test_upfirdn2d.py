"""upfirdn2d against its slow twin, numerical derivatives, and what it refuses."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from operator_table import error, filtered_call
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from kernels import setup_filter, upfirdn2d

BLUR = setup_filter([1, 3, 3, 1])

pytestmark = pytest.mark.usefixtures("implementation")

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
    call = filtered_call(tuple(x.shape), BLUR, **arguments)
    exact, slow, fast = call.twin(x.double()), call.twin(x), call.operator(x)
    assert fast.dtype == dtype
    eps = torch.finfo(dtype).eps * exact.abs().max().item()
    assert error(fast, exact) <= 2 * error(slow, exact) + eps


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
