"""A second of checks of the compiled operators against the reference, for `stylegan-mix doctor`.

Every operator runs forward, backward and, where gradient penalties need it, backward again.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor

import kernels
from kernels import dispatch, native, toolchain
from kernels.errors import NativeUnavailable

__all__ = ["Outcome", "findings", "forced", "outcomes"]

Operator = Callable[..., Tensor]
DTYPES = (torch.float64, torch.float32, torch.bfloat16)
LAYOUTS = (torch.contiguous_format, torch.channels_last)


@dataclass(frozen=True)
class Outcome:
    """An operator's largest error against float64, as a share of a result's largest value."""

    operator: str
    dtype: torch.dtype
    error: float

    @property
    def allowed(self) -> float:
        """The largest error allowed: two roundings of the result and two of its gradient."""
        return 4 * torch.finfo(self.dtype).eps

    @property
    def good(self) -> bool:
        return self.error <= self.allowed  # NaN is not


def outcomes(device: str = "cpu") -> list[Outcome]:
    """Checks each operator in each dtype. Raises `NativeUnavailable` without compiled operators."""
    native.library(device)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # more threads only wait for one another on a busy machine
    try:
        return [_outcome(name, dtype, device) for name in _OPERATORS for dtype in DTYPES]
    finally:
        torch.set_num_threads(threads)


def _outcome(name: str, dtype: torch.dtype, device: str) -> Outcome:
    shares = []
    for layout in LAYOUTS:
        with forced("reference"):
            truth = _derivatives(name, dtype, torch.float64, device, layout)
        with forced("native"):
            found = _derivatives(name, dtype, dtype, device, layout)
        for one, true in zip(found, truth, strict=True):
            largest = true.abs().max().clamp(min=1e-30)
            shares.append((one.double() - true).abs().max() / largest)
    return Outcome(name, dtype, float(torch.stack(shares).max()))  # NaN stays NaN


@contextmanager
def forced(choice: str) -> Iterator[None]:
    """Sets KERNELS to `choice` for as long as the context lasts."""
    before = os.environ.get("KERNELS")
    os.environ["KERNELS"] = choice
    try:
        yield
    finally:
        if before is None:
            del os.environ["KERNELS"]
        else:
            os.environ["KERNELS"] = before


# --------------------------------------------------------------------- the operators' arguments


def _bias_act(x: Tensor, b: Tensor, **_: Tensor) -> Tensor:
    return kernels.bias_act(x, b, act="swish", clamp=1.5)


def _modulated_bias_act(x: Tensor, b: Tensor, **more: Tensor) -> Tensor:
    return kernels.modulated_bias_act(x, more["d"], b, noise=more["noise"], strength=more["s"])


def _upfirdn2d(x: Tensor, **_: Tensor) -> Tensor:
    f = kernels.setup_filter([1.0, 3.0, 3.0, 1.0]).to(x.device)
    return kernels.upfirdn2d(x, f, up=2, padding=(2, 1, 2, 1), gain=4)


def _conv3x3(x: Tensor, **more: Tensor) -> Tensor:
    return kernels.conv3x3(x, more["w"])


def _batch_norm_relu(x: Tensor, b: Tensor, **more: Tensor) -> Tensor:
    mean, var = torch.zeros_like(b.detach()), torch.ones_like(b.detach())
    # Of nothing: PyTorch would round a sum in bfloat16 before it takes its sign.
    residual = torch.zeros_like(x.detach())
    return kernels.batch_norm_relu(x, mean, var, more["d"][0], b, residual, training=True)


_OPERATORS: dict[str, Operator] = {
    "bias_act": _bias_act,
    "modulated_bias_act": _modulated_bias_act,
    "upfirdn2d": _upfirdn2d,
    "conv3x3": _conv3x3,
    "batch_norm_relu": _batch_norm_relu,
}
# PyTorch computes the second derivative of these.
_ONCE = ("batch_norm_relu",)


def _derivatives(
    name: str, rounded: torch.dtype, kind: torch.dtype, device: str, layout: torch.memory_format
) -> list[Tensor]:
    """Computes y, dx, db and their derivatives in `kind`, on operands rounded to `rounded`."""
    generator = torch.Generator().manual_seed(0)

    def operand(*shape: int) -> Tensor:
        values = torch.randn(shape, generator=generator).to(rounded).to(device, kind)
        return values.contiguous(memory_format=layout) if len(shape) == 4 else values

    x, b, d = operand(3, 16, 12, 12), operand(16), operand(3, 16)
    more = {"d": d, "noise": operand(3, 1, 12, 12), "s": operand(1), "w": operand(16, 16, 3, 3)}
    wanted = [x.requires_grad_(), b.requires_grad_()]
    y = _OPERATORS[name](x, b=b, **more)
    dy = operand(*y.shape).requires_grad_()
    gradients = partial(torch.autograd.grad, materialize_grads=True)
    first = gradients([y], wanted, [dy], create_graph=True)
    used = [one for one in first if one.requires_grad]
    if name in _ONCE:
        return [one.detach() for one in (y, *first)]
    again = gradients(used, [x, dy], [torch.ones_like(one) for one in used])
    return [one.detach() for one in (y, *first, *again)]


# --------------------------------------------------------------------- the doctor's report


def findings() -> dict[str, str]:
    """Lists the operators that run here and the reason, for each device: name -> finding."""
    devices = ["cpu", "cuda"] if torch.cuda.is_available() else ["cpu"]
    return {
        (name if device == "cpu" else f"{device} {name}"): text
        for device in devices
        for name, text in _findings(device).items()
    }


def _findings(device: str) -> dict[str, str]:
    asked = f"KERNELS={os.environ.get('KERNELS') or 'auto'}"
    found = {"operators": f"reference ({asked})", "compiler": _compiler(device)}
    if asked == "KERNELS=reference":
        return found
    try:
        built = native.library(device).built
        dispatch.enabled(device)
    except (NativeUnavailable, ValueError) as error:
        instead = "reference" if asked == "KERNELS=auto" else "none"
        return {**found, "operators": f"{instead} ({asked}): {error}"}
    return {
        **found,
        "operators": f"native ({asked}): {built.isa}, made by {built.facts['compiler']}",
        "library": str(built.path),
        "self-check": _judged(device),
    }


def _compiler(device: str) -> str:
    try:
        tools = toolchain.find(toolchain.target_for(device))
    except NativeUnavailable as error:
        return f"none: {error}"
    return f"{tools.program} ({tools.version})"


def _judged(device: str) -> str:
    started = time.perf_counter()
    try:
        found = outcomes(device)
    except Exception as error:  # noqa: BLE001  (a doctor reports what is wrong, whatever it is)
        return f"FAILED: {type(error).__name__}: {error}"
    wrong = [outcome for outcome in found if not outcome.good]
    if wrong:
        told = "; ".join(
            f"{one.operator} in {str(one.dtype).removeprefix('torch.')} is off by {one.error:.1g} "
            f"(at most {one.allowed:.1g})"
            for one in wrong
        )
        return f"FAILED: {told}. KERNELS=reference computes without them; please report this"
    took = time.perf_counter() - started
    return f"passed: {', '.join(_OPERATORS)} agree with the reference ({took:.1f} s)"
