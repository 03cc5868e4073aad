"""bias_act against published numbers, its slow twin, and numerical derivatives."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from kernels import ACTIVATIONS, bias_act, reference

pytestmark = pytest.mark.usefixtures("implementation")

# The methods dossier, 9.2: x, b = 0.1, default gain, clamp 10.
X = (-3, -1, -0.25, 0.5, 2, 40)
PUBLISHED = {
    "linear": (-2.9, -0.9, -0.15, 0.6, 2.1, 10),
    "relu": (0, 0, 0, 0.8485281, 2.9698485, 10),
    "lrelu": (-0.8202439, -0.2545584, -0.0424264, 0.8485281, 2.9698485, 10),
    "tanh": (-0.9939632, -0.7162979, -0.148885, 0.5370496, 0.9704519, 1),
    "sigmoid": (0.0521536, 0.2890505, 0.4625702, 0.6456563, 0.8909032, 1),
    "elu": (-0.9449768, -0.5934303, -0.139292, 0.6, 2.1, 10),
    "selu": (-1.6613631, -1.0433095, -0.2448892, 0.6304206, 2.2064721, 10),
    "softplus": (0.0535628, 0.3411539, 0.620957, 1.037488, 2.2155195, 10),
    "swish": (-0.2138932, -0.3679012, -0.0981259, 0.5478575, 2.6458475, 10),
}
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


@pytest.mark.parametrize("act", PUBLISHED)
def test_values_are_the_published_ones(act: str) -> None:
    x = torch.tensor([X], dtype=torch.float64).T
    y = bias_act(x, torch.tensor([0.1], dtype=torch.float64), act=act, clamp=10)
    expected = torch.tensor([PUBLISHED[act]], dtype=torch.float64).T
    torch.testing.assert_close(y, expected, rtol=0, atol=6e-8)


@pytest.mark.parametrize("act", ACTIVATIONS)
def test_golden_values_and_derivatives(act: str, shared_data: Path) -> None:
    archive = np.load(shared_data / "golden" / "bias_act.npz")
    cases = json.loads(bytes(archive["meta"]))
    chosen = [number for number, case in enumerate(cases) if case["act"] == act]
    assert len(chosen) == 18
    for number in chosen:
        golden = {
            key[4:]: torch.from_numpy(archive[key])
            for key in archive.files
            if key.startswith(f"{number:03d}/")
        }
        settings = {key: cases[number][key] for key in ("act", "dim", "gain", "clamp")}
        for name, value in derivatives(golden, settings).items():
            expected = golden.get(name)
            expected = torch.zeros_like(value) if expected is None else expected
            error = (value - expected).abs().max()
            assert error <= 1e-10, f"case {number} {cases[number]}: {name} is off by {error}"


def derivatives(golden: dict[str, Tensor], settings: dict[str, Any]) -> dict[str, Tensor]:
    """y, the first gradients, and the second-order gradients as the golden file defines them."""
    x, dy = golden["x"].requires_grad_(), golden["dy"].requires_grad_()
    b = golden["b"].requires_grad_() if "b" in golden else None
    inputs = [x] if b is None else [x, b]
    y = bias_act(x, b, **settings)
    first = torch.autograd.grad(y, inputs, dy, create_graph=True)
    tied = sum((one * golden[v]).sum() for one, v in zip(first, ("vx", "vb"), strict=False))
    second = torch.autograd.grad(tied, [*inputs, dy], allow_unused=True)
    names = ("y", "dx", "ddx", "ddy") if b is None else ("y", "dx", "db", "ddx", "ddb", "ddy")
    found = dict(zip(names, (y, *first, *second), strict=True))
    return {name: value.detach() for name, value in found.items() if value is not None}


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


def error(y: Tensor, exact: Tensor) -> float:
    return (y.double() - exact).abs().max().item()


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


def test_bfloat16_rounds_to_nearest_even_to_the_ends_of_its_range(operators: torch.device) -> None:
    # From 128 on the sum lies half way between two neighbours.
    x = torch.arange(1, 257, device=operators, dtype=torch.bfloat16)
    b = torch.full((256,), 0.5, device=operators, dtype=torch.bfloat16)
    y = bias_act(x[None], b, act="linear")
    assert torch.equal(y[0], (x.float() + 0.5).to(torch.bfloat16))
    ends = torch.tensor([1.1754944e-38, 3.3895314e38, float("inf"), float("nan")] * 32)
    ends = ends.to(operators, torch.bfloat16)[None]
    assert torch.equal(bias_act(ends, act="linear").isnan(), ends.isnan())
    assert torch.equal(bias_act(ends, act="linear").nan_to_num(1.0), ends.nan_to_num(1.0))
    # Some processors have no smaller numbers in bfloat16: such a one stays, or becomes 0.
    small = torch.full((1, 128), 9.2e-41, device=operators, dtype=torch.bfloat16)
    assert float(small[0, 0]) > 0
    y = bias_act(small, act="linear")
    assert torch.equal(y, small) or not y.any()
