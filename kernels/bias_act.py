"""y = clamp(gain * act(x + b), -clamp, clamp): the public operator, its checks and its autograd.

The gradient of the clamp is the true one for every activation: zero where the output is clamped.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from kernels import epilogue, launch, reference
from kernels.arguments import check_image, kind
from kernels.layout import accumulation_dtype
from kernels.reference import ACTIVATIONS, Activation

__all__ = ["ACTIVATIONS", "Activation", "bias_act"]

# Slope left of zero of the activations with act(g u) = g act(u) for g > 0; None: that of alpha.
_HOMOGENEOUS = {"linear": 1.0, "relu": 0.0, "lrelu": None}


def bias_act(
    x: Tensor,
    b: Tensor | None = None,
    *,
    dim: int = 1,
    act: str = "linear",
    alpha: float | None = None,
    gain: float | None = None,
    clamp: float | None = None,
) -> Tensor:
    """Computes clamp(gain * act(x + b), -clamp, clamp), twice differentiable.

    x: floating, of any shape and layout. A contiguous x is not copied, and neither is one in
    channels_last whose `dim` is 1 or that has no bias; the result keeps the layout. From other
    layouts the compiled operators make a contiguous result. b: [size of `dim`], added along `dim`,
    in the dtype of x, or in float32 if x has a shorter one. `act`: a key of `ACTIVATIONS`, which
    also holds the defaults of `alpha` (slope left of zero) and `gain`. `clamp`: largest magnitude
    of the output, None for no clamp. ValueError and TypeError name the argument that does not fit.
    """
    alpha, gain = checked("bias_act", x, b, dim, act, alpha, gain, clamp)
    if launch.takes(x):
        return epilogue.apply(x, None, None, None, b, dim, act, alpha, gain, clamp)
    b = None if b is None else b.to(x.dtype)
    slope = _HOMOGENEOUS.get(act, -1.0)
    slope = alpha if slope is None else slope
    if slope < 0 or gain <= 0:
        return reference.bias_act(x, b, dim=dim, act=act, alpha=alpha, gain=gain, clamp=clamp)
    if b is not None:
        b = b.reshape([-1 if axis == dim % x.ndim else 1 for axis in range(x.ndim)])
    return _PiecewiseLinear.apply(x, b, slope, gain, clamp)


def checked(
    operator: str,
    x: Tensor,
    b: Tensor | None,
    dim: int,
    act: str,
    alpha: float | None,
    gain: float | None,
    clamp: float | None,
) -> tuple[float, float]:
    """Checks the arguments of `operator`; returns alpha and gain, or the activation's defaults.

    Raises ValueError or TypeError, naming the argument that does not fit.
    """
    check_image(operator, x)
    if act not in ACTIVATIONS:
        raise ValueError(f"{operator}: `act` must be one of {', '.join(ACTIVATIONS)}, got {act!r}")
    if clamp is not None and not clamp >= 0:
        raise ValueError(f"{operator}: `clamp` must be None or at least 0, got {clamp}")
    # Without a bias the default axis need not be there.
    if (b is not None or dim != 1) and not -x.ndim <= dim < x.ndim:
        raise ValueError(f"{operator}: `dim` must be an axis of x {list(x.shape)}, got {dim}")
    if b is not None:
        _check_bias(operator, x, b, dim)
    activation = ACTIVATIONS[act]
    alpha = activation.alpha if alpha is None else float(alpha)
    return alpha, activation.gain if gain is None else float(gain)


def _check_bias(operator: str, x: Tensor, b: Tensor, dim: int) -> None:
    fitting = isinstance(b, Tensor) and b.dtype in (x.dtype, accumulation_dtype(x.dtype))
    if not fitting or b.device != x.device:
        raise TypeError(f"{operator}: `b` must be a tensor of {kind(x)} as `x`, got {kind(b)}")
    if b.shape != (x.shape[dim],):
        raise ValueError(
            f"{operator}: `b` must have shape [{x.shape[dim]}] to match axis {dim} of "
            f"x {list(x.shape)}, got {list(b.shape)}"
        )


class _PiecewiseLinear(torch.autograd.Function):
    """clamp(leaky(gain * (x + b))) with the slope 0, alpha or 1 left of zero; gain > 0.

    Only y is kept for the backward pass: its sign is that of x + b, and where it is clamped its
    magnitude is `clamp`. b is None or broadcasts against x.
    """

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, b: Tensor | None, slope: float, gain: float, clamp: float | None
    ) -> Tensor:
        y = _scaled_sum(x, b, gain)
        fresh = y is not x
        if slope != 1:
            y = functional.leaky_relu(y, slope, inplace=fresh)
            fresh = True
        if clamp is not None:
            y = y.clamp_(-clamp, clamp) if fresh else y.clamp(-clamp, clamp)
        elif not fresh:
            y = x.view_as(x)
        ctx.facts = slope, gain, clamp
        ctx.bias_shape = None if b is None else b.shape
        ctx.save_for_backward(None if slope == 1 and clamp is None else y)
        return y

    @staticmethod
    def backward(ctx: Any, dy: Tensor) -> tuple[Tensor | None, ...]:
        (y,) = ctx.saved_tensors
        dx = _Slope.apply(dy, None if y is None else y.detach(), *ctx.facts)
        db = None
        if ctx.needs_input_grad[1]:
            db = _sum_to(dx, ctx.bias_shape)
        return dx, db, None, None, None


class _Slope(torch.autograd.Function):
    """dy * gain * act'(u) * [not clamped], all read off y: linear in dy, and its own adjoint."""

    @staticmethod
    def forward(
        ctx: Any, dy: Tensor, y: Tensor | None, slope: float, gain: float, clamp: float | None
    ) -> Tensor:
        ctx.facts = slope, gain, clamp
        ctx.save_for_backward(y)
        dx = dy
        if slope != 1:
            dx = torch.ops.aten.leaky_relu_backward(dx, y, slope, True)
        if gain != 1:
            dx = dx * gain if dx is dy else dx.mul_(gain)
        if clamp is not None and y is not None:
            dx = torch.where(y.abs() < clamp, dx, 0)
        return dy.view_as(dy) if dx is dy else dx

    @staticmethod
    def backward(ctx: Any, ddx: Tensor) -> tuple[Tensor | None, ...]:
        (y,) = ctx.saved_tensors
        return _Slope.apply(ddx, y, *ctx.facts), None, None, None, None


def _scaled_sum(x: Tensor, b: Tensor | None, gain: float) -> Tensor:
    """Computes gain * (x + b) in one pass over x; x itself if there is nothing to do."""
    if b is not None:
        return torch.add(b * gain if gain != 1 else b, x, alpha=gain)
    return x * gain if gain != 1 else x


def _sum_to(dx: Tensor, shape: torch.Size) -> Tensor:
    """Sums dx to `shape`: the gradient of a bias that was broadcast to dx."""
    return dx.sum_to_size(shape)
