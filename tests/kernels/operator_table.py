"""One table of calls, and the tolerance within which every implementation keeps their contract.

`check` tries a call in a dtype and a layout: the value, the first and the second derivatives. The
error is at most twice that of the slow twin in the same dtype, and what rounding the result adds.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

import kernels
from kernels import bias_act, modulated_bias_act, reference, setup_filter, upfirdn2d
from kernels.reference import ACTIVATIONS

FILTER = setup_filter([1, 3, 3, 1])
LONG = setup_filter([1, 4, 9, 15, 21, 25, 25, 21, 15, 9, 4, 1])
LAYOUTS = {"nchw": torch.contiguous_format, "nhwc": torch.channels_last}
HALVES = (torch.bfloat16, torch.float16)
DTYPES = (torch.float64, torch.float32, *HALVES)

CPU = torch.device("cpu")
ZERO = torch.zeros(1)
LARGEST = 2.0  # of the constants that `derivatives` multiplies with


@dataclass(frozen=True)
class Call:
    """One call: an operator and its slow twin, the shape of x, the shapes of what else it takes."""

    public: Callable[..., Tensor]
    slow: Callable[..., Tensor]
    shape: tuple[int, ...]
    operands: dict[str, tuple[int, ...]] = field(default_factory=dict)
    settings: dict[str, Any] = field(default_factory=dict)
    taps: float = 0.0  # of a filter: the sum of their sizes, with the gain

    def operator(self, x: Tensor, **operands: Tensor) -> Tensor:
        return self.public(x, **operands, **self.settings)

    def twin(self, x: Tensor, **operands: Tensor) -> Tensor:
        return self.slow(x, **operands, **self.settings)

    def spread(self, x: Tensor, **operands: Tensor) -> Tensor:
        """The slow twin with operands of x's shape."""
        if "d" in operands:
            x = x * operands["d"]
        if "noise" in operands:
            x = x + operands["noise"] * operands["strength"]
        rest = {name: value for name, value in self.settings.items() if name != "dim"}
        x = x + operands["b"] if "b" in operands else x
        return reference.bias_act(x, **({"act": "lrelu"} | rest))

    def place(self, operand: str, value: Tensor) -> list[int]:
        """The shape in which an operand meets x."""
        if operand == "d":
            return [*value.shape, 1, 1]
        if operand == "b":
            axes = len(self.shape)
            dim = self.settings.get("dim", 1) % axes
            return [len(value) if axis == dim else 1 for axis in range(axes)]
        return list(value.shape) or [1] * len(self.shape)


def biased_call(shape: tuple[int, ...], dim: int = 1, *, bias: bool = True, **rest: Any) -> Call:
    operands = {"b": (shape[dim],)} if bias else {}
    return Call(bias_act, reference.bias_act, shape, operands, {"dim": dim, **rest})


def modulated_call(shape: tuple[int, ...], noise: int | None, **rest: Any) -> Call:
    n, c, h, w = shape
    operands: dict[str, tuple[int, ...]] = {"d": (n, c), "b": (c,)}
    if noise is not None:
        operands |= {"noise": (noise, 1, h, w), "strength": ()}
    return Call(modulated_bias_act, reference.modulated_bias_act, shape, operands, rest)


def filtered_call(shape: tuple[int, ...], f: Tensor | None, **rest: Any) -> Call:
    whole = torch.ones(1, 1) if f is None else f.double()
    whole = whole[:, None] * whole[None, :] if whole.ndim == 1 else whole

    def operator(x: Tensor, **arguments: Any) -> Tensor:
        return upfirdn2d(x, None if f is None else f.to(x.device), **arguments)

    def twin(x: Tensor, *, flip_filter: bool = False, gain: float = 1, **arguments: Any) -> Tensor:
        full: dict[str, Any] = {"up": 1, "down": 1, "padding": 0, **arguments}
        for name, length in (("up", 2), ("down", 2), ("padding", 4)):
            full[name] = (full[name],) * length if isinstance(full[name], int) else full[name]
        return reference.upfirdn2d(x, whole, flip_filter=flip_filter, gain=gain, **full)

    taps = abs(rest.get("gain", 1)) * whole.abs().sum().item()
    return Call(operator, twin, shape, {}, rest, taps)


CALLS: dict[str, Call] = {
    **{f"{act} clamp": biased_call((3, 5, 4, 6), act=act, clamp=0.9) for act in ACTIVATIONS},
    **{f"{act} plain": biased_call((2, 17, 3, 3), act=act) for act in ACTIVATIONS},
    "odd gains": biased_call((2, 3, 5, 7), act="lrelu", gain=-1.5, alpha=-0.3),
    "no bias": biased_call((2, 3, 5, 7), bias=False, act="lrelu"),
    "first axis": biased_call((5, 3), 0, act="lrelu", clamp=1.0),
    "last axis": biased_call((2, 3, 5), -1, act="tanh"),
    "inner axis": biased_call((2, 3, 5, 4), 2, act="relu"),
    "dense layer": biased_call((32, 100), act="lrelu"),
    "one value": biased_call((1, 1, 1, 1), act="lrelu"),
    "nothing": biased_call((0, 4, 2, 2), act="lrelu", clamp=1.0),
    "no pixels": biased_call((2, 4, 0, 3), act="lrelu"),
    "many blocks": biased_call((4, 70, 33, 9), act="lrelu", clamp=2.0),
    "demodulated": modulated_call((3, 5, 4, 6), None),
    "own noise": modulated_call((3, 5, 4, 6), 3, clamp=1.0),
    "shared noise": modulated_call((3, 20, 5, 3), 1, gain=0.7),
    "smooth epilogue": modulated_call((2, 6, 3, 5), 2, act="swish"),
    "one pixel": modulated_call((3, 18, 1, 1), 3),
    "to rgb": modulated_call((2, 3, 8, 8), None, act="linear", clamp=0.8),
    "epilogue of nothing": modulated_call((2, 0, 4, 4), 2),
    "epilogue of many": modulated_call((5, 40, 16, 16), 5, clamp=3.0),
    "short rows of channels": modulated_call((2, 96, 6, 4), 2, clamp=3.0),
    "blur": filtered_call((2, 5, 8, 8), FILTER, padding=1, gain=4),
    "wide blur": filtered_call((2, 33, 17, 16), FILTER, padding=2),
    "up": filtered_call((2, 3, 8, 6), FILTER, up=2, padding=(2, 1, 2, 1), gain=4),
    "down": filtered_call((3, 16, 8, 10), FILTER, down=2, padding=1),
    "up of 4x4": filtered_call((2, 20, 4, 4), FILTER, up=2, padding=(2, 1, 2, 1), gain=4),
    "long up": filtered_call((2, 3, 9, 8), LONG, up=2, padding=(6, 5, 6, 5), gain=4),
    "long down": filtered_call((2, 3, 20, 18), LONG, down=2, padding=5, flip_filter=True),
    "crop": filtered_call((1, 4, 9, 9), FILTER, padding=(-1, 2, 3, -2), flip_filter=True),
    "crop of more than there is": filtered_call((1, 4, 3, 2), FILTER, padding=(-3, 6, 7, -5)),
    "crop of more after up": filtered_call((1, 4, 3, 2), FILTER, up=2, padding=(-5, 8, 9, -7)),
    "odd rates": filtered_call(
        (2, 3, 7, 5), setup_filter([[1, 2, 0], [3, -1, 5]], normalize=False), up=(2, 3), down=(3, 1)
    ),
    "identity": filtered_call((2, 3, 4, 4), None),
    "filter of nothing": filtered_call((0, 3, 8, 8), FILTER, padding=1),
}


def drawn(call: Call, layout: str, dtype: torch.dtype, seed: int = 0) -> dict[str, Tensor]:
    """x in that layout, and the operands; the same for every implementation."""
    torch.manual_seed(seed)
    x = torch.randn(call.shape, dtype=torch.float64).to(dtype)
    if x.ndim == 4:
        x = x.contiguous(memory_format=LAYOUTS[layout])
    small = {
        name: torch.randn(shape, dtype=torch.float64).to(dtype)
        for name, shape in call.operands.items()
    }
    return {"x": x, **small}


def line(start: float, end: float, like: Tensor) -> Tensor:
    """Constants on a line, in float64, of the shape of `like`."""
    return torch.linspace(start, end, like.numel(), dtype=torch.float64).reshape(like.shape)


def derivatives(
    function: Callable[..., Tensor],
    inputs: dict[str, Tensor],
    dtype: torch.dtype,
    device: torch.device = CPU,
    constants: Callable[[float, float, Tensor], Tensor] = line,
) -> dict[str, Tensor]:
    """The value, the first gradients, and the gradients of a product of those with constants.

    The constants are numbers of `dtype`, whatever the dtype in which the function computes.
    """

    def constant(start: float, end: float, like: Tensor) -> Tensor:
        return constants(start, end, like).to(dtype).to(device, like.dtype)

    inputs = {name: one.detach().to(device) for name, one in inputs.items()}
    wanted = {name: one.requires_grad_() for name, one in inputs.items() if name != "noise"}
    y = function(**inputs)
    dy = constant(-1, LARGEST, y).requires_grad_()
    first = torch.autograd.grad(y, list(wanted.values()), dy, create_graph=True)
    tied = sum((one * constant(1, -LARGEST, one)).sum() for one in first)
    second = torch.autograd.grad(tied, [dy, *wanted.values()], allow_unused=True)
    names = [f"d{name}" for name in wanted], ["ddy", *(f"dd{name}" for name in wanted)]
    found = dict(zip(("y", *names[0], *names[1]), (y, *first, *second), strict=True))
    return {name: value.detach().cpu() for name, value in found.items() if value is not None}


def check(call: Call, layout: str, dtype: torch.dtype, device: torch.device) -> None:
    """The error is at most twice that of the slow twin in the same dtype, and the roundings of
    the result in its dtype and of sums in theirs, float32 or wider.
    """
    inputs = drawn(call, layout, dtype)
    exact, twins = truth(call, inputs, dtype), errors_of_twin(call, layout, dtype)
    sums = sizes_of_sums(call, inputs)
    fast = derivatives(call.operator, inputs, dtype, device)
    if kernels.backend(device) == "reference" and call.operands and dtype in HALVES:
        # x + b is rounded before its sign is taken, which near a kink turns the slope over.
        fast = {"y": fast["y"]}
    for name, value in fast.items():
        if name not in exact:
            assert not value.any(), f"{name} must be 0"
            continue
        assert value.shape == exact[name].shape
        if value.numel() > 0:
            rounded = rounding(dtype, exact[name])
            summed = rounding(torch.promote_types(dtype, torch.float32), sums.get(name, ZERO))
            bound = 2 * twins[name] + rounded + summed
            off = error(value, exact[name])
            assert off <= bound, f"{name} is off by {off}, more than {bound}"


def truth(call: Call, inputs: dict[str, Tensor], dtype: torch.dtype) -> dict[str, Tensor]:
    """What the slow twin gives in float64 for inputs and constants of `dtype`."""
    return derivatives(call.twin, {name: one.double() for name, one in inputs.items()}, dtype)


def errors_of_twin(call: Call, layout: str, dtype: torch.dtype) -> dict[str, float]:
    """The largest error of each result of the slow twin in `dtype`.

    Of few values all may happen to be exact: further draws. In float64 the twin is its own truth;
    its errors there are those in float32, in other units.
    """
    if dtype == torch.float64:
        units = torch.finfo(torch.float64).eps / torch.finfo(torch.float32).eps
        narrow = errors_of_twin(call, layout, torch.float32)
        return {name: units * value for name, value in narrow.items()}
    found: dict[str, float] = {}
    for seed in range(8 if math.prod(call.shape) < 100 else 1):
        inputs = drawn(call, layout, dtype, seed)
        exact = truth(call, inputs, dtype)
        for name, value in derivatives(call.twin, inputs, dtype).items():
            found[name] = max(found.get(name, 0.0), error(value, exact[name]))
    return found


def sizes_of_sums(call: Call, inputs: dict[str, Tensor]) -> dict[str, Tensor]:
    """How large the partial sums of a result may be: all its terms without their signs."""
    x = inputs["x"].double()
    if call.taps:
        largest = call.taps * x.abs().amax().clamp(min=LARGEST) if x.numel() else ZERO
        return dict.fromkeys(("y", "dx", "ddy"), largest)
    # Gradients that are sums over pixels: the terms are those of operands as large as x.
    places = {name: call.place(name, one) for name, one in inputs.items() if name != "x"}
    spread = {
        name: inputs[name].double().reshape(place).expand(x.shape).contiguous()
        for name, place in places.items()
    }
    terms = derivatives(call.spread, {"x": x, **spread}, inputs["x"].dtype)
    return {
        name: terms[name].abs().sum_to_size(place)
        for operand, place in places.items()
        for name in (f"d{operand}", f"dd{operand}")
        if name in terms
    }


def rounding(dtype: torch.dtype, values: Tensor) -> float:
    """Of the largest of the values."""
    return torch.finfo(dtype).eps * values.abs().max().item()


def error(value: Tensor, exact: Tensor) -> float:
    return (value.double() - exact).abs().max().item() if value.numel() > 0 else 0.0
