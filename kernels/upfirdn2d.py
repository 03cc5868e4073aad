"""Up-sample, pad, filter, down-sample: the public operator, its checks and its autograd.

The operator is linear in x. Its adjoint is itself with up and down exchanged and the filter
flipped, so it differentiates to every order through itself. That also keeps it fast: PyTorch's own
double backward of a depthwise convolution runs one convolution a channel.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from kernels import launch, resample
from kernels.arguments import check_image, check_operand, kind
from kernels.layout import layout_of
from kernels.reference import padded
from kernels.resample import Axis

__all__ = ["setup_filter", "upfirdn2d"]

Pair = int | Sequence[int]

# On a CPU, PyTorch's depthwise transposed convolution in these is 50 times slower than in float32.
_SLOW_TRANSPOSED = (torch.bfloat16, torch.float16)

# Fewer one-dimensional taps than this become a two-dimensional filter.
SEPARABLE_FROM = 8


def setup_filter(
    taps: Tensor | Sequence[float] | Sequence[Sequence[float]] | None,
    *,
    normalize: bool = True,
    flip: bool = False,
    gain: float = 1,
    separable: bool | None = None,
) -> Tensor:
    """Makes a filter for `upfirdn2d` from taps: [fh,fw], or [n] if two passes of n are faster.

    1-D taps become their outer product unless `separable` (default: 8 taps or more). `normalize`
    makes the sum 1. `gain` is that of the two-dimensional filter. None is the identity. The filter
    is float32, as in published networks. Raises ValueError for taps of a wrong shape or sum.
    """
    f = torch.as_tensor(1.0 if taps is None else taps, dtype=torch.float32)
    f = f.reshape(1) if f.ndim == 0 else f
    if f.ndim > 2 or f.numel() == 0:
        raise ValueError(f"setup_filter: `taps` must be [n] or [fh, fw], got {list(f.shape)}")
    if separable and f.ndim == 2:
        raise ValueError("setup_filter: `separable` needs one-dimensional taps, got [fh, fw]")
    if f.ndim == 1 and not (f.numel() >= SEPARABLE_FROM if separable is None else separable):
        f = f[:, None] * f[None, :]
    if normalize:
        _check_sum(f)
        f = f / f.sum()
    if flip:
        f = f.flip(list(range(f.ndim)))
    return f * gain ** (f.ndim / 2)


def upfirdn2d(
    x: Tensor,
    f: Tensor | None,
    *,
    up: Pair = 1,
    down: Pair = 1,
    padding: Pair = 0,
    flip_filter: bool = False,
    gain: float = 1,
) -> Tensor:
    """Zero-stuffs by `up`, pads or crops, filters each channel, keeps every `down`-th sample.

    x [N,C,H,W] floating, NCHW or channels_last, which the result keeps. f: [fh,fw], [n] (applied
    along both axes) or None (identity); a true convolution, or a correlation if `flip_filter`. f
    gets no gradient. `up`, `down`: one number or (x, y). `padding`: one number, (x, y) or
    (left, right, top, bottom); negative numbers crop. The result is multiplied by `gain` and has
    (in * up + p0 + p1 - f + down) // down samples an axis. ValueError and TypeError name the
    argument that does not fit.
    """
    _check_tensors(x, f)
    up_x, up_y = _pair(up, "up", least=1)
    down_x, down_y = _pair(down, "down", least=1)
    left, right, top, bottom = _padding(padding)
    if f is None:
        f = x.new_ones(1, 1)
    along_x = Axis(up_x, down_x, left, right)
    along_y = Axis(up_y, down_y, top, bottom)
    flip = bool(flip_filter)
    _check_size(x, (f.shape[0], f.shape[-1]), along_x, along_y)
    if launch.takes(x):
        return resample.apply(x, f, along_x, along_y, flip, float(gain))
    if f.ndim == 2:
        return _UpFirDn.apply(x, f, along_x, along_y, flip, float(gain))
    x = _UpFirDn.apply(x, f[None, :], along_x, Axis(), flip, 1.0)
    return _UpFirDn.apply(x, f[:, None], Axis(), along_y, flip, float(gain))


# --------------------------------------------------------------------- checks


def _check_sum(f: Tensor) -> None:
    if f.device.type == "meta":  # the filter of a network without values
        return
    total, rounding = float(f.sum()), torch.finfo(f.dtype).eps * f.numel() * float(f.abs().sum())
    if not abs(total) > rounding:
        raise ValueError(
            f"setup_filter: `taps` sum to {total:.3g}, which cannot be made 1; "
            "pass normalize=False to keep them as they are"
        )


def _check_tensors(x: Tensor, f: Tensor | None) -> None:
    check_image("upfirdn2d", x)
    if x.ndim != 4:
        raise ValueError(f"upfirdn2d: `x` must have shape [N, C, H, W], got {list(x.shape)}")
    if f is None:
        return
    if not isinstance(f, Tensor):
        raise TypeError(
            f"upfirdn2d: `f` must be None or a tensor, which setup_filter makes, got {kind(f)}"
        )
    check_operand("upfirdn2d", "f", f, x)
    if f.ndim not in (1, 2) or f.numel() == 0:
        raise ValueError(f"upfirdn2d: `f` must have shape [n] or [fh, fw], got {list(f.shape)}")
    if f.requires_grad:
        raise ValueError("upfirdn2d: `f` is a constant and gets no gradient; detach it")


def _check_size(x: Tensor, taps: Sequence[int], along_x: Axis, along_y: Axis) -> None:
    height, width = along_y.out_size(x.shape[2], taps[0]), along_x.out_size(x.shape[3], taps[1])
    if height < 1 or width < 1:
        raise ValueError(
            f"upfirdn2d: x {list(x.shape)}, up-sampled and padded, is smaller than the filter "
            f"{list(taps)}: the result would be {height} x {width}"
        )


def _numbers(value: Pair, name: str, lengths: tuple[int, ...]) -> list[int]:
    values = list(value) if isinstance(value, Sequence) else [value]
    if len(values) not in lengths or not all(isinstance(one, int) for one in values):
        wanted = " or ".join(map(str, lengths))
        raise ValueError(f"upfirdn2d: `{name}` must be {wanted} whole numbers, got {value}")
    return values


def _pair(value: Pair, name: str, *, least: int) -> tuple[int, int]:
    values = _numbers(value, name, (1, 2))
    if min(values) < least:
        raise ValueError(f"upfirdn2d: `{name}` must be at least {least}, got {value}")
    return values[0], values[-1]


def _padding(value: Pair) -> tuple[int, int, int, int]:
    values = _numbers(value, "padding", (1, 2, 4))
    if len(values) == 4:
        return values[0], values[1], values[2], values[3]
    return values[0], values[0], values[-1], values[-1]


# --------------------------------------------------------------------- the operator in PyTorch


class _UpFirDn(torch.autograd.Function):
    """The operator with a filter [fh,fw]; its backward pass is the operator itself."""

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, f: Tensor, along_x: Axis, along_y: Axis, flip: bool, gain: float
    ) -> Tensor:
        (fh, fw), (h, w) = f.shape, x.shape[2:]
        ctx.adjoint = along_x.adjoint(w, fw), along_y.adjoint(h, fh), not flip, gain
        ctx.save_for_backward(f)
        return _resample(x, f, along_x, along_y, flip, gain)

    @staticmethod
    def backward(ctx: Any, dy: Tensor) -> tuple[Tensor | None, ...]:
        (f,) = ctx.saved_tensors
        return _UpFirDn.apply(dy, f, *ctx.adjoint), None, None, None, None, None


def _resample(
    x: Tensor, f: Tensor, along_x: Axis, along_y: Axis, flip: bool, gain: float
) -> Tensor:
    """Resamples by one depthwise convolution, transposed if it up-samples."""
    n, c, h, w = x.shape
    fh, fw = f.shape
    if x.numel() == 0:
        return x.new_zeros(n, c, along_y.out_size(h, fh), along_x.out_size(w, fw))
    f = (f.to(torch.promote_types(f.dtype, x.dtype)) * gain).to(x.dtype)
    if along_x.up == along_y.up == 1:
        f = f if flip else f.flip(0, 1)
        pads = along_x.before, along_x.after, along_y.before, along_y.after
        own = (pads[2], pads[0]) if pads[0] == pads[1] >= 0 and pads[2] == pads[3] >= 0 else (0, 0)
        if own == (0, 0) and any(pads):
            x = padded(x, pads)
        stride = (along_y.down, along_x.down)
        return functional.conv2d(x, _each(f, c), stride=stride, padding=own, groups=c)
    if x.device.type == "cpu" and x.dtype in _SLOW_TRANSPOSED:
        return _resample(x.float(), f.float(), along_x, along_y, flip, 1.0).to(x.dtype)
    f = f.flip(0, 1) if flip else f
    crops = _crops(along_y, fh), _crops(along_x, fw)
    cut = [max(min(crop), 0) for crop in crops]
    stride = (along_y.up, along_x.up)
    y = functional.conv_transpose2d(x, _each(f, c), stride=stride, padding=cut, groups=c)
    rest = [cut[axis] - crop for axis in (1, 0) for crop in crops[axis]]
    y = padded(y, rest)
    if along_x.down == along_y.down == 1:
        return y
    y = y[:, :, :: along_y.down, :: along_x.down]
    return y.contiguous(memory_format=layout_of(x))


def _crops(axis: Axis, taps: int) -> tuple[int, int]:
    """Counts samples to cut off each side of the full transposed convolution; negative: to add."""
    return taps - 1 - axis.before, taps - axis.up - axis.after


def _each(f: Tensor, channels: int) -> Tensor:
    """Repeats the filter for every channel: [C,1,fh,fw]."""
    return f.expand(channels, 1, *f.shape).contiguous()
