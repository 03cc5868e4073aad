"""bias_act against its slow twin, numerical derivatives, and what it refuses."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from operator_table import error
from torch import Tensor

from kernels import ACTIVATIONS, bias_act, reference

pytestmark = pytest.mark.usefixtures("implementation")

SETTINGS: tuple[dict[str, Any], ...] = (
    {},
    {"gain": 0.7},
    {"clamp": 0.6},
    {"gain": 3.0, "clamp": 1.1},
    {"gain": -1.5},
    {"gain": 1.0, "alpha": 0.1, "clamp": 0.3},
)


def away_from_kinks(*shape: int) -> Tensor:
    """Float64 values at which no tested setting has its zero or its clamp."""
    x = torch.randn(*shape, dtype=torch.float64)
    return x + 0.05 * x.sign()


@pytest.mark.parametrize("settings", SETTINGS, ids=str)
@pytest.mark.parametrize("act", ACTIVATIONS)
def test_derivatives_agree_with_differences(act: str, settings: dict[str, Any]) -> None:
    x, b = away_from_kinks(2, 3, 2).requires_grad_(), torch.zeros(3, dtype=torch.float64)
    inputs = (x, b.requires_grad_())

    def operator(x: Tensor, b: Tensor) -> Tensor:
        return bias_act(x, b, act=act, **settings)

    assert torch.autograd.gradcheck(operator, inputs)
    assert torch.autograd.gradgradcheck(operator, inputs)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("act", ACTIVATIONS)
def test_is_as_exact_as_its_slow_twin(act: str, dtype: torch.dtype) -> None:
    for settings in SETTINGS:
        for dim, shape in ((1, (3, 5, 4, 4)), (0, (5, 3)), (-1, (2, 3, 5))):
            x, b = torch.randn(shape, dtype=dtype), torch.randn(5, dtype=dtype)
            y = bias_act(x, b, dim=dim, act=act, **settings)
            slow = reference.bias_act(x, b, dim=dim, act=act, **settings)
            exact = reference.bias_act(x.double(), b.double(), dim=dim, act=act, **settings)
            assert y.dtype == dtype
            # gain x and gain b are rounded before they are added, and may cancel.
            terms = abs(settings.get("gain", 2**0.5)) * (x.abs().max() + b.abs().max()).item()
            assert error(y, exact) <= 2 * error(slow, exact) + torch.finfo(dtype).eps * terms


@pytest.mark.parametrize("act", ["linear", "relu", "lrelu"])
def test_nothing_flows_back_where_the_output_is_clamped(act: str) -> None:
    x = torch.tensor([[-90.0, 0.5, 90.0]], requires_grad=True)
    bias_act(x, act=act, gain=2, clamp=10).sum().backward()
    assert x.grad.tolist() == [[0, 2, 0]]


def test_third_derivative_of_tanh(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KERNELS", "reference")
    x = torch.tensor([0.3], dtype=torch.float64, requires_grad=True)
    value = bias_act(x, dim=0, act="tanh")
    for _ in range(3):
        (value,) = torch.autograd.grad(value.sum(), x, create_graph=True)
    t = torch.tanh(x)
    torch.testing.assert_close(value, (1 - t**2) * (6 * t**2 - 2))


@pytest.mark.parametrize("act", ACTIVATIONS)
@pytest.mark.parametrize("clamp", [None, 0.5])
def test_keeps_layout_and_leaves_its_input_alone(act: str, clamp: float | None) -> None:
    for layout in (torch.contiguous_format, torch.channels_last):
        x = torch.randn(2, 6, 5, 4).to(memory_format=layout).requires_grad_()
        before = x.detach().clone()
        for b, gain in ((None, None), (None, 1), (torch.randn(6), None)):
            y = bias_act(x, b, act=act, gain=gain, clamp=clamp)
            (dx,) = torch.autograd.grad(y, x, torch.ones_like(y))
            assert y.is_contiguous(memory_format=layout)
            assert dx.is_contiguous(memory_format=layout)
        assert torch.equal(x, before)


def test_linear_with_nothing_to_do_is_the_identity() -> None:
    x = torch.randn(2, 3, requires_grad=True)
    y = bias_act(x)
    assert torch.equal(y, x)
    assert torch.equal(torch.autograd.grad(y.sum(), x)[0], torch.ones(2, 3))


@pytest.mark.parametrize("shape", [(0, 4, 2, 2), (2, 4, 0, 3), (2, 4)])
def test_empty_and_flat_inputs(shape: tuple[int, ...]) -> None:
    x, b = torch.ones(shape, requires_grad=True), torch.ones(4, requires_grad=True)
    y = bias_act(x, b, act="lrelu", clamp=5)
    y.sum().backward()
    assert y.shape == x.grad.shape == torch.Size(shape)
    assert b.grad.shape == (4,)


def test_expanded_inputs() -> None:
    x = torch.randn(1, 4, 1, 1).expand(2, 4, 3, 3)
    y = bias_act(x, act="lrelu", clamp=1)
    torch.testing.assert_close(y, reference.bias_act(x, act="lrelu", clamp=1))


BAD = {
    "integers": ({"x": torch.zeros(2, 3, dtype=torch.int64)}, TypeError, "floating-point"),
    "activation": ({"act": "gelu"}, ValueError, "linear, relu, lrelu, .*got 'gelu'"),
    "clamp": ({"clamp": -1}, ValueError, "`clamp` must be None or at least 0, got -1"),
    "bias size": ({"b": torch.zeros(4)}, ValueError, r"shape \[3\] to match axis 1 .*got \[4\]"),
    "bias type": ({"b": torch.zeros(3).half()}, TypeError, "float32 on cpu.*float16 on cpu"),
    "bias device": ({"b": torch.zeros(3, device="meta")}, TypeError, "`b` .*on cpu .*on meta"),
    "axis": ({"b": torch.zeros(3), "dim": 2}, ValueError, r"axis of x \[2, 3\], got 2"),
    "axis of no bias": ({"dim": 99}, ValueError, r"axis of x \[2, 3\], got 99"),
    "negative axis of no bias": ({"dim": -3}, ValueError, r"axis of x \[2, 3\], got -3"),
}


def test_without_a_bias_any_number_of_axes_will_do() -> None:
    for x in (torch.tensor(-1.0), torch.tensor([-1.0, 2.0])):
        assert torch.equal(bias_act(x, act="relu", gain=1), x.relu())


@pytest.mark.parametrize("name", BAD)
def test_errors_say_what_was_expected_and_what_came(name: str) -> None:
    change, kind, message = BAD[name]
    with pytest.raises(kind, match=f"^bias_act: .*{message}"):
        bias_act(**{"x": torch.zeros(2, 3), **change})
