"""Every implementation keeps the contract of the operators over one table of calls."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st
from operator_table import (
    CALLS,
    DTYPES,
    FILTER,
    LAYOUTS,
    LONG,
    Call,
    check,
    derivatives,
    drawn,
    filtered_call,
    modulated_call,
)
from torch import Tensor
from torch.fx.experimental.proxy_tensor import make_fx

import kernels
from kernels import abi, bias_act, modulated_bias_act, upfirdn2d
from kernels.reference import ACTIVATIONS
from kernels.registration import short_way


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
    operands = drawn(call, layout, torch.float32)
    x = operands.pop("x")
    x = x.to(operators).requires_grad_()
    y = call.operator(x, **{key: one.to(operators) for key, one in operands.items()})
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
    operands = drawn(call, "nchw", torch.float32)
    x = operands.pop("x")
    device = {key: one.to(operators) for key, one in operands.items()}
    plain = call.operator(x.to(operators), **device)
    strange = {
        "transposed": x.permute(3, 2, 0, 1).contiguous().permute(2, 3, 1, 0),
        "every second": torch.stack([x, x + 1], dim=-1)[..., 0],
        "offset": torch.cat([x.flatten()[:1], x.flatten()])[1:].reshape(x.shape),
    }
    for one in strange.values():
        found = call.operator(one.to(operators), **device)
        torch.testing.assert_close(found, plain, rtol=1e-6, atol=1e-6)
    expanded = x[:1].expand(x.shape)
    if "d" not in operands:
        found = call.operator(expanded.to(operators), **device)
        torch.testing.assert_close(
            found, call.operator(expanded.contiguous().to(operators), **device)
        )


@st.composite
def filtered_calls(draw: st.DrawFn) -> Call:
    """Any call that has a result; every second one with rates that have kernels of their own."""
    special = draw(st.booleans())
    rates = (
        st.sampled_from([(1, 1), (2, 1), (1, 2)])
        if special
        else st.tuples(*[st.integers(1, 3)] * 2)
    )
    (up_x, down_x) = rate = draw(rates)
    (up_y, down_y) = rate if special else draw(rates)
    taps = (4, 4) if special else draw(st.tuples(st.integers(1, 4), st.integers(1, 4)))
    seed = torch.Generator().manual_seed(draw(st.integers(0, 99)))
    f = torch.randn(taps, generator=seed)
    if special:
        f = draw(st.sampled_from([FILTER, LONG, f[0], f]))
    fh, fw = f.shape[0], f.shape[-1]
    padding = draw(st.tuples(*[st.integers(-2, 6)] * 4))
    shape = draw(
        st.tuples(st.integers(1, 3), st.integers(1, 40), st.integers(1, 12), st.integers(1, 12))
    )
    assume(shape[3] * up_x + padding[0] + padding[1] >= fw)
    assume(shape[2] * up_y + padding[2] + padding[3] >= fh)
    return filtered_call(
        shape,
        f,
        up=(up_x, up_y),
        down=(down_x, down_y),
        padding=padding,
        flip_filter=draw(st.booleans()),
        gain=draw(st.sampled_from([1, 4, -0.7])),
    )


@settings(
    max_examples=120,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
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
    call = modulated_call(shape, samples, act=act, clamp=clamp)  # type: ignore[arg-type]
    check(call, layout, dtype, operators)


@settings(
    max_examples=150,
    deadline=None,
    derandomize=True,
    suppress_health_check=[
        *(HealthCheck.function_scoped_fixture, HealthCheck.filter_too_much, HealthCheck.too_slow)
    ],
)
@given(
    call=filtered_calls(),
    layout=st.sampled_from(list(LAYOUTS)),
    dtype=st.sampled_from(DTYPES),
)
def test_filters_of_any_rates(
    operators: torch.device, call: Call, layout: str, dtype: torch.dtype
) -> None:
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
    operands = drawn(call, "nhwc", torch.float64)
    x = operands.pop("x")
    x = (x[:2, :2] + 0.05 * x[:2, :2].sign())[..., :4, :4].contiguous()
    cut = {"d": (2, 2), "b": (2,), "noise": (2, 1, *x.shape[2:])}
    fitted = {
        key: torch.randn(cut.get(key, ()), dtype=torch.float64).to(native) for key in operands
    }
    wanted = {key: one.requires_grad_(key != "noise") for key, one in fitted.items()}

    def operator(x: Tensor, *small: Tensor) -> Tensor:
        return call.operator(x, **dict(zip(wanted, small, strict=True)))

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
    inputs = drawn(call, "nhwc", torch.float32)
    short = derivatives(call.operator, inputs, torch.float32, native)
    with dispatched() as seen:
        through_dispatcher = derivatives(call.operator, inputs, torch.float32, native)
    ours = {one.name.split(".")[1] for one in seen.calls if one.name.startswith("kernels.")}
    stages = ("", "_backward", "_double_backward")
    filtered = call.public not in (bias_act, modulated_bias_act)
    assert ours == ({"upfirdn2d"} if filtered else {f"epilogue{stage}" for stage in stages})
    for key, value in short.items():
        assert torch.equal(value, through_dispatcher[key])
    inputs = {key: one.to(native).requires_grad_(key == "x") for key, one in inputs.items()}
    y = call.operator(**inputs)
    assert type(y.grad_fn).__name__.startswith("kernels::")


@pytest.mark.parametrize("name", ["lrelu clamp", "own noise", "wide blur"])
def test_without_a_graph_the_kernel_is_called_alone_and_a_profiler_still_sees_the_operator(
    name: str, native: torch.device, monkeypatch: pytest.MonkeyPatch
) -> None:
    call = CALLS[name]
    operands = drawn(call, "nhwc", torch.float32)
    x = operands.pop("x")
    x, operands = x.to(native), {k: v.to(native) for k, v in operands.items()}
    expected = call.operator(x.clone().requires_grad_(), **operands).detach()
    with torch.profiler.profile():
        recorded = call.operator(x.clone().requires_grad_(), **operands)
    assert type(recorded.grad_fn).__name__.startswith("kernels::")  # the way without a profiler
    with torch.no_grad():
        with torch.profiler.profile() as watched:
            profiled = call.operator(x, **operands)
        monkeypatch.setattr(torch.autograd.Function, "apply", None)
        alone = call.operator(x.clone().requires_grad_(), **operands)
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


def test_the_short_way_to_an_operator_skips_the_dispatcher_only_where_nobody_looks(
    dispatched: type, operators: torch.device
) -> None:
    x = torch.randn(2, 16, 8, 8, device=operators)
    with dispatched() as seen:
        y = bias_act(x, act="lrelu")
    ours = {name for name in (one.name for one in seen.calls) if name.startswith("kernels.")}
    assert ours <= {"kernels.epilogue.default"}
    operator = torch.ops.kernels.epilogue.default
    arguments = (x, None, None, None, None, 1, abi.ACTS["lrelu"], 0.2, 2**0.5, -1.0)
    if ours:
        assert torch.equal(short_way(operator)(*arguments), y)
    with dispatched() as seen:
        short_way(operator)(torch.empty_like(x, device="meta"), *arguments[1:])
    assert seen.calls[-1].name == "kernels.epilogue.default"
    assert short_way(torch.ops.aten.mul.Tensor) is torch.ops.aten.mul.Tensor
    for name in ("epilogue_backward", "epilogue_double_backward", "upfirdn2d", "conv3x3"):
        overload = getattr(torch.ops.kernels, name).default
        assert short_way(overload) is not overload
