"""The 3x3 convolution with padding 1: on a CPU with 16 products in place of 36.

If the shapes allow, it is Winograd's minimal filtering (csrc/cpu/conv3x3.cpp). PyTorch's
convolution does the rest: other types, a GPU, odd sizes, few channels. Filters and their gradients
are float32, whatever the dtype of the images. Two operators are registered, the convolution and
the gradient of its filter. Each is the derivative of the other, so all orders are covered.

With stride 2, and transposed, the same filtering saves 11 of 36 products. That was written,
measured and left out: it is as fast as PyTorch's, and only the gradient of its filter is faster,
by a third.
"""

from __future__ import annotations

from ctypes import byref
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from kernels import abi, launch, native, registration
from kernels.layout import filter_like, is_channels_last

__all__ = ["conv3x3"]

# Channels come in vectors of 16. PyTorch computes images of 4x4: there, filters are as large.
_CHANNELS, _LEAST = 16, 8


def conv3x3(x: Tensor, weight: Tensor) -> Tensor:
    """Computes conv2d(x, weight, padding=1): [N,I,H,W], [O,I,3,3] -> [N,O,H,W].

    Computes in the dtype of x and keeps its memory layout. The compiled operator is F(2x2, 3x3) of
    Lavin and Gray 2016. In bfloat16 it also rounds the factors of its products, which are sums of
    up to four values of x and of up to nine of the filter. Errors are PyTorch's.
    """
    if _fits(x, weight):
        return _conv3x3(x, weight.to(torch.float32), False)
    return functional.conv2d(x, filter_like(weight, x), padding=1)


def _fits(x: Tensor, weight: Tensor) -> bool:
    """Tells if the compiled operator takes these tensors."""
    if x.device.type != "cpu" or not is_channels_last(x) or not launch.takes(x):
        return False
    (n, c, h, w), filters = x.shape, weight.shape
    return (
        _multiplies(x.dtype)
        and weight.device == x.device
        and n > 0
        and h >= _LEAST
        and w >= _LEAST
        and h % 2 == w % 2 == 0
        and filters[1:] == (c, 3, 3)
        and filters[0] > 0
        and c % _CHANNELS == filters[0] % _CHANNELS == 0
    )


def _multiplies(dtype: torch.dtype) -> bool:
    """Tells if the CPU's library has products of that type."""
    if dtype == torch.bfloat16:
        return native.library("cpu").built.isa == "avx512_bf16"
    return dtype == torch.float32


# --------------------------------------------------------------------- kernels


def _images(x: Tensor) -> Tensor:
    return x.contiguous(memory_format=torch.channels_last)


def _described(x: Tensor, channels: int, *, last: bool, turned: bool) -> abi.Conv3x3:
    n, c, h, w = x.shape
    return abi.Conv3x3(
        dtype=abi.DTYPES[x.dtype],
        filter_layout=int(last),
        turned=int(turned),
        n=n,
        h=h,
        w=w,
        c=c,
        o=channels,
    )


def _empty(x: Tensor, weight: Tensor, turned: bool) -> Tensor:
    n, _, h, w = x.shape
    channels = weight.shape[1] if turned else weight.shape[0]
    return x.new_empty(n, h, w, channels).permute(0, 3, 1, 2)


def _forward(x: Tensor, weight: Tensor, turned: bool) -> Tensor:
    x = _images(x)
    last = is_channels_last(weight)
    weight = weight if last else weight.contiguous()
    y = _empty(x, weight, turned)
    described = _described(x, y.shape[1], last=last, turned=turned)
    with launch.calling(x) as call:
        call.reserve(call.library.kernels_conv3x3_workspace(byref(described), byref(call.run)))
        call.library.kernels_conv3x3(
            byref(described), x.data_ptr(), weight.data_ptr(), y.data_ptr(), byref(call.run)
        )
    return y


def _empty_gradient(x: Tensor, dy: Tensor) -> Tensor:
    return x.new_empty(dy.shape[1], x.shape[1], 3, 3, dtype=torch.float32)


def _gradient(x: Tensor, dy: Tensor) -> Tensor:
    x, dy = _images(x), _images(dy)
    dweight = _empty_gradient(x, dy)
    described = _described(x, dy.shape[1], last=False, turned=False)
    with launch.calling(x) as call:
        size = call.library.kernels_conv3x3_gradient_workspace(byref(described), byref(call.run))
        call.reserve(size)
        call.library.kernels_conv3x3_gradient(
            byref(described), x.data_ptr(), dy.data_ptr(), dweight.data_ptr(), byref(call.run)
        )
    return dweight


# --------------------------------------------------------------------- autograd


def _keep(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    ctx.save_for_backward(*inputs[:2])
    ctx.turned = inputs[2]


def _differentiate(ctx: Any, dy: Tensor) -> tuple[Tensor | None, ...]:
    x, weight = ctx.saved_tensors
    dx = dweight = None
    if ctx.needs_input_grad[0]:
        dx = _conv3x3(dy, weight, not ctx.turned)
    if ctx.needs_input_grad[1]:
        # The turned filter meets the two images with their roles exchanged.
        dweight = _conv3x3_gradient(dy, x) if ctx.turned else _conv3x3_gradient(x, dy)
    return dx, dweight, None


def _keep_images(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    ctx.save_for_backward(*inputs)


def _differentiate_gradient(ctx: Any, cotangent: Tensor) -> tuple[Tensor | None, ...]:
    """Differentiates dw = sum of dy x: <dw, g> = <dy, the convolution of x by g>."""
    x, dy = ctx.saved_tensors
    gx = _conv3x3(dy, cotangent, True) if ctx.needs_input_grad[0] else None
    gdy = _conv3x3(x, cotangent, False) if ctx.needs_input_grad[1] else None
    return gx, gdy


_conv3x3 = registration.register(
    "conv3x3(Tensor x, Tensor weight, bool turned) -> Tensor",
    kernel=_forward,
    fake=_empty,
    keep=_keep,
    differentiate=_differentiate,
)
_conv3x3_gradient = registration.register(
    "conv3x3_gradient(Tensor x, Tensor dy) -> Tensor",
    kernel=_gradient,
    fake=_empty_gradient,
    keep=_keep_images,
    differentiate=_differentiate_gradient,
)
