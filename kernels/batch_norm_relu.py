"""Batch norm, an addition and a ReLU in one: max(norm(x) + residual, 0).

PyTorch reads and writes an image up to ten times for it, forward and backward. Here a forward pass
reads x twice and writes y; a backward pass reads each of its images twice. Only x is kept, and y
where a residual was added: the normalised values are computed again. The compiled operators are
for a CPU (csrc/cpu/batch_norm.cpp), for channels last and channels in multiples of 16. PyTorch does
the rest, by the three operators that they replace.
"""

from __future__ import annotations

from ctypes import byref
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from kernels import abi, launch, registration
from kernels.arguments import kind
from kernels.layout import accumulation_dtype, is_channels_last

__all__ = ["batch_norm_relu"]

_CHANNELS = 16
_DTYPES = (torch.float64, torch.float32, torch.bfloat16)


def batch_norm_relu(
    x: Tensor,
    running_mean: Tensor,
    running_var: Tensor,
    weight: Tensor,
    bias: Tensor,
    residual: Tensor | None = None,
    *,
    training: bool,
    momentum: float = 0.1,
    eps: float = 1e-5,
) -> Tensor:
    """Computes relu(batch_norm(x) + residual), [N,C,H,W], differentiable to every order.

    The arguments are those of `torch.nn.functional.batch_norm`; residual is None or has shape,
    dtype and device of x. While `training`, mean and variance are those of x, and the running ones
    [C] move by the share `momentum` toward them, in place. Else the running ones normalise.
    ValueError and TypeError name the argument that does not fit.
    """
    _check(x, residual)
    if not _fits(x, running_mean, running_var, weight, bias, training):
        u = functional.batch_norm(
            x, running_mean, running_var, weight, bias, training, momentum, eps
        )
        return functional.relu(u if residual is None else u + residual)
    kind_of_sums = accumulation_dtype(x.dtype)
    weight, bias = weight.to(kind_of_sums), bias.to(kind_of_sums)
    if not training:
        mean, variance = running_mean.to(kind_of_sums), running_var.to(kind_of_sums)
        return _norm(x, mean, variance, weight, bias, residual, eps, True)
    mean, variance = _moments(x.detach())
    with torch.no_grad():
        count = x.numel() // x.shape[1]
        running_mean.lerp_(mean.to(running_mean.dtype), momentum)
        unbiased = variance * (count / (count - 1))
        running_var.lerp_(unbiased.to(running_var.dtype), momentum)
    return _norm(x, mean, variance, weight, bias, residual, eps, False)


def _check(x: Tensor, residual: Tensor | None) -> None:
    """Checks what PyTorch would spread or promote without a word."""
    if residual is None:
        return
    if residual.dtype != x.dtype or residual.device != x.device:
        raise TypeError(
            f"batch_norm_relu: `residual` must be a tensor of {kind(x)} as `x`, "
            f"got {kind(residual)}"
        )
    if residual.shape != x.shape:
        raise ValueError(
            f"batch_norm_relu: `residual` must have the shape of x {list(x.shape)}, "
            f"got {list(residual.shape)}"
        )


def _fits(x: Tensor, mean: Tensor, var: Tensor, weight: Tensor, bias: Tensor, own: bool) -> bool:
    """Tells if the compiled operators take these tensors; `own`: with the moments of x."""
    if x.device.type != "cpu" or not is_channels_last(x) or not launch.takes(x):
        return False
    small = mean, var, weight, bias
    channels = x.shape[1]
    return (
        x.dtype in _DTYPES
        and channels % _CHANNELS == 0
        # PyTorch says that one value has no variance.
        and x.numel() > (channels if own else 0)
        and all(
            one.shape == (channels,) and one.dtype in _DTYPES and one.device == x.device
            for one in small
        )
    )


# --------------------------------------------------------------------- kernels


def _described(x: Tensor, *small: Tensor, eps: float = 0.0, fixed: bool = False) -> abi.BatchNorm:
    """Describes x and mean, variance, weight, bias, which must be contiguous."""
    names = ("mean", "variance", "weight", "bias")
    return abi.BatchNorm(
        dtype=abi.DTYPES[x.dtype],
        fixed=int(fixed),
        m=x.numel() // x.shape[1],
        c=x.shape[1],
        eps=eps,
        **{name: one.data_ptr() for name, one in zip(names, small, strict=False)},
    )


def _images(x: Tensor) -> Tensor:
    return x.contiguous(memory_format=torch.channels_last)


def _like(x: Tensor) -> Tensor:
    return torch.empty_like(x, memory_format=torch.channels_last)


def _channels(x: Tensor) -> Tensor:
    return x.new_empty(x.shape[1], dtype=accumulation_dtype(x.dtype))


def _no_moments(x: Tensor) -> tuple[Tensor, Tensor]:
    return _channels(x), _channels(x)


def _find_moments(x: Tensor) -> tuple[Tensor, Tensor]:
    x = _images(x)
    mean, variance = _no_moments(x)
    described = _described(x)
    with launch.calling(x) as call:
        call.reserve(call.library.kernels_batch_moments_workspace(byref(described)))
        call.library.kernels_batch_moments(
            byref(described), x.data_ptr(), mean.data_ptr(), variance.data_ptr(), byref(call.run)
        )
    return mean, variance


def _empty(x: Tensor, *_: Any) -> Tensor:
    return _like(x)


def _forward(
    x: Tensor,
    mean: Tensor,
    variance: Tensor,
    weight: Tensor,
    bias: Tensor,
    residual: Tensor | None,
    eps: float,
    fixed: bool,
) -> Tensor:
    x = _images(x)
    residual = None if residual is None else _images(residual)
    small = [one.contiguous() for one in (mean, variance, weight, bias)]
    y = _like(x)
    described = _described(x, *small, eps=eps, fixed=fixed)
    with launch.calling(x) as call:
        call.reserve(call.library.kernels_batch_norm_workspace(byref(described)))
        call.library.kernels_batch_norm(
            byref(described), x.data_ptr(), launch.address(residual), y.data_ptr(), byref(call.run)
        )
    return y


def _empty_gradient(
    dy: Tensor, x: Tensor, y: Tensor | None, *_: Any
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Makes dx, dresidual, dweight and dbias; dresidual is empty without y."""
    return _like(x), x.new_empty(0) if y is None else _like(x), _channels(x), _channels(x)


def _gradient(
    dy: Tensor,
    x: Tensor,
    y: Tensor | None,
    mean: Tensor,
    variance: Tensor,
    weight: Tensor,
    bias: Tensor,
    eps: float,
    fixed: bool,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    x, dy = _images(x), _images(dy)
    y = None if y is None else _images(y)
    small = [one.contiguous() for one in (mean, variance, weight, bias)]
    dx, dresidual, dweight, dbias = found = _empty_gradient(dy, x, y)
    described = _described(x, *small, eps=eps, fixed=fixed)
    tensors = abi.BatchNormBackward(
        x=x.data_ptr(),
        y=launch.address(y),
        dy=dy.data_ptr(),
        dx=dx.data_ptr(),
        dresidual=launch.wanted_address(dresidual, y is not None),
        dweight=dweight.data_ptr(),
        dbias=dbias.data_ptr(),
    )
    with launch.calling(x) as call:
        call.reserve(call.library.kernels_batch_norm_backward_workspace(byref(described)))
        call.library.kernels_batch_norm_backward(byref(described), byref(tensors), byref(call.run))
    return found


# --------------------------------------------------------------------- autograd


def _keep_image(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
    ctx.save_for_backward(*inputs, output[0])


def _differentiate_moments(ctx: Any, dmean: Tensor, dvariance: Tensor) -> Tensor:
    x, mean = ctx.saved_tensors
    apart = (x - mean[:, None, None]) * (2 * dvariance)[:, None, None]
    return (apart + dmean[:, None, None]).to(x.dtype) / (x.numel() // x.shape[1])


def _keep(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    x, mean, variance, weight, bias, residual, eps, fixed = inputs
    y = None if residual is None else output
    ctx.save_for_backward(x, y, mean, variance, weight, bias)
    ctx.facts = eps, fixed


def _differentiate(ctx: Any, dy: Tensor) -> tuple[Tensor | None, ...]:
    x, y, *small = ctx.saved_tensors
    dx, dresidual, dweight, dbias = _norm_gradient(dy, x, y, *small, *ctx.facts)
    return dx, None, None, dweight, dbias, None if y is None else dresidual, None, None


def _keep_all(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
    ctx.save_for_backward(*inputs[:7])
    ctx.facts = inputs[7:]


def _differentiate_gradient(ctx: Any, *cotangents: Tensor) -> tuple[Tensor | None, ...]:
    """Differentiates the gradient as PyTorch's operators compute it: seldom needed, so not fast."""
    again = torch.is_grad_enabled()
    wanted = [place for place in range(7) if ctx.needs_input_grad[place]]
    with torch.enable_grad():
        # Others than the tensors themselves, so that each is differentiated alone.
        inputs: list[Any] = [None if one is None else one.view_as(one) for one in ctx.saved_tensors]
        results = _plain_gradient(*inputs, *ctx.facts)
        pairs = [
            (one, cotangent)
            for one, cotangent in zip(results, cotangents, strict=True)
            if one.requires_grad
        ]
        found = torch.autograd.grad(
            [one for one, _ in pairs],
            [inputs[place] for place in wanted],
            [cotangent for _, cotangent in pairs],
            create_graph=again,
            allow_unused=True,
        )
    given = dict(zip(wanted, found, strict=True))
    return (*(given.get(place) for place in range(7)), None, None)


def _plain_gradient(
    dy: Tensor,
    x: Tensor,
    y: Tensor | None,
    mean: Tensor,
    variance: Tensor,
    weight: Tensor,
    bias: Tensor,
    eps: float,
    fixed: bool,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Computes `_gradient` in PyTorch; mean and variance are functions of x unless `fixed`."""
    kind_of_sums = accumulation_dtype(x.dtype)
    wide, axes = x.to(kind_of_sums), (0, 2, 3)
    if not fixed:
        mean, variance = wide.mean(axes), wide.var(axes, unbiased=False)

    def beside(values: Tensor) -> Tensor:
        return values[:, None, None]

    rate = (variance + eps).rsqrt()
    z = (wide - beside(mean)) * beside(rate)
    passed = (z * beside(weight) + beside(bias) if y is None else y) > 0
    g = dy.to(kind_of_sums) * passed
    dweight, dbias = (g * z).sum(axes), g.sum(axes)
    dx = g
    if not fixed:
        dx = g - (beside(dbias) + z * beside(dweight)) / (x.numel() // x.shape[1])
    dx = beside(weight * rate) * dx
    return dx.to(x.dtype), x.new_empty(0) if y is None else g.to(x.dtype), dweight, dbias


_moments = registration.register(
    "batch_moments(Tensor x) -> (Tensor, Tensor)",
    kernel=_find_moments,
    fake=_no_moments,
    keep=_keep_image,
    differentiate=_differentiate_moments,
)
_norm = registration.register(
    "batch_norm_relu(Tensor x, Tensor mean, Tensor variance, Tensor weight, Tensor bias, "
    "Tensor? residual, float eps, bool fixed) -> Tensor",
    kernel=_forward,
    fake=_empty,
    keep=_keep,
    differentiate=_differentiate,
)
_norm_gradient = registration.register(
    "batch_norm_relu_gradient(Tensor dy, Tensor x, Tensor? y, Tensor mean, Tensor variance, "
    "Tensor weight, Tensor bias, float eps, bool fixed) -> (Tensor, Tensor, Tensor, Tensor)",
    kernel=_gradient,
    fake=_empty_gradient,
    keep=_keep_all,
    differentiate=_differentiate_gradient,
)
