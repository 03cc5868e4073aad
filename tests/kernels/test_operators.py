"""One table of calls, over which every implementation keeps the contract of the operators.

Each row is tried in every dtype and layout: the value, the first and the second derivatives. The
tolerance is derived: at most twice the error of the slow twin in the same dtype, and a rounding.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.fx.experimental.proxy_tensor import make_fx

import kernels
from kernels import bias_act, modulated_bias_act, reference, setup_filter, upfirdn2d
from kernels.reference import ACTIVATIONS

FILTER = setup_filter([1, 3, 3, 1])
LONG = setup_filter([1, 4, 9, 15, 21, 25, 25, 21, 15, 9, 4, 1])
LAYOUTS = {"nchw": torch.contiguous_format, "nhwc": torch.channels_last}
HALVES = (torch.bfloat16, torch.float16)
DTYPES = (torch.float64, torch.float32, *HALVES)


@dataclass(frozen=True)
class Call:
    """One call: an operator and its slow twin, the shape of x, the shapes of what else it takes."""

    operator: Callable[..., Tensor]
    twin: Callable[..., Tensor]
    shape: tuple[int, ...]
    operands: dict[str, tuple[int, ...]] = field(default_factory=dict)
    settings: dict[str, Any] = field(default_factory=dict)

    def __call__(self, twin: bool, x: Tensor, operands: dict[str, Tensor]) -> Tensor:
        return (self.twin if twin else self.operator)(x, **operands, **self.settings)


def _bias_act(shape: tuple[int, ...], dim: int = 1, *, bias: bool = True, **rest: Any) -> Call:
    operands = {"b": (shape[dim],)} if bias else {}
    return Call(bias_act, reference.bias_act, shape, operands, {"dim": dim, **rest})


def _modulated(shape: tuple[int, ...], noise: int | None, **rest: Any) -> Call:
    n, c, h, w = shape
    operands: dict[str, tuple[int, ...]] = {"d": (n, c), "b": (c,)}
    if noise is not None:
        operands |= {"noise": (noise, 1, h, w), "strength": ()}
    return Call(modulated_bias_act, reference.modulated_bias_act, shape, operands, rest)


def _filtered(shape: tuple[int, ...], f: Tensor | None, **rest: Any) -> Call:
    def operator(x: Tensor, **arguments: Any) -> Tensor:
        taps = None if f is None else f.to(x.device)
        return upfirdn2d(x, taps, **arguments)

    def twin(x: Tensor, *, flip_filter: bool = False, gain: float = 1, **arguments: Any) -> Tensor:
        full: dict[str, Any] = {"up": 1, "down": 1, "padding": 0, **arguments}
        for name, length in (("up", 2), ("down", 2), ("padding", 4)):
            full[name] = (full[name],) * length if isinstance(full[name], int) else full[name]
        taps = torch.ones(1, 1) if f is None else f.double()
        taps = taps[:, None] * taps[None, :] if taps.ndim == 1 else taps
        return reference.upfirdn2d(x, taps, flip_filter=flip_filter, gain=gain, **full)

    return Call(operator, twin, shape, {}, rest)


CALLS: dict[str, Call] = {
    **{f"{act} clamp": _bias_act((3, 5, 4, 6), act=act, clamp=0.9) for act in ACTIVATIONS},
    **{f"{act} plain": _bias_act((2, 17, 3, 3), act=act) for act in ACTIVATIONS},
    "odd gains": _bias_act((2, 3, 5, 7), act="lrelu", gain=-1.5, alpha=-0.3),
    "no bias": _bias_act((2, 3, 5, 7), bias=False, act="lrelu"),
    "first axis": _bias_act((5, 3), 0, act="lrelu", clamp=1.0),
    "last axis": _bias_act((2, 3, 5), -1, act="tanh"),
    "inner axis": _bias_act((2, 3, 5, 4), 2, act="relu"),
    "dense layer": _bias_act((32, 100), act="lrelu"),
    "one value": _bias_act((1, 1, 1, 1), act="lrelu"),
    "nothing": _bias_act((0, 4, 2, 2), act="lrelu", clamp=1.0),
    "no pixels": _bias_act((2, 4, 0, 3), act="lrelu"),
    "many blocks": _bias_act((4, 70, 33, 9), act="lrelu", clamp=2.0),
    "demodulated": _modulated((3, 5, 4, 6), None),
    "own noise": _modulated((3, 5, 4, 6), 3, clamp=1.0),
    "shared noise": _modulated((3, 20, 5, 3), 1, gain=0.7),
    "smooth epilogue": _modulated((2, 6, 3, 5), 2, act="swish"),
    "one pixel": _modulated((3, 18, 1, 1), 3),
    "to rgb": _modulated((2, 3, 8, 8), None, act="linear", clamp=0.8),
    "epilogue of nothing": _modulated((2, 0, 4, 4), 2),
    "epilogue of many": _modulated((5, 40, 16, 16), 5, clamp=3.0),
    "blur": _filtered((2, 5, 8, 8), FILTER, padding=1, gain=4),
    "wide blur": _filtered((2, 33, 17, 16), FILTER, padding=2),
    "up": _filtered((2, 3, 8, 6), FILTER, up=2, padding=(2, 1, 2, 1), gain=4),
    "down": _filtered((3, 16, 8, 10), FILTER, down=2, padding=1),
    "up of 4x4": _filtered((2, 20, 4, 4), FILTER, up=2, padding=(2, 1, 2, 1), gain=4),
    "long up": _filtered((2, 3, 9, 8), LONG, up=2, padding=(6, 5, 6, 5), gain=4),
    "long down": _filtered((2, 3, 20, 18), LONG, down=2, padding=5, flip_filter=True),
    "crop": _filtered((1, 4, 9, 9), FILTER, padding=(-1, 2, 3, -2), flip_filter=True),
    "odd rates": _filtered(
        (2, 3, 7, 5), setup_filter([[1, 2, 0], [3, -1, 5]], normalize=False), up=(2, 3), down=(3, 1)
    ),
    "identity": _filtered((2, 3, 4, 4), None),
    "filter of nothing": _filtered((0, 3, 8, 8), FILTER, padding=1),
}


def drawn(call: Call, layout: str, dtype: torch.dtype) -> tuple[Tensor, dict[str, Tensor]]:
    """x in that layout, and the operands; the same for every implementation."""
    torch.manual_seed(0)
    x = torch.randn(call.shape, dtype=torch.float64).to(dtype)
    if x.ndim == 4:
        x = x.contiguous(memory_format=LAYOUTS[layout])
    small = {
        name: torch.randn(shape, dtype=torch.float64).to(dtype)
        for name, shape in call.operands.items()
    }
    return x, small


def derivatives(
    call: Call, twin: bool, x: Tensor, operands: dict[str, Tensor], device: torch.device
) -> dict[str, Tensor]:
    """The value, the first gradients, and the gradients of a product of those with constants."""
    inputs = {"x": x, **operands}
    inputs = {name: one.detach().to(device) for name, one in inputs.items()}
    wanted = {name: one.requires_grad_() for name, one in inputs.items() if name != "noise"}
    y = call(twin, wanted["x"], {name: one for name, one in inputs.items() if name != "x"})
    dy = torch.linspace(-1, 2, y.numel(), dtype=torch.float64).reshape(y.shape)
    dy = dy.to(y.dtype).to(device).requires_grad_()
    first = torch.autograd.grad(y, list(wanted.values()), dy, create_graph=True)
    tied = sum(
        (
            one
            * torch.linspace(1, -2, one.numel(), dtype=one.dtype, device=device).reshape(one.shape)
        ).sum()
        for one in first
    )
    second = torch.autograd.grad(tied, [dy, *wanted.values()], allow_unused=True)
    names = [f"d{name}" for name in wanted], ["ddy", *(f"dd{name}" for name in wanted)]
    found = dict(zip(("y", *names[0], *names[1]), (y, *first, *second), strict=True))
    return {name: value.detach().cpu() for name, value in found.items() if value is not None}


def check(call: Call, layout: str, dtype: torch.dtype, device: torch.device) -> None:
    x, operands = drawn(call, layout, dtype)
    cpu = torch.device("cpu")
    wide = {name: one.double() for name, one in operands.items()}
    exact = derivatives(call, True, x.double(), wide, cpu)
    slow = derivatives(call, True, x, operands, cpu)
    fast = derivatives(call, False, x, operands, device)
    if kernels.backend(device) == "reference" and dtype in HALVES:
        # x + b is rounded before its sign is taken, which near a kink turns the slope over.
        fast = {"y": fast["y"]}
    for name, value in fast.items():
        wanted = exact.get(name)
        wanted = torch.zeros_like(value, dtype=torch.float64) if wanted is None else wanted
        assert value.shape == wanted.shape
        if value.numel() == 0:
            continue
        bound = 2 * error(slow.get(name, wanted), wanted) + rounding(dtype, wanted, x)
        assert error(value, wanted) <= bound, f"{name} is off by {error(value, wanted)}"


def error(value: Tensor, exact: Tensor) -> float:
    return (value.double() - exact).abs().max().item()


def rounding(dtype: torch.dtype, exact: Tensor, x: Tensor) -> float:
    """Two roundings of the largest value; of a sum over pixels, as errors of so many add up."""
    summed = max(x.numel() / exact.numel(), 1.0) ** 0.5
    return 4 * torch.finfo(dtype).eps * max(exact.abs().max().item(), 1.0) * summed


@pytest.mark.parametrize("dtype", DTYPES, ids=lambda dtype: str(dtype).removeprefix("torch."))
@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("name", CALLS)
def test_value_and_both_derivatives(
    name: str, layout: str, dtype: torch.dtype, operators: torch.device
) -> None:
    check(CALLS[name], layout, dtype, operators)


def _keeps(call: Call) -> bool:
    """Whether the layout of images is promised to stay, so that it shows."""
    bias_elsewhere = "b" in call.operands and call.settings.get("dim", 1) != 1
    return len(call.shape) == 4 and math.prod(call.shape) > 0 and not bias_elsewhere


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("name", [name for name, call in CALLS.items() if _keeps(call)])
def test_layout_is_kept(name: str, layout: str, operators: torch.device) -> None:
    call = CALLS[name]
    x, operands = drawn(call, layout, torch.float32)
    x = x.to(operators).requires_grad_()
    y = call(False, x, {key: one.to(operators) for key, one in operands.items()})
    (dx,) = torch.autograd.grad(y, x, torch.ones_like(y))
    for one in (y, dx):
        assert one.is_contiguous(memory_format=LAYOUTS[layout])


@pytest.mark.parametrize(
    ("shape", "layout", "dim"),
    [
        ((2, 3, 5, 4), torch.channels_last, 2),
        ((2, 3, 5, 4), torch.channels_last, 0),
        ((2, 3, 5, 4), torch.contiguous_format, 2),
        ((2, 3, 4, 5, 2), torch.channels_last_3d, 1),
    ],
)
def test_a_bias_elsewhere_or_another_layout_gives_the_same_in_a_contiguous_result(
    shape: tuple[int, ...], layout: torch.memory_format, dim: int, operators: torch.device
) -> None:
    x, b = torch.randn(shape), torch.randn(shape[dim], device=operators)
    found = []
    for memory_format in (layout, torch.contiguous_format):
        one = x.to(operators).contiguous(memory_format=memory_format).requires_grad_()
        y = bias_act(one, b, dim=dim, act="lrelu", clamp=1.0)
        (dx,) = torch.autograd.grad(y, one, torch.ones_like(y))
        found.append((y, dx))
    for one, other in zip(*found, strict=True):
        assert torch.equal(one, other)
        assert one.is_contiguous() or kernels.backend(operators) == "reference"


@pytest.mark.parametrize("name", ["many blocks", "epilogue of many", "wide blur"])
def test_strange_strides_are_read_rightly(name: str, operators: torch.device) -> None:
    call = CALLS[name]
    x, operands = drawn(call, "nchw", torch.float32)
    device = {key: one.to(operators) for key, one in operands.items()}
    plain = call(False, x.to(operators), device)
    strange = {
        "transposed": x.permute(3, 2, 0, 1).contiguous().permute(2, 3, 1, 0),
        "every second": torch.stack([x, x + 1], dim=-1)[..., 0],
        "offset": torch.cat([x.flatten()[:1], x.flatten()])[1:].reshape(x.shape),
    }
    for one in strange.values():
        found = call(False, one.to(operators), device)
        torch.testing.assert_close(found, plain, rtol=1e-6, atol=1e-6)
    expanded = x[:1].expand(x.shape)
    if "d" not in operands:
        found = call(False, expanded.to(operators), device)
        torch.testing.assert_close(found, call(False, expanded.contiguous().to(operators), device))


@settings(
    max_examples=120,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(
    shape=st.tuples(st.integers(1, 3), st.integers(1, 40), st.integers(1, 9), st.integers(1, 9)),
    act=st.sampled_from(list(ACTIVATIONS)),
    noise=st.sampled_from([None, 1, "each"]),
    clamp=st.sampled_from([None, 0.7]),
    layout=st.sampled_from(list(LAYOUTS)),
    dtype=st.sampled_from([torch.float32, torch.bfloat16]),
)
def test_epilogues_of_any_shape(
    operators: torch.device,
    shape: tuple[int, ...],
    act: str,
    noise: int | str | None,
    clamp: float | None,
    layout: str,
    dtype: torch.dtype,
) -> None:
    samples = shape[0] if noise == "each" else noise
    call = _modulated(shape, samples, act=act, clamp=clamp)  # type: ignore[arg-type]
    check(call, layout, dtype, operators)


# --------------------------------------------------------------------- PyTorch's own contract


def _samples() -> dict[str, tuple[Any, tuple[Any, ...]]]:
    x = torch.randn(2, 3, 4, 4, requires_grad=True)
    last = torch.randn(2, 3, 4, 4).to(memory_format=torch.channels_last).requires_grad_()
    d, b = torch.rand(2, 3, requires_grad=True), torch.randn(3, requires_grad=True)
    noise, strength = torch.randn(2, 1, 4, 4), torch.tensor(0.3, requires_grad=True)
    ops = torch.ops.kernels
    facts = (1, 2, 0.2, 1.4, 1.0)
    return {
        "epilogue": (ops.epilogue, (x, d, noise, strength, b, *facts)),
        "plain": (ops.epilogue, (last, None, None, None, b, *facts)),
        "smooth": (ops.epilogue, (last, d, None, None, None, 1, 3, 0.0, 1.0, -1.0)),
        "backward": (
            ops.epilogue_backward,
            (x.detach(), last, d, noise, strength, b, *facts, False, [True] * 4),
        ),
        "backward from y": (
            ops.epilogue_backward,
            (x, last.detach(), None, None, None, b, *facts, True, [True, False, False, True]),
        ),
        "double backward": (
            ops.epilogue_double_backward,
            (
                *(x.detach(), last.detach(), d.detach(), noise, strength.detach(), b.detach()),
                *facts,
                False,
                x.detach(),
                d.detach(),
                None,
                b.detach(),
                [True] * 5,
            ),
        ),
        "upfirdn2d": (
            ops.upfirdn2d,
            (x, FILTER, [2, 1, 2, 1], [1, 2, 1, 1], False, 4.0),
        ),
        "separable": (ops.upfirdn2d, (last, LONG, [2, 1, 6, 5], [2, 1, 6, 5], True, 4.0)),
    }


@pytest.mark.parametrize("name", _samples())
def test_registration_keeps_the_rules_of_pytorch(name: str, native: torch.device) -> None:
    operator, arguments = _samples()[name]
    moved = tuple(
        one.detach().to(native).requires_grad_(one.requires_grad)
        if isinstance(one, Tensor)
        else one
        for one in arguments
    )
    torch.library.opcheck(operator.default, moved)


@pytest.mark.parametrize("name", ["lrelu clamp", "swish plain", "own noise", "up", "crop"])
def test_derivatives_agree_with_differences(name: str, native: torch.device) -> None:
    call = CALLS[name]
    x, operands = drawn(call, "nhwc", torch.float64)
    x = (x[:2, :2] + 0.05 * x[:2, :2].sign())[..., :4, :4].contiguous()
    cut = {"d": (2, 2), "b": (2,), "noise": (2, 1, *x.shape[2:])}
    fitted = {
        key: torch.randn(cut.get(key, ()), dtype=torch.float64).to(native) for key in operands
    }
    wanted = {key: one.requires_grad_(key != "noise") for key, one in fitted.items()}

    def operator(x: Tensor, *small: Tensor) -> Tensor:
        return call(False, x, dict(zip(wanted, small, strict=True)))

    inputs = (x.to(native).requires_grad_(), *wanted.values())
    assert torch.autograd.gradcheck(operator, inputs)
    assert torch.autograd.gradgradcheck(operator, inputs)


def test_a_third_derivative_is_refused_and_not_wrong(native: torch.device) -> None:
    x = torch.randn(2, 3, device=native, requires_grad=True)
    value = bias_act(x, act="tanh")
    for _ in range(2):
        (value,) = torch.autograd.grad(value.sum(), x, create_graph=True)
    with pytest.raises(NotImplementedError, match="KERNELS=reference"):
        torch.autograd.grad(value.sum(), x)


def _critic(weight: Tensor, bias: Tensor, f: Tensor, images: Tensor) -> Tensor:
    """Convolution, filter, activation: what the R1 penalty differentiates twice."""
    x = torch.nn.functional.conv2d(images, weight, padding=1)
    x = bias_act(x, bias, act="lrelu")
    return upfirdn2d(x, f, down=2, padding=1).square().sum(dim=(1, 2, 3))


def _penalty(weight: Tensor, bias: Tensor, f: Tensor, images: Tensor) -> Sequence[Tensor]:
    logits = _critic(weight, bias, f, images)
    (slope,) = torch.autograd.grad(logits.sum(), images, create_graph=True)
    return torch.autograd.grad(slope.square().sum(), [weight, bias])


def _critics(device: torch.device) -> list[Tensor]:
    weight, bias = torch.randn(4, 3, 3, 3, device=device), torch.randn(4, device=device)
    images = torch.randn(2, 3, 8, 8, device=device)
    drawn = [one.requires_grad_() for one in (weight, bias, images)]
    return [*drawn[:2], FILTER.to(device), drawn[2]]


def test_the_gradient_penalty_traces_into_one_graph_of_operators(native: torch.device) -> None:
    tensors = _critics(native)
    eager = _penalty(*tensors)
    graph = make_fx(_penalty, tracing_mode="fake")(*tensors)
    called = {str(node.target) for node in graph.graph.nodes if node.op == "call_function"}
    assert {"kernels.epilogue_backward.default", "kernels.upfirdn2d.default"} <= called
    with torch.no_grad():
        traced = graph(*tensors)
    for one, other in zip(traced, eager, strict=True):
        torch.testing.assert_close(one, other)


@pytest.mark.parametrize("name", ["lrelu clamp", "swish plain", "own noise", "wide blur", "up"])
def test_the_short_way_is_taken_unless_watched_and_answers_the_same(
    name: str, native: torch.device, dispatched: type
) -> None:
    call = CALLS[name]
    x, operands = drawn(call, "nhwc", torch.float32)
    short = derivatives(call, False, x, operands, native)
    with dispatched() as seen:
        through_dispatcher = derivatives(call, False, x, operands, native)
    ours = {one.name.split(".")[1] for one in seen.calls if one.name.startswith("kernels.")}
    stages = ("", "_backward", "_double_backward")
    filtered = call.operator not in (bias_act, modulated_bias_act)
    assert ours == ({"upfirdn2d"} if filtered else {f"epilogue{stage}" for stage in stages})
    for key, value in short.items():
        assert torch.equal(value, through_dispatcher[key])
    y = call(False, x.to(native).requires_grad_(), {k: v.to(native) for k, v in operands.items()})
    assert type(y.grad_fn).__name__.startswith("kernels::")


@pytest.mark.parametrize("name", ["lrelu clamp", "own noise", "wide blur"])
def test_without_a_graph_the_kernel_is_called_alone_and_a_profiler_still_sees_the_operator(
    name: str, native: torch.device, monkeypatch: pytest.MonkeyPatch
) -> None:
    call = CALLS[name]
    x, operands = drawn(call, "nhwc", torch.float32)
    x, operands = x.to(native), {k: v.to(native) for k, v in operands.items()}
    expected = call(False, x.clone().requires_grad_(), operands).detach()
    with torch.no_grad():
        with torch.profiler.profile() as watched:
            profiled = call(False, x, operands)
        monkeypatch.setattr(torch.autograd.Function, "apply", None)
        alone = call(False, x.clone().requires_grad_(), operands)
    assert any(event.key.startswith("kernels::") for event in watched.key_averages())
    assert torch.equal(alone, expected)
    assert torch.equal(profiled, expected)
    assert not alone.requires_grad


@pytest.mark.filterwarnings("ignore:There is a performance drop")
def test_a_mapped_call_sees_the_registered_operator(native: torch.device) -> None:
    x = torch.randn(3, 2, 3, 4, 4, device=native)
    mapped = torch.vmap(lambda one: bias_act(one, act="lrelu"))(x)
    assert torch.equal(mapped, bias_act(x, dim=2, act="lrelu"))


def test_compile_sees_operators_and_breaks_no_graph(native: torch.device) -> None:
    tensors = _critics(native)
    compiled = torch.compile(_critic, backend="aot_eager", fullgraph=True)
    torch.testing.assert_close(compiled(*tensors), _critic(*tensors))
