"""`upfirdn2d` as one operator of PyTorch, `kernels::upfirdn2d`, for the compiled kernels.

It is linear in x, and its adjoint is itself with up and down exchanged and the filter flipped: the
autograd formula calls the operator again, so it differentiates to every order.
"""

from __future__ import annotations

from ctypes import byref
from typing import Any, NamedTuple

import torch
from torch import Tensor

from kernels import abi, launch, registration
from kernels.layout import dense, is_channels_last, layout_of, small

__all__ = ["Axis", "apply"]


class Axis(NamedTuple):
    """The steps along one axis: up, then padding before and after, the filter, then down."""

    up: int = 1
    down: int = 1
    before: int = 0
    after: int = 0

    def out_size(self, size: int, taps: int) -> int:
        return (size * self.up + self.before + self.after - taps + self.down) // self.down

    def adjoint(self, size: int, taps: int) -> Axis:
        """Returns the axis of the transposed operator, for an input of `size`."""
        before = taps - self.before - 1
        out = self.out_size(size, taps)
        after = size * self.up - out * self.down + self.before - self.up + 1
        return Axis(self.down, self.up, before, after)


def apply(x: Tensor, f: Tensor, along_x: Axis, along_y: Axis, flip: bool, gain: float) -> Tensor:
    """Calls the registered operator with checked arguments; f [fh,fw], or [n] for both axes."""
    filter_ = small(f.detach(), x)
    return _upfirdn2d(x, filter_, along_x, along_y, flip, gain)


def _empty(x: Tensor, f: Tensor, along_x: Any, along_y: Any, flip: bool, gain: float) -> Tensor:
    """Makes the operator's empty output: [N,C,H',W'] in the layout of x."""
    n, c, h, w = x.shape
    shape = n, c, Axis(*along_y).out_size(h, f.shape[0]), Axis(*along_x).out_size(w, f.shape[-1])
    return torch.empty(shape, dtype=x.dtype, device=x.device, memory_format=layout_of(x))


def _resampled(x: Tensor, f: Tensor, along_x: Any, along_y: Any, flip: bool, gain: float) -> Tensor:
    x, f = dense(x), f.contiguous()
    y = _empty(x, f, along_x, along_y, flip, gain)
    separable = f.ndim == 1
    described = abi.Upfirdn2d(
        dtype=abi.DTYPES[x.dtype],
        layout=int(is_channels_last(x)),
        n=x.shape[0],
        c=x.shape[1],
        h=x.shape[2],
        w=x.shape[3],
        out_h=y.shape[2],
        out_w=y.shape[3],
        fh=f.shape[0],
        fw=f.shape[-1],
        up_y=along_y[0],
        up_x=along_x[0],
        down_y=along_y[1],
        down_x=along_x[1],
        pad_top=along_y[2],
        pad_left=along_x[2],
        flip=flip,
        gain=gain,
        f=None if separable else f.data_ptr(),
        fy=f.data_ptr() if separable else None,
        fx=f.data_ptr() if separable else None,
    )
    with launch.calling(x) as call:
        call.reserve(call.library.kernels_upfirdn2d_workspace(byref(described)))
        call.library.kernels_upfirdn2d(
            byref(described), x.data_ptr(), y.data_ptr(), byref(call.run)
        )
    return y


def _fake(x: Tensor, f: Tensor, along_x: Any, along_y: Any, flip: bool, gain: float) -> Tensor:
    return _empty(dense(x), f, along_x, along_y, flip, gain)


def _keep(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    x, f, along_x, along_y, flip, gain = inputs
    h, w = x.shape[2:]
    adjoint = Axis(*along_x).adjoint(w, f.shape[-1]), Axis(*along_y).adjoint(h, f.shape[0])
    ctx.facts = *adjoint, not flip, gain
    ctx.format = layout_of(x)
    ctx.save_for_backward(f)


def _differentiate(ctx: Any, dy: Tensor) -> tuple[Tensor | None, ...]:
    (f,) = ctx.saved_tensors
    dy = dy.contiguous(memory_format=ctx.format)
    return _upfirdn2d(dy, f, *ctx.facts), *[None] * 5


_upfirdn2d = registration.register(
    "upfirdn2d(Tensor x, Tensor f, int[4] along_x, int[4] along_y, bool flip, float gain) "
    "-> Tensor",
    kernel=_resampled,
    fake=_fake,
    keep=_keep,
    differentiate=_differentiate,
)
