"""Layers of the networks, computed by the operators of `kernels`.

The modules are PyTorch's own, so that names of weights, initialisation and batch-norm statistics
are too. With KERNELS=reference, or where no compiled operator fits, PyTorch computes them.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

import kernels
from stylegan_mix import numerics

__all__ = ["convolved", "normed", "operators_on"]


def operators_on(device: torch.device) -> str:
    """Names the operators that compute the networks: "reference", or compiled ones by a digest.

    On a GPU that is PyTorch. `MissingEnvironment` (exit code 4) or `UsageFailure` (2) for a value
    of KERNELS that cannot be followed.
    """
    return numerics.operators_on("cpu") if device.type == "cpu" else "reference"


def convolved(convolution: nn.Conv2d, x: Tensor) -> Tensor:
    """Computes a convolution, [N,I,H,W] -> [N,O,H',W'].

    Those with 3x3 filters and stride 1 take `kernels.conv3x3`.
    """
    if not _is_3x3(convolution):
        y: Tensor = convolution(x)
        return y
    if not x.is_meta and torch.is_autocast_enabled(x.device.type):  # meta has shapes alone
        x = x.to(torch.get_autocast_dtype(x.device.type))
    return kernels.conv3x3(x, convolution.weight)


def _is_3x3(convolution: nn.Conv2d) -> bool:
    return (
        convolution.kernel_size == (3, 3)
        and convolution.stride == convolution.padding == convolution.dilation == (1, 1)
        and convolution.groups == 1
        and convolution.padding_mode == "zeros"
        and convolution.bias is None
    )


def normed(norm: nn.BatchNorm2d, x: Tensor, residual: Tensor | None = None) -> Tensor:
    """Computes relu(norm(x) + residual), [N,C,H,W], in one pass; statistics follow as PyTorch's.

    A norm of a class of its own, such as that of several processes, computes itself in training.
    """
    if norm.training and type(norm) is not nn.BatchNorm2d:
        y: Tensor = norm(x)
        return torch.relu(y if residual is None else y + residual)
    # All norms of the networks have both.
    assert norm.running_mean is not None and norm.running_var is not None
    return kernels.batch_norm_relu(
        x,
        norm.running_mean,
        norm.running_var,
        norm.weight,
        norm.bias,
        residual,
        training=norm.training,
        momentum=_momentum(norm),
        eps=norm.eps,
    )


def _momentum(norm: nn.BatchNorm2d) -> float:
    """Counts a batch in training; returns its share of the running statistics.

    Without a momentum, they are the plain average over all batches so far.
    """
    assert norm.num_batches_tracked is not None
    if norm.training:
        norm.num_batches_tracked.add_(1)
    if norm.momentum is None:
        return 1 / max(int(norm.num_batches_tracked), 1)
    return norm.momentum
