"""Calls of the compiled library by registered operators: addresses, threads or stream, scratch."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

import torch
from torch import Tensor

from kernels import abi, dispatch, native

__all__ = ["Call", "address", "calling", "takes", "wanted_address"]


def takes(x: Tensor) -> bool:
    """Tells if the compiled operators run for `x`: by its device, its dtype and KERNELS."""
    return x.dtype in abi.DTYPES and dispatch.enabled(x.device.type)


def address(tensor: Tensor | None) -> int | None:
    """Returns the address of the contiguous `tensor`; None for an operand that is left out."""
    return None if tensor is None else tensor.data_ptr()


def wanted_address(tensor: Tensor, wanted: bool) -> int | None:
    """Returns the address of an output; None if it is not wanted."""
    return tensor.data_ptr() if wanted else None


class Call:
    """The library of a device, with the threads, stream and scratch memory of one call."""

    def __init__(self, x: Tensor) -> None:
        self.library: Any = native.library(x.device.type)
        self.run = abi.Run(threads=torch.get_num_threads())
        if x.device.type == "cuda":
            self.run.stream = torch.cuda.current_stream(x.device).cuda_stream
        self._device = x.device
        self._scratch: Tensor | None = None

    def reserve(self, size: int) -> None:
        """Gives the functions `size` bytes of scratch memory on the device."""
        if size:
            self._scratch = torch.empty(size, dtype=torch.uint8, device=self._device)
            self.run.workspace = self._scratch.data_ptr()


def calling(x: Tensor) -> AbstractContextManager[Call]:
    """Prepares a call of the library for `x`, with the device of x as the current one."""
    return nullcontext(Call(x)) if x.device.type == "cpu" else _calling_on(x.device, Call(x))


@contextmanager
def _calling_on(device: torch.device, call: Call) -> Iterator[Call]:
    with torch.cuda.device(device):
        yield call
