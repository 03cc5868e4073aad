"""The mirror of csrc/abi.h: its constants, structures and functions for ctypes."""

from __future__ import annotations

import ctypes
from ctypes import POINTER, c_double, c_int32, c_int64, c_void_p
from typing import Any

import torch

__all__ = [
    "ACTS",
    "CHANNELS_FIRST",
    "CHANNELS_LAST",
    "DTYPES",
    "BatchNorm",
    "BatchNormBackward",
    "Conv3x3",
    "Epilogue",
    "EpilogueBackward",
    "EpilogueDoubleBackward",
    "Run",
    "Upfirdn2d",
]

ABI_VERSION = 1

DTYPES = {torch.float64: 0, torch.float32: 1, torch.bfloat16: 2, torch.float16: 3}
CHANNELS_FIRST, CHANNELS_LAST = 0, 1
_ACT_NAMES = "linear relu lrelu tanh sigmoid elu selu softplus swish"
ACTS = {name: number for number, name in enumerate(_ACT_NAMES.split())}
UNSUPPORTED, NO_MEMORY = -1, -2


class Run(ctypes.Structure):
    """The way to run a call: threads or a stream, and scratch memory."""

    _fields_ = (
        ("threads", c_int32),
        ("reserved", c_int32),
        ("stream", c_void_p),
        ("workspace", c_void_p),
    )


class Epilogue(ctypes.Structure):
    """y = clamp(gain * act(x * d + noise * strength + b)): sizes, numbers, small operands."""

    _fields_ = (
        *((name, c_int32) for name in ("dtype", "layout", "act", "from_output")),
        *((name, c_int64) for name in ("n", "c", "p", "noise_n")),
        *((name, c_double) for name in ("alpha", "gain", "clamp")),
        *((name, c_void_p) for name in ("d", "noise", "strength", "b")),
    )


class EpilogueBackward(ctypes.Structure):
    """Addresses of the backward pass; outputs that are None are not computed."""

    _fields_ = tuple((name, c_void_p) for name in ("x", "dy", "dx", "dd", "dstrength", "db"))


class EpilogueDoubleBackward(ctypes.Structure):
    """Addresses of the double backward pass; cotangents that are None are 0."""

    _fields_ = tuple(
        (name, c_void_p)
        for name in (
            *("x", "dy", "gdx", "gdd", "gdstrength", "gdb"),
            *("gdy", "gx", "gd", "gstrength", "gb"),
        )
    )


class Upfirdn2d(ctypes.Structure):
    """Sizes, steps and filter of one resampling."""

    _fields_ = (
        *((name, c_int32) for name in ("dtype", "layout")),
        *((name, c_int64) for name in ("n", "c", "h", "w", "out_h", "out_w")),
        *((name, c_int32) for name in ("fh", "fw", "up_y", "up_x", "down_y", "down_x")),
        *((name, c_int32) for name in ("pad_top", "pad_left", "flip", "reserved")),
        ("gain", c_double),
        *((name, c_void_p) for name in ("f", "fy", "fx")),
    )


class Conv3x3(ctypes.Structure):
    """Sizes of one 3x3 convolution, and the layout of its filter."""

    _fields_ = (
        *((name, c_int32) for name in ("dtype", "filter_layout", "turned", "reserved")),
        *((name, c_int64) for name in ("n", "h", "w", "c", "o")),
    )


class BatchNorm(ctypes.Structure):
    """Sizes and small operands of one batch norm."""

    _fields_ = (
        *((name, c_int32) for name in ("dtype", "fixed")),
        *((name, c_int64) for name in ("m", "c")),
        ("eps", c_double),
        *((name, c_void_p) for name in ("mean", "variance", "weight", "bias")),
    )


class BatchNormBackward(ctypes.Structure):
    """Addresses of its backward pass."""

    _fields_ = tuple(
        (name, c_void_p) for name in ("x", "y", "dy", "dx", "dresidual", "dweight", "dbias")
    )


# The arguments of each function. int32: 0 or an error; int64: bytes of scratch memory.
_EPILOGUE, _RUN = POINTER(Epilogue), POINTER(Run)
_BACKWARD, _DOUBLE, _UPFIRDN2D = (
    POINTER(EpilogueBackward),
    POINTER(EpilogueDoubleBackward),
    POINTER(Upfirdn2d),
)
_CONV3X3 = POINTER(Conv3x3)
_NORM, _NORM_BACKWARD = POINTER(BatchNorm), POINTER(BatchNormBackward)
FUNCTIONS: dict[str, tuple[Any, tuple[Any, ...]]] = {
    "kernels_epilogue": (c_int32, (_EPILOGUE, c_void_p, c_void_p, _RUN)),
    "kernels_epilogue_backward_workspace": (c_int64, (_EPILOGUE, _BACKWARD)),
    "kernels_epilogue_backward": (c_int32, (_EPILOGUE, _BACKWARD, _RUN)),
    "kernels_epilogue_double_backward_workspace": (c_int64, (_EPILOGUE, _DOUBLE)),
    "kernels_epilogue_double_backward": (c_int32, (_EPILOGUE, _DOUBLE, _RUN)),
    "kernels_upfirdn2d_workspace": (c_int64, (_UPFIRDN2D,)),
    "kernels_upfirdn2d": (c_int32, (_UPFIRDN2D, c_void_p, c_void_p, _RUN)),
    "kernels_conv3x3_workspace": (c_int64, (_CONV3X3, _RUN)),
    "kernels_conv3x3": (c_int32, (_CONV3X3, c_void_p, c_void_p, c_void_p, _RUN)),
    "kernels_conv3x3_gradient_workspace": (c_int64, (_CONV3X3, _RUN)),
    "kernels_conv3x3_gradient": (c_int32, (_CONV3X3, c_void_p, c_void_p, c_void_p, _RUN)),
    "kernels_batch_moments_workspace": (c_int64, (_NORM,)),
    "kernels_batch_moments": (c_int32, (_NORM, c_void_p, c_void_p, c_void_p, _RUN)),
    "kernels_batch_norm_workspace": (c_int64, (_NORM,)),
    "kernels_batch_norm": (c_int32, (_NORM, c_void_p, c_void_p, c_void_p, _RUN)),
    "kernels_batch_norm_backward_workspace": (c_int64, (_NORM,)),
    "kernels_batch_norm_backward": (c_int32, (_NORM, _NORM_BACKWARD, _RUN)),
}
