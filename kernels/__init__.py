"""The operators of StyleGAN2, and the 3x3 convolution and batch norm of a CPU.

Knows torch, and neither networks nor files. Importing this package compiles nothing.
"""

from __future__ import annotations

from kernels.batch_norm_relu import batch_norm_relu
from kernels.bias_act import ACTIVATIONS, Activation, bias_act
from kernels.conv3x3 import conv3x3
from kernels.dispatch import backend, identity
from kernels.errors import NativeUnavailable
from kernels.modulated_bias_act import modulated_bias_act
from kernels.upfirdn2d import setup_filter, upfirdn2d

__all__ = [
    "ACTIVATIONS",
    "Activation",
    "NativeUnavailable",
    "backend",
    "batch_norm_relu",
    "bias_act",
    "conv3x3",
    "identity",
    "modulated_bias_act",
    "setup_filter",
    "upfirdn2d",
]
