"""Registering an operator with its gradient, and calling it without the dispatcher.

PyTorch's dispatcher shows a registered operator to modes, transforms and compilers. That takes
longer than the work on a small tensor: 10 µs a call, 40 µs if a graph is recorded. A training step
of StyleGAN2 makes two hundred calls. So if no mode, transform or compiler is active, the operator
is called as an autograd Function of the same three parts: its kernel, the tensors it keeps, its
derivative. If no graph is recorded either, its kernel is called alone, which saves 5 µs more.
A profiler sees the Function under the operator's name. It is no reason to take the dispatcher:
that made a profiled step half as long again, and the profile blamed the operators for it.

Schemas are registered here and not by TORCH_LIBRARY in C++. So the build needs none of PyTorch's
headers (7 s of compiling for torch/library.h, 27 s for torch/extension.h, in each source), the
library fits every PyTorch, and one interface in plain C (csrc/abi.h) serves both devices. The price
is some µs a call, for the Python between the dispatcher and the kernel.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.nn import Parameter

__all__ = ["register", "short_way"]

_LIBRARY = torch.library.Library("kernels", "FRAGMENT")
_DEVICES = ("CPU", "CUDA")
# Each registered operator -> the function that calls it.
_CALLS: dict[torch._ops.OpOverload, Callable[..., Any]] = {}


def register(
    schema: str,
    *,
    kernel: Callable[..., Any],
    fake: Callable[..., Any],
    keep: Callable[..., None],
    differentiate: Callable[..., Any],
) -> Callable[..., Any]:
    """Defines `kernels::<schema>`; returns its caller, which skips the dispatcher if safe.

    `kernel` computes, on any device. `fake` makes outputs without values. `keep(ctx, inputs,
    output)` and `differentiate(ctx, *cotangents)` are those of `torch.library.register_autograd`.
    """
    name = schema.partition("(")[0]
    known_as = f"kernels::{name}"
    _LIBRARY.define(schema)
    for device in _DEVICES:
        _LIBRARY.impl(name, kernel, device)
    torch.library.register_fake(known_as, fake, lib=_LIBRARY)
    torch.library.register_autograd(known_as, differentiate, setup_context=keep, lib=_LIBRARY)

    # Both in one: PyTorch looks up the signature at every call of a forward without a context.
    def forward(ctx: Any, *inputs: Any) -> Any:
        output = kernel(*inputs)
        if any(ctx.needs_input_grad):
            keep(ctx, inputs, output)
        return output

    parts = {"forward": staticmethod(forward), "backward": staticmethod(differentiate)}
    function: Any = type(known_as, (torch.autograd.Function,), parts)  # profilers show its name
    operator = getattr(torch.ops.kernels, name).default

    def call(x: Tensor, *rest: Any) -> Any:
        if _watched(x):
            return operator(x, *rest)
        if torch.is_grad_enabled() or torch.autograd._profiler_enabled():
            return function.apply(x, *rest)
        return kernel(x, *rest)

    _CALLS[operator] = call
    return call


def short_way(operator: Callable[..., Any]) -> Callable[..., Any]:
    """Returns the faster function that equals `operator`, or `operator` if it is not one of ours.

    For code that records the operators seen by a dispatch mode and calls them again. Arguments are
    the same, by position.
    """
    return _CALLS.get(operator, operator)  # type: ignore[call-overload]


def _watched(x: Tensor) -> bool:
    """Tells if a compiler, a trace, a mode, a transform or a subclass is watching."""
    return (
        torch.compiler.is_compiling()
        or type(x) not in (Tensor, Parameter)
        or torch._C._len_torch_dispatch_stack() > 0
        or torch._C._functorch.peek_interpreter_stack() is not None
        or torch.jit.is_tracing()
    )
