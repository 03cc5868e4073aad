"""Checks of the tensors given to public operators; an error names the tensor that came instead."""

from __future__ import annotations

from torch import Tensor

__all__ = ["check_image", "check_operand", "kind"]


def kind(value: object) -> str:
    """Describes an argument for an error: "torch.float32 on cpu", or the name of its type."""
    if isinstance(value, Tensor):
        return f"{value.dtype} on {value.device}"
    return type(value).__name__


def check_image(operator: str, x: object) -> None:
    """Raises TypeError unless `x` is a floating tensor; the others must match its dtype, device."""
    if not isinstance(x, Tensor) or not x.is_floating_point():
        raise TypeError(f"{operator}: `x` must be a floating-point tensor, got {kind(x)}")


def check_operand(operator: str, name: str, operand: object, x: Tensor) -> None:
    """Raises TypeError unless `operand` is a floating tensor on the device of `x`.

    Kernels read from its address, so a tensor on another device would crash them.
    """
    if not isinstance(operand, Tensor) or not operand.is_floating_point():
        raise TypeError(
            f"{operator}: `{name}` must be a floating-point tensor on {x.device} as `x`, "
            f"got {kind(operand)}"
        )
    if operand.device != x.device:
        raise TypeError(
            f"{operator}: `{name}` must be on {x.device} as `x`, but is on {operand.device}; "
            f"move it with .to({str(x.device)!r})"
        )
