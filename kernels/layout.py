"""The two dense memory layouts of the compiled operators."""

from __future__ import annotations

import math

import torch
from torch import Tensor

__all__ = [
    "accumulation_dtype",
    "dense",
    "dense_like",
    "filter_like",
    "is_channels_last",
    "layout_of",
    "planes",
    "small",
]


def accumulation_dtype(dtype: torch.dtype) -> torch.dtype:
    """Returns the dtype of arithmetic and small operands: float64 for float64, else float32."""
    return torch.float64 if dtype == torch.float64 else torch.float32


def small(operand: Tensor | None, x: Tensor) -> Tensor | None:
    """Casts an operand that is small beside `x` (bias, scale, filter) as the operators take it."""
    if operand is None:
        return None
    dtype = accumulation_dtype(x.dtype)
    return operand if operand.dtype == dtype else operand.to(dtype)


def is_channels_last(x: Tensor) -> bool:
    """Tells if `x` is NHWC in memory, and not NCHW as well."""
    return (
        x.ndim == 4 and not x.is_contiguous() and x.is_contiguous(memory_format=torch.channels_last)
    )


def layout_of(x: Tensor) -> torch.memory_format:
    """Returns the layout of `x`: channels_last, or contiguous if it is both."""
    return torch.channels_last if is_channels_last(x) else torch.contiguous_format


def dense(x: Tensor, dim: int = 1) -> Tensor:
    """Returns `x` itself if contiguous, or channels_last with channels along `dim`; else a copy."""
    return x if dim == 1 and is_channels_last(x) else x.contiguous()


def dense_like(x: Tensor, pattern: Tensor) -> Tensor:
    """Lays out `x` as the dense `pattern`, which has the same shape."""
    return x.contiguous(memory_format=layout_of(pattern))


def filter_like(weight: Tensor, x: Tensor) -> Tensor:
    """Casts `weight` [O,I,k,k] to the dtype and layout of the images x, by one copy at most."""
    return weight.to(x.dtype, memory_format=layout_of(x))


def planes(x: Tensor, dim: int, *, samples: bool) -> tuple[bool, int, int, int]:
    """Describes the dense `x` as (channels last?, n, c, p), its channels along `dim`.

    n is the size of axis 0 if `samples` are told apart, which needs `dim` 1.
    """
    shape = x.shape
    if is_channels_last(x):
        return True, shape[0], shape[1], shape[2] * shape[3]
    outer, channels, inner = math.prod(shape[:dim]), shape[dim], math.prod(shape[dim + 1 :])
    if inner == 1:
        return (True, outer, channels, 1) if samples else (True, 1, channels, outer)
    return False, outer, channels, inner
